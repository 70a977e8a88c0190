import { onScopeDispose, ref, watch } from "vue";

/** Seconds that are left, counted down from what `seconds` says each time that it changes. */
export function useCountdown(seconds: () => number | null | undefined, onEnd?: () => void) {
  const left = ref(0);
  let timer: ReturnType<typeof setInterval> | undefined;

  function tick(): void {
    left.value = Math.max(0, left.value - 1);
    if (left.value) return;
    clearInterval(timer);
    onEnd?.();
  }
  watch(
    seconds,
    (whole) => {
      clearInterval(timer);
      left.value = whole ?? 0;
      if (left.value) timer = setInterval(tick, 1000);
    },
    { immediate: true },
  );
  onScopeDispose(() => clearInterval(timer));
  return left;
}
