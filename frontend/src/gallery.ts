// The pictures of the gallery: kept while the page is open, so that one can look at a picture and
// come back to where one was.

import { reactive, shallowReactive, watch } from "vue";
import type { ApiError, Generation } from "./api";
import { isFiltered, noFilters, queryOf } from "./filters";
import { api, asError, status, user } from "./service";
import { follow, onRecords } from "./watching";

const PER_PAGE = 50;
/** With filters, the service counts no further. */
const MOST_COUNTED = 1000;

export const filters = reactive(noFilters());

const EMPTY = {
  records: [] as Generation[],
  total: null as number | null,
  cursor: null as string | null,
  isLoading: false,
  isComplete: false,
  error: null as ApiError | null,
  /** How far the page was scrolled when it was left, and the picture that was looked at last. */
  scrolled: 0,
  seen: null as number | null,
};
export const gallery = shallowReactive({ ...EMPTY });

let controller = new AbortController();
let running: Promise<void> | null = null;

export function clearFilters(): void {
  Object.assign(filters, noFilters());
}

/** Begin anew, with the filters as they are now. What is shown stays until there is something else. */
export function reload(): Promise<void> {
  controller.abort();
  controller = new AbortController();
  gallery.isComplete = false;
  gallery.cursor = null;
  return start(true);
}

export async function loadMore(): Promise<void> {
  if (running) await running;
  else if (!gallery.isComplete) await start(false);
}

/** After a failure: the next page, or the first one, if it was that. */
export function again(): Promise<void> {
  return gallery.cursor ? loadMore() : reload();
}

/** Load all that match, unless something goes wrong or somebody begins anew. */
export async function loadAll(signal: AbortSignal): Promise<void> {
  const { signal: other } = controller;
  while (!gallery.isComplete && !signal.aborted && !other.aborted) {
    await loadMore();
    if (gallery.error) return;
  }
}

function start(isFirst: boolean): Promise<void> {
  const mine = load(isFirst, controller.signal).finally(() => {
    if (running === mine) running = null;
  });
  return (running = mine);
}

async function load(isFirst: boolean, signal: AbortSignal): Promise<void> {
  gallery.isLoading = true;
  gallery.error = null;
  try {
    let more: Generation[];
    do {
      // Of a search, a page may be empty though there are more.
      more = await loadPage(isFirst, signal);
    } while (!more.length && gallery.cursor);
    gallery.isComplete = !gallery.cursor;
    gallery.records = isFirst ? more : [...gallery.records, ...more];
    follow(more);
  } catch (problem) {
    if (!signal.aborted) gallery.error = asError(problem);
  } finally {
    if (!signal.aborted) gallery.isLoading = false;
  }
}

async function loadPage(isFirst: boolean, signal: AbortSignal): Promise<Generation[]> {
  const query = { per_page: PER_PAGE, cursor: gallery.cursor ?? undefined, ...queryOf(filters) };
  const { data } = await api.call("get", "/api/v1/images/history", { query, signal });
  const known = new Set(isFirst ? [] : gallery.records.map((record) => record.id));
  gallery.total = data.pagination.total;
  gallery.cursor = data.pagination.nextCursor;
  return data.records.filter((record) => !known.has(record.id));
}

/** How many match: of a search, nobody knows before its end. */
export function counted(): { n: number; isMore: boolean } | null {
  const { records, total, isComplete } = gallery;
  if (isComplete) return { n: records.length, isMore: false };
  if (total === null) return null;
  const { q, status, favorite, model, tags } = filters;
  const isSearched = Boolean(q) || [status, favorite, model, ...tags].filter(Boolean).length > 1;
  if (isSearched) return { n: records.length, isMore: true };
  return { n: total, isMore: total === MOST_COUNTED && (isFiltered(filters) || Boolean(status)) };
}

// -- What changes meanwhile ----------------------------------------------------------------------

/** Show the new state of pictures that are here; `gone` leave. */
export function update(records: Generation[], gone: number[] = []): void {
  const fresh = new Map(records.map((record) => [record.id, record]));
  const leaving = new Set(gone);
  const isAny = gallery.records.some((record) => fresh.has(record.id) || leaving.has(record.id));
  if (!isAny) return;
  const left = gallery.records.filter((record) => !leaving.has(record.id));
  if (gallery.total !== null) gallery.total -= gallery.records.length - left.length;
  gallery.records = left.map((record) => fresh.get(record.id) ?? record);
}

/** Show the tags that pictures have now. */
export function updateTags(tags: Map<number, string[]>): void {
  const changed = gallery.records.filter((record) => tags.has(record.id));
  update(changed.map((record) => ({ ...record, tags: tags.get(record.id)! })));
}

/** Something that is given back to those who put pictures back, to know whether it is the same. */
export const listing = () => controller;

/** Put pictures back to where they were, if the gallery still shows what they were taken from. */
export function putBack(records: Generation[], from: AbortController): void {
  if (from !== controller) return void reload();
  const here = new Set(gallery.records.map((record) => record.id));
  const added = records.filter((record) => !here.has(record.id));
  gallery.records = [...gallery.records, ...added].sort(byAge);
  if (gallery.total !== null) gallery.total += added.length;
}

/** The newest first, as the service has them. */
function byAge(one: Generation, other: Generation): number {
  const [a, b] = [one.createdAt ?? "", other.createdAt ?? ""];
  return a === b ? other.id - one.id : a < b ? 1 : -1;
}

/** The pictures before and after one, as the gallery shows them. */
export function neighbours(id: number): { before: Generation | null; after: Generation | null } {
  const index = gallery.records.findIndex((record) => record.id === id);
  return {
    before: index > 0 ? gallery.records[index - 1] : null,
    after: index >= 0 ? (gallery.records[index + 1] ?? null) : null,
  };
}

function forget(): void {
  controller.abort();
  controller = new AbortController();
  Object.assign(gallery, EMPTY);
  clearFilters();
}

onRecords(update);
// Whose session ended, and who logs in again over the page, finds all as it was.
api.session.onChange((token) => {
  if (!token) queueMicrotask(() => status.hasEnded || forget());
});
watch(user, (now, before) => {
  if (before && now?.id !== before.id) forget();
});
