// A long list that comes page by page, each by the cursor of the page before.

import { onScopeDispose, ref, shallowRef, watch, type WatchSource } from "vue";
import type { ApiError } from "./api";
import { asError } from "./service";

export interface Page<Row> {
  rows: Row[];
  nextCursor: string | null;
}

/** So long after the last key, a search begins. */
const TYPING_MILLISECONDS = 250;

export function usePages<Row extends { id: number }>(
  ask: (cursor?: number) => Promise<Page<Row>>,
  filters?: WatchSource<unknown> | object,
) {
  const rows = shallowRef<Row[]>([]);
  const cursor = ref<number | null>(null);
  const error = shallowRef<ApiError | null>(null);
  const isLoading = ref(true);
  let asked = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;

  async function fetchPage(after?: number): Promise<void> {
    const number = ++asked;
    isLoading.value = true;
    try {
      const page = await ask(after);
      if (number !== asked) return;
      rows.value = after ? [...rows.value, ...page.rows] : page.rows;
      cursor.value = page.nextCursor ? Number(page.nextCursor) : null;
      error.value = null;
    } catch (problem) {
      if (number === asked) error.value = asError(problem);
    } finally {
      if (number === asked) isLoading.value = false;
    }
  }

  /** Show a row as it is now, wherever it stands. */
  function replace(row: Row): void {
    rows.value = rows.value.map((one) => (one.id === row.id ? row : one));
  }

  function remove(id: number): void {
    rows.value = rows.value.filter((one) => one.id !== id);
  }

  if (filters) {
    watch(
      filters,
      () => {
        clearTimeout(timer);
        timer = setTimeout(() => void fetchPage(), TYPING_MILLISECONDS);
      },
      { deep: true },
    );
  }
  onScopeDispose(() => clearTimeout(timer));
  void fetchPage();
  const load = () => fetchPage();
  const more = () => fetchPage(cursor.value ?? undefined);
  return { rows, cursor, error, isLoading, load, more, replace, remove };
}
