// The pictures that others are to be made from, as the form shows them: those of the draft, which
// knows their ids alone, and those that are still on their way to the service.

import { shallowReactive } from "vue";
import { addUpload, checkPicture, type ImageSource, type Upload } from "./api";
import { addReference, draft, keyOf } from "./draft";
import { api, asError, type Model } from "./service";

export type Offer = NonNullable<Model["capabilities"]["images"]>;

export interface Shown {
  thumbnail: string;
  picture: string;
  width: number;
  height: number;
  name: string;
}

export interface Sending {
  id: number;
  preview: string;
  name: string;
  /** From 0 to 1. */
  part: number;
  stop: () => void;
}

interface Translate {
  (key: string, values?: Record<string, unknown>): string;
}

export const shown = shallowReactive(new Map<string, Shown>());
export const sending = shallowReactive(new Map<number, Sending>());
let last = 0;

/** Send files as far as there is room for them. Returns what is wrong with the others. */
export function send(files: File[], offer: Offer, t: Translate, onError: (text: string) => void): void {
  const room = Math.max(0, offer.max - draft.references.length - sending.size);
  const good: File[] = [];
  for (const file of files) {
    const problem = checkPicture(file, offer);
    const formats = offer.formats.join(", ");
    const size = Math.floor(offer.maxBytes / 2 ** 20);
    if (problem) onError(`${file.name}: ${t(`references.${problem}`, { formats, size })}`);
    else good.push(file);
  }
  if (good.length > room) onError(t("references.many", { n: offer.max }));
  for (const file of good.slice(0, room)) void sendOne(file, t, onError);
}

async function sendOne(file: File, t: Translate, onError: (text: string) => void): Promise<void> {
  const id = ++last;
  const { signal, stop } = stopper();
  const one: Sending = { id, preview: URL.createObjectURL(file), name: file.name, part: 0, stop };
  sending.set(id, one);
  const onProgress = (part: number) => sending.has(id) && sending.set(id, { ...one, part });
  try {
    note(await addUpload(api, file, { name: file.name, onProgress, signal }), file.name);
  } catch (problem) {
    const error = asError(problem);
    const text = error.code === "offline" ? t("errors.offline") : (error.fields.file ?? error.message);
    if (!signal.aborted && !error.endsSession) onError(`${file.name}: ${text}`);
  } finally {
    sending.delete(id);
    URL.revokeObjectURL(one.preview);
  }
}

function stopper() {
  const controller = new AbortController();
  return { signal: controller.signal, stop: () => controller.abort() };
}

function note(upload: Upload, name: string): void {
  const source = { upload: upload.id };
  shown.set(keyOf(source), ofUpload(upload, name));
  addReference(source);
}

function ofUpload({ signedUrl, signedThumbnailUrl, width, height }: Upload, name = ""): Shown {
  const thumbnail = api.asset(signedThumbnailUrl ?? signedUrl ?? "");
  return { thumbnail, picture: api.asset(signedUrl ?? ""), width, height, name };
}

/** What a source looks like; null if it is gone, undefined if that cannot be found out now. */
export async function find(source: ImageSource): Promise<Shown | null | undefined> {
  try {
    return "upload" in source ? await findUpload(source.upload) : await findImage(source.image);
  } catch (problem) {
    const { status } = asError(problem);
    return status === 404 || status === 410 ? null : undefined;
  }
}

async function findUpload(id: string): Promise<Shown> {
  return ofUpload((await api.call("get", "/api/v1/uploads/{upload_id}", { path: { upload_id: id } })).data);
}

async function findImage(id: number): Promise<Shown | null> {
  const path = { generation_id: id };
  const { data } = await api.call("get", "/api/v1/images/{generation_id}", { path });
  if (!data.signedImageUrl) return null;
  const picture = api.asset(data.signedImageUrl);
  const thumbnail = data.signedThumbnailUrl ? api.asset(data.signedThumbnailUrl) : picture;
  return { thumbnail, picture, width: data.width ?? 0, height: data.height ?? 0, name: data.prompt };
}

/** Find out what those of the draft look like; those that are gone leave it. Returns how many did. */
export async function showAll(): Promise<number> {
  const unknown = draft.references.filter((source) => !shown.has(keyOf(source)));
  const found = await Promise.all(unknown.map(find));
  const gone = new Set<string>();
  for (const [index, source] of unknown.entries()) {
    const one = found[index];
    if (one) shown.set(keyOf(source), one);
    else if (one === null) gone.add(keyOf(source));
  }
  if (gone.size) draft.references = draft.references.filter((source) => !gone.has(keyOf(source)));
  return gone.size;
}

export function removeReference(index: number): void {
  draft.references.splice(index, 1);
}

/** Returns where it is now. */
export function moveReference(index: number, by: number): number {
  const to = Math.min(draft.references.length - 1, Math.max(0, index + by));
  const [one] = draft.references.splice(index, 1);
  draft.references.splice(to, 0, one);
  return to;
}
