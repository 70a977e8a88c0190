// The pictures of the gallery: kept while the page is open, so that one can look at a picture and
// come back to where one was.

import { reactive, shallowReactive } from "vue";
import type { ApiError, Generation } from "./api";
import { api, asError } from "./service";
import { follow, onRecords } from "./watching";

const PER_PAGE = 50;

export const filters = reactive({
  q: "",
  status: "completed" as "completed" | "failed" | "canceled" | "",
  favorite: false,
  model: "",
  days: 0,
});

export const gallery = shallowReactive({
  records: [] as Generation[],
  total: null as number | null,
  cursor: null as string | null,
  isLoading: false,
  isComplete: false,
  error: null as ApiError | null,
});

let controller = new AbortController();

export const isFiltered = () =>
  Boolean(filters.q || filters.favorite || filters.model || filters.days || filters.status !== "completed");

export function clearFilters(): void {
  Object.assign(filters, { q: "", status: "completed", favorite: false, model: "", days: 0 });
}

/** Begin anew, with the filters as they are now. What is shown stays until there is something else. */
export async function reload(): Promise<void> {
  controller.abort();
  controller = new AbortController();
  gallery.isLoading = false;
  gallery.isComplete = false;
  gallery.cursor = null;
  await load(true);
}

export async function loadMore(): Promise<void> {
  if (!gallery.isLoading && !gallery.isComplete) await load(false);
}

async function load(isFirst: boolean): Promise<void> {
  const { signal } = controller;
  gallery.isLoading = true;
  gallery.error = null;
  try {
    const { data } = await api.call("get", "/api/v1/images/history", { query: query(), signal });
    const known = new Set(isFirst ? [] : gallery.records.map((record) => record.id));
    const more = data.records.filter((record) => !known.has(record.id));
    gallery.records = isFirst ? more : [...gallery.records, ...more];
    gallery.total = data.pagination.total;
    gallery.cursor = data.pagination.nextCursor;
    gallery.isComplete = !gallery.cursor;
    follow(more);
  } catch (problem) {
    if (!signal.aborted) gallery.error = asError(problem);
  } finally {
    if (!signal.aborted) gallery.isLoading = false;
  }
}

function query() {
  const since = new Date(Date.now() - filters.days * 86_400_000);
  if (filters.days === 1) since.setHours(0, 0, 0, 0);
  return {
    per_page: PER_PAGE,
    cursor: gallery.cursor ?? undefined,
    q: filters.q.trim().slice(0, 200) || undefined,
    status: filters.status || undefined,
    favorite: filters.favorite || undefined,
    model: filters.model || undefined,
    since: filters.days ? since.toISOString() : undefined,
  };
}

/** Show the new state of pictures that are here; `gone` leave. */
export function update(records: Generation[], gone: number[] = []): void {
  const fresh = new Map(records.map((record) => [record.id, record]));
  const isAny = gallery.records.some((record) => fresh.has(record.id) || gone.includes(record.id));
  if (!isAny) return;
  const left = gallery.records.filter((record) => !gone.includes(record.id));
  if (gallery.total !== null) gallery.total -= gallery.records.length - left.length;
  gallery.records = left.map((record) => fresh.get(record.id) ?? record);
}

/** The pictures before and after one, as the gallery shows them. */
export function neighbours(id: number): { before: Generation | null; after: Generation | null } {
  const index = gallery.records.findIndex((record) => record.id === id);
  return {
    before: index > 0 ? gallery.records[index - 1] : null,
    after: index >= 0 ? (gallery.records[index + 1] ?? null) : null,
  };
}

onRecords(update);
api.session.onChange((token) => {
  if (!token) Object.assign(gallery, { records: [], total: null, cursor: null, isComplete: false });
});
