// Follow generations until they are finished: all of them in one request, `?ids=1,2,3`, with the
// ETag of the answer before, so that an answer without news is a 304 of a few bytes.

import type { Client } from "./client";
import { ApiError } from "./errors";
import type { components } from "./schema";

export type Generation = components["schemas"]["Generation"];

const SECONDS = 1;
const LONGEST_SECONDS = 30;
/** So many ids a request may name. */
const MOST_IDS = 50;

export function isFinished({ status }: Pick<Generation, "status">): boolean {
  return status !== "pending" && status !== "processing";
}

/** How long to wait after this many failures in a row: 2 s, 4 s, 8 s and so on, to half a minute. */
export function backoff(failures: number): number {
  return Math.min(LONGEST_SECONDS, SECONDS * 2 ** failures);
}

export interface WatchEvents {
  /** Records that may be new, and the ids that are no more, because they were deleted. */
  onRecords: (records: Generation[], gone: number[]) => void;
  /** The service cannot be reached, or can again. */
  onConnection?: (isLost: boolean) => void;
}

export function createWatcher(api: Client, events: WatchEvents) {
  const ids = new Set<number>();
  let etag: string | null = null;
  let failures = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let isAsking = false;

  async function ask(): Promise<void> {
    clearTimeout(timer);
    if (isAsking || !ids.size) return;
    isAsking = true;
    const asked = [...ids].slice(0, MOST_IDS);
    try {
      const headers: Record<string, string> = etag ? { "If-None-Match": etag } : {};
      const answer = await api.call("get", "/api/v1/images", { query: { ids: asked }, headers });
      if (failures) events.onConnection?.(false);
      failures = 0;
      if (answer.status !== 304) {
        etag = answer.headers.get("ETag");
        take(asked, answer.data.records);
      }
    } catch (error) {
      if (error instanceof ApiError && error.endsSession) return ids.clear();
      failures += 1;
      if (failures === 2) events.onConnection?.(true);
    } finally {
      isAsking = false;
    }
    // A page that nobody looks at does not ask; it does at once when it is looked at again.
    if (ids.size && !document.hidden) timer = setTimeout(ask, backoff(failures) * 1000);
  }

  function take(asked: number[], records: Generation[]): void {
    const found = new Set(records.map((record) => record.id));
    const gone = asked.filter((id) => !found.has(id));
    for (const id of gone) ids.delete(id);
    for (const record of records) if (isFinished(record)) ids.delete(record.id);
    events.onRecords(records, gone);
  }

  const wake = () => void ask();
  globalThis.addEventListener("online", wake);
  document.addEventListener("visibilitychange", wake);

  return {
    /** Follow these, too. */
    add(more: Iterable<number>): void {
      for (const id of more) ids.add(id);
      etag = null;
      void ask();
    },
    remove(id: number): void {
      ids.delete(id);
      etag = null;
    },
    clear(): void {
      ids.clear();
      etag = null;
      clearTimeout(timer);
    },
  };
}
