import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { effectScope, nextTick, shallowRef } from "vue";
import { useCountdown } from "./useCountdown";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

test("it counts down once for each thing, and is silent when its screen is gone", async () => {
  const wait = shallowRef<{ seconds: number } | null>({ seconds: 2 });
  const ended = vi.fn();
  const scope = effectScope();
  const left = scope.run(() => useCountdown(() => wait.value, (one) => one?.seconds, ended))!;

  vi.advanceTimersByTime(1000);
  expect(left.value).toBe(1);
  vi.advanceTimersByTime(5000);
  expect([left.value, ended.mock.calls.length]).toEqual([0, 1]);

  wait.value = { seconds: 2 }; // The same number, but said again.
  await nextTick();
  expect(left.value).toBe(2);
  scope.stop();
  vi.advanceTimersByTime(5000);
  expect(ended.mock.calls.length).toBe(1);
});
