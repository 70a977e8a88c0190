// Several things chosen at once: one by one, from one to another, or all.

import { computed, ref, shallowRef, watch } from "vue";

export function useSelection(ids: () => number[]) {
  const isSelecting = ref(false);
  const chosen = shallowRef(new Set<number>());
  let anchor: number | null = null;

  /** Choose one, or no longer; with `isRange`, all from the one before to this. */
  function toggle(id: number, isRange = false): void {
    isSelecting.value = true;
    const all = new Set(chosen.value);
    const isOn = isRange || !all.has(id);
    for (const one of isRange ? between(ids(), anchor ?? id, id) : [id]) {
      if (isOn) all.add(one);
      else all.delete(one);
    }
    chosen.value = all;
    anchor = id;
  }

  function chooseAll(): void {
    isSelecting.value = true;
    chosen.value = new Set(ids());
  }

  function stop(): void {
    isSelecting.value = false;
    chosen.value = new Set();
    anchor = null;
  }

  // What has gone, or does not match any more, is not chosen any more.
  watch(ids, (now) => {
    if (!chosen.value.size) return;
    const here = new Set(now);
    const left = [...chosen.value].filter((id) => here.has(id));
    if (left.length < chosen.value.size) chosen.value = new Set(left);
  });

  return { isSelecting, chosen, count: computed(() => chosen.value.size), toggle, chooseAll, stop };
}

/** Those from one to another, whichever comes first; the last alone if the first is not there. */
export function between(ids: number[], from: number, to: number): number[] {
  const [first, last] = [ids.indexOf(from), ids.indexOf(to)].sort((a, b) => a - b);
  return first < 0 ? [to] : ids.slice(first, last + 1);
}
