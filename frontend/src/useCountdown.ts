import { onScopeDispose, ref, watch } from "vue";

/** Count the seconds down that something says, anew with each other thing that comes. */
export function useCountdown<T>(thing: () => T, seconds: (thing: T) => number | null | undefined, onEnd?: () => void) {
  const left = ref(0);
  let end = 0;
  let timer: ReturnType<typeof setInterval> | undefined;

  function tick(): void {
    // By the clock: a machine that slept has waited, too.
    left.value = Math.max(0, Math.ceil((end - Date.now()) / 1000));
    if (left.value) return;
    clearInterval(timer);
    onEnd?.();
  }
  watch(
    thing,
    (now) => {
      clearInterval(timer);
      left.value = seconds(now) ?? 0;
      end = Date.now() + left.value * 1000;
      if (left.value) timer = setInterval(tick, 1000);
    },
    { immediate: true },
  );
  onScopeDispose(() => clearInterval(timer));
  return left;
}
