import { expect, test } from "vitest";
import { countPainted, Steps } from "./mask";

const dot = (x: number) => ({ kind: "stroke" as const, erases: false, points: [{ x, y: 0, width: 1 }] });

test("steps are undone and done again; a new one forgets those undone", () => {
  const steps = new Steps();
  expect([steps.canUndo, steps.canRedo]).toEqual([false, false]);
  for (const x of [1, 2, 3]) steps.add(dot(x));
  steps.undo();
  steps.undo();
  expect([steps.done, steps.canRedo]).toEqual([[dot(1)], true]);
  steps.redo();
  expect(steps.done).toEqual([dot(1), dot(2)]);
  steps.add({ kind: "invert" });
  expect([steps.done.length, steps.canRedo]).toEqual([3, false]);
});

test("only what is wholly painted counts", () => {
  expect(countPainted(new Uint8ClampedArray([0, 0, 0, 255, 9, 9, 9, 254, 9, 9, 9, 0]))).toBe(1);
});
