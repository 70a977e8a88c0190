// Pictures that others are made from. Send them once; `images` of a request then names them by id:
// `images: [{ upload: upload.id }]`. A finished picture of one's own needs no upload: `{ image: 42 }`.

import type { Client } from "./client";
import type { components } from "./schema";

export type Upload = components["schemas"]["Upload"];
/** One of the two. */
export type ImageSource = { upload: string } | { image: number };

export const MEDIA_TYPES = { png: "image/png", jpg: "image/jpeg", webp: "image/webp" } as const;
type Format = keyof typeof MEDIA_TYPES;

/** What the service takes of every picture; a model may take less: `capabilities.images`. */
const TAKEN = { formats: Object.keys(MEDIA_TYPES) as Format[], maxBytes: 20 * 1024 * 1024 };

/** What is wrong with a file, before any of it is sent; null if nothing is. */
export function checkPicture(file: File, offer: { formats: Format[]; maxBytes: number } = TAKEN): "format" | "bytes" | null {
  if (!offer.formats.some((format) => MEDIA_TYPES[format] === file.type)) return "format";
  return file.size > Math.min(offer.maxBytes, TAKEN.maxBytes) ? "bytes" : null;
}

/**
 * Send a picture. The same bytes again are the same upload, so that it may be tried again after
 * "offline". 400 names the field `file`; 409 `storage_full`, 429 `too_many_uploads`.
 */
export async function addUpload(
  api: Client,
  file: Blob,
  options: { name?: string; onProgress?: (part: number) => void; signal?: AbortSignal } = {},
): Promise<Upload> {
  const form = new FormData();
  form.append("file", file, options.name ?? "picture.png");
  const { data } = await api.upload("post", "/api/v1/uploads", form, options.onProgress, options.signal);
  return data;
}
