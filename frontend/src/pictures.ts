// What can be done with pictures, from whatever screen.

import { type ApiError, newKey, type Generation } from "./api";
import { formatSeconds } from "./i18n";
import { api, asError, user } from "./service";
import { tell } from "./toasts";

type Translate = (key: string, values?: Record<string, unknown>) => string;

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

export async function deleteMany(ids: number[]): Promise<number[]> {
  const deleted: number[] = [];
  for (let start = 0; start < ids.length; start += 100) {
    const body = { ids: ids.slice(start, start + 100) };
    const { data } = await api.call("post", "/api/v1/images/delete", { body });
    deleted.push(...data.deleted);
  }
  return deleted;
}

export async function restoreMany(ids: number[]): Promise<void> {
  for (let start = 0; start < ids.length; start += 100) {
    await api.call("post", "/api/v1/images/restore", { body: { ids: ids.slice(start, start + 100) } });
  }
}

export function thumbnail(record: Generation): string {
  return record.signedThumbnailUrl ? api.asset(record.signedThumbnailUrl) : "";
}

export function picture(record: Generation): string {
  return record.signedImageUrl ? api.asset(record.signedImageUrl) : "";
}
