// What can be done with pictures, from whatever screen.

import { type ApiError, newKey, type Generation } from "./api";
import { listing, putBack, update } from "./gallery";
import { formatSeconds } from "./i18n";
import { api, asError, loadUser, user } from "./service";
import { tell } from "./toasts";

interface Translate {
  (key: string, values?: Record<string, unknown>): string;
  (key: string, values: Record<string, unknown>, plural: number): string;
}

/** Run something, and say what went wrong. Returns whether nothing did. */
export async function attempt(run: () => Promise<void>, t: Translate): Promise<boolean> {
  try {
    await run();
    return true;
  } catch (problem) {
    const error = asError(problem);
    if (!error.endsSession) tell(sentenceOf(error, t), { isError: true });
    return false;
  }
}

function sentenceOf(error: ApiError, t: Translate): string {
  if (error.code === "offline") return t("errors.offline");
  const wait = error.retryAfter ? ` · ${t("errors.again", { time: formatSeconds(error.retryAfter) })}` : "";
  return error.message + wait;
}

export async function setFavorite(record: Generation, favorite: boolean): Promise<Generation> {
  const path = { generation_id: record.id };
  const { data } = await api.call("patch", "/api/v1/images/{generation_id}", { path, body: { favorite } });
  return data;
}

export async function cancel(record: Generation): Promise<Generation> {
  const path = { generation_id: record.id };
  const { data } = await api.call("post", "/api/v1/images/{generation_id}/cancel", { path });
  return data;
}

/** Make it once more, by the same seed or by another. */
export async function makeAgain(record: Generation, hasNewSeed: boolean): Promise<Generation[]> {
  const { data } = await api.call("post", "/api/v1/images/{generation_id}/retry", {
    path: { generation_id: record.id },
    body: hasNewSeed ? { seed: "new" } : {},
    headers: { "Idempotency-Key": newKey() },
  });
  return data.records;
}

/** Whether what is deleted can be taken back. */
export const hasTrash = () => (user.value?.trashDays ?? 0) > 0;

/** So many ids a request may name. */
const MOST_IDS = 100;

export async function inParts(ids: number[], send: (part: number[]) => Promise<void>): Promise<void> {
  for (let start = 0; start < ids.length; start += MOST_IDS) await send(ids.slice(start, start + MOST_IDS));
}

/**
 * Delete pictures. They leave the gallery as they go; the message offers to take them back where
 * there is a trash. `onBack` is called if somebody does.
 */
export async function remove(records: Generation[], t: Translate, onBack?: () => void): Promise<boolean> {
  const from = listing();
  const gone: number[] = [];
  const isDone = await attempt(async () => {
    await inParts(records.map((record) => record.id), async (ids) => {
      const { data } = await api.call("post", "/api/v1/images/delete", { body: { ids } });
      gone.push(...data.deleted);
      update([], ids);
    });
  }, t);
  if (gone.length) {
    const run = () => void attempt(async () => {
      putBack(await listByIds(await restore(gone)), from);
      onBack?.();
    }, t);
    tell(t("gallery.deleted", { n: gone.length }, gone.length), hasTrash() ? { action: { label: t("undo"), run } } : {});
    loadUser().catch(() => {});
  }
  return isDone;
}

/** Take pictures back from the trash; returns which came. */
export async function restore(ids: number[]): Promise<number[]> {
  const back: number[] = [];
  await inParts(ids, async (part) => {
    const { data } = await api.call("post", "/api/v1/images/restore", { body: { ids: part } });
    back.push(...data.restored);
  });
  return back;
}

/** For good, at once; also what is in the trash. */
export async function purge(ids: number[]): Promise<void> {
  await inParts(ids, async (part) => {
    await api.call("post", "/api/v1/images/delete", { query: { purge: true }, body: { ids: part } });
  });
}

/** So many records one request may ask for. */
const MOST_RECORDS = 50;

export async function listByIds(ids: number[]): Promise<Generation[]> {
  const found: Generation[] = [];
  for (let start = 0; start < ids.length; start += MOST_RECORDS) {
    const query = { ids: ids.slice(start, start + MOST_RECORDS) };
    found.push(...(await api.call("get", "/api/v1/images", { query })).data.records);
  }
  return found;
}

/** Have the browser save pictures as one ZIP file, as it comes. */
export async function saveArchive(ids: number[], metadata: "keep" | "strip"): Promise<void> {
  const { data } = await api.call("post", "/api/v1/images/archive", { body: { ids, metadata, link: true } });
  if ("url" in data) save(api.asset(String(data.url)));
}

function save(address: string): void {
  const link = document.createElement("a");
  link.href = address;
  // An answer that is no file must not take the place of the page.
  link.download = "";
  link.click();
}

export async function copy(text: string, t: Translate): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    tell(t("image.copied"));
  } catch {
    tell(t("image.notCopied"), { isError: true });
  }
}

/** What it is called; those made of pictures alone have no prompt. */
export function nameOf({ prompt, id }: Pick<Generation, "prompt" | "id">, t: Translate): string {
  return prompt || t("image.wordless", { id });
}

export function thumbnail(record: Generation): string {
  return record.signedThumbnailUrl ? api.asset(record.signedThumbnailUrl) : "";
}

export function picture(record: Generation): string {
  return record.signedImageUrl ? api.asset(record.signedImageUrl) : "";
}
