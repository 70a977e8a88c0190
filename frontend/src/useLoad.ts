// What a part of a screen asks for when it is shown, what went wrong with it, and once more.

import { ref, shallowRef } from "vue";
import type { ApiError } from "./api";
import { asError } from "./service";

export function useLoad<T>(ask: () => Promise<T>) {
  const data = shallowRef<T | null>(null);
  const error = shallowRef<ApiError | null>(null);
  const isLoading = ref(false);
  let asked = 0;

  async function load(): Promise<void> {
    const number = ++asked;
    isLoading.value = true;
    try {
      const found = await ask();
      // An answer that was overtaken by a later one says nothing.
      if (number !== asked) return;
      data.value = found;
      error.value = null;
    } catch (problem) {
      if (number === asked) error.value = asError(problem);
    } finally {
      if (number === asked) isLoading.value = false;
    }
  }
  void load();
  return { data, error, isLoading, load };
}
