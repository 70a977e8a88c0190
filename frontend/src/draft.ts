// The picture that somebody is about to ask for: kept by the browser at each key, so that neither a
// reload nor the end of a session loses it.

import { reactive, watch } from "vue";
import type { Generation, ImageSource } from "./api";
import { remember, remembered } from "./memory";
import type { Model } from "./service";

export const RANGES = ["steps", "guidance", "output_compression"] as const;
export const CHOICES = ["quality", "style", "sampler", "background", "output_format", "moderation"] as const;
/** Another way to say the size. */
export const WAYS = ["aspect_ratio", "resolution"] as const;
const NAMES = [...RANGES, ...CHOICES, ...WAYS];
export type Name = (typeof NAMES)[number];
export interface Size {
  width: number;
  height: number;
}

const EMPTY = {
  prompt: "",
  negative: "",
  model: "",
  size: null as Size | null,
  n: 1,
  seed: null as number | null,
  isSeedLocked: false,
  values: {} as Partial<Record<Name, number | string>>,
  references: [] as ImageSource[],
  /** An upload, and the key of the picture that it is for. */
  mask: null as { upload: string; of: string } | null,
  strength: null as number | null,
};

export const draft = reactive({ ...structuredClone(EMPTY), ...remembered("draft", {}) });
watch(draft, () => remember("draft", draft), { deep: true, flush: "sync" });

const MOST_PROMPTS = 30;
export const prompts = reactive<string[]>(remembered("prompts", []));

export function notePrompt(prompt: string): void {
  const others = prompts.filter((one) => one !== prompt);
  prompts.splice(0, prompts.length, prompt, ...others.slice(0, MOST_PROMPTS - 1));
  remember("prompts", prompts);
}

export function forgetWork(): void {
  Object.assign(draft, structuredClone(EMPTY));
  prompts.splice(0);
  remember("prompts", []);
}

/** Begin with what a picture was made from. */
export function takeOver(record: Generation): void {
  const { params } = record;
  const values: typeof draft.values = {};
  for (const name of NAMES) {
    const value = params[name];
    if (typeof value === "number" || typeof value === "string") values[name] = value;
  }
  const isShaped = WAYS.some((name) => name in values);
  Object.assign(draft, {
    prompt: record.prompt,
    negative: typeof params.negative_prompt === "string" ? params.negative_prompt : "",
    model: record.model ?? "",
    size: !isShaped && record.width && record.height ? { width: record.width, height: record.height } : null,
    seed: params.seed,
    isSeedLocked: params.seed !== null,
    values,
    ...inputsOf(record),
    strength: typeof params.strength === "number" ? params.strength : null,
  });
}

function inputsOf({ inputs }: Generation): Pick<typeof draft, "references" | "mask"> {
  const references = inputs
    .filter(({ kind }) => kind !== "mask")
    .map(({ kind, id }) => (kind === "image" ? { image: Number(id) } : { upload: String(id) }));
  const mask = inputs.find(({ kind }) => kind === "mask");
  const of = references.length ? keyOf(references[0]) : "";
  return { references, mask: mask && of ? { upload: String(mask.id), of } : null };
}

/** Begin with a picture and with what was said of it, to be changed. */
export function goOnFrom(record: Generation): void {
  takeOver(record);
  Object.assign(draft, { references: [{ image: record.id }], mask: null, seed: null, isSeedLocked: false });
}

export const keyOf = (source: ImageSource) => ("image" in source ? `image ${source.image}` : `upload ${source.upload}`);

/** Add a picture to what is made from; one that is there already stays where it is. */
export function addReference(source: ImageSource): void {
  const key = keyOf(source);
  if (!draft.references.some((one) => keyOf(one) === key)) draft.references.push(source);
}

/** The mask, as long as the picture that it is for comes first. */
export function maskOf(model: Model): string | null {
  const [first] = draft.references;
  const isMeant = model.capabilities.images?.mask && first && draft.mask?.of === keyOf(first);
  return isMeant ? draft.mask!.upload : null;
}

const SHAPES = [
  [1, 1],
  [4, 3],
  [3, 2],
  [16, 9],
  [3, 4],
  [2, 3],
  [9, 16],
];

/** The sizes to choose from: those of the model, or usual shapes of as many pixels as its default. */
export function sizesOf(model: Model): Size[] {
  if (model.sizes.length) return model.sizes;
  const { width, height } = model.parameters;
  const pixels = width.default * height.default;
  const sizes = SHAPES.map(([across, down]) => ({
    width: fit(Math.sqrt((pixels * across) / down), width),
    height: fit(Math.sqrt((pixels * down) / across), height),
  }));
  const first = { width: width.default, height: height.default };
  return [first, ...sizes.filter((size) => !isSame(size, first) && isOffered(model, size))];
}

export const isSame = (one: Size, other: Size) => one.width === other.width && one.height === other.height;

/** The nearest value that the range allows; by itself, one that engines like. */
export function fit(value: number, range: { min: number; max: number; step?: number }): number {
  const step = range.step ?? 8;
  const nearest = Math.round(value / step) * step;
  return Math.min(range.max, Math.max(range.min, nearest));
}

/** What is sent: only what the model takes, and of that only what differs from its defaults. */
export function bodyOf(model: Model) {
  const { parameters, capabilities } = model;
  const values: Record<string, number | string> = {};
  for (const name of [...RANGES, ...CHOICES]) {
    const value = draft.values[name];
    if (value !== undefined && takes(model, name) && allows(parameters[name], value)) values[name] = value;
  }
  const seed = seedOf(model);
  return {
    ...(draft.prompt.trim() || !draft.references.length ? { prompt: draft.prompt } : {}),
    model: model.name,
    ...(isShaped(model) ? shapeOf(model) : sizeOf(model)),
    ...values,
    ...picturesOf(model),
    n: Math.min(draft.n, capabilities.n),
    ...(capabilities.negativePrompt && draft.negative.trim() ? { negative_prompt: draft.negative } : {}),
    ...(seed === null ? {} : { seed }),
  };
}

/** All of them, whatever the model takes: it must not make a picture of the words alone. */
function picturesOf(model: Model) {
  if (!draft.references.length) return {};
  const mask = maskOf(model);
  const limits = model.capabilities.images?.strength;
  const isAsked = limits && draft.strength !== null && allows(limits, draft.strength);
  return {
    images: draft.references.map((source) => ({ ...source })),
    ...(mask ? { mask: { upload: mask } } : {}),
    ...(isAsked ? { strength: draft.strength! } : {}),
  };
}

/** Nothing is lost in a PNG, so there is nothing to say about it. */
export function takes(model: Model, name: Name): boolean {
  if (!model.parameters[name]) return false;
  return name !== "output_compression" || valueOf(model, "output_format") !== "png";
}

/** What is chosen, if the model takes it, else its default. */
export function valueOf(model: Model, name: Name): number | string {
  const limits = model.parameters[name];
  const value = draft.values[name];
  return limits && value !== undefined && allows(limits, value) ? value : (limits?.default ?? "");
}

/** The seed that is asked for; null for any. */
export function seedOf({ capabilities }: Model): number | null {
  const { seed } = draft;
  const isGood = capabilities.seed && draft.isSeedLocked && seed !== null && seed <= (capabilities.seedMax ?? seed);
  return isGood ? seed : null;
}

/** Whether the size is said by a ratio and a resolution, not in pixels. */
export function isShaped(model: Model): boolean {
  if (!WAYS.some((name) => model.parameters[name])) return false;
  return !draft.size || model.sizes.length > 0 || !isOffered(model, draft.size);
}

function shapeOf(model: Model) {
  const names = WAYS.filter((name) => model.parameters[name]);
  return Object.fromEntries(names.map((name) => [name, String(valueOf(model, name))]));
}

export function sizeOf(model: Model): Size {
  return draft.size && isOffered(model, draft.size) ? draft.size : sizesOf(model)[0];
}

export function isOffered(model: Model, size: Size): boolean {
  if (model.sizes.length) return model.sizes.some((one) => isSame(one, size));
  const { width, height } = model.parameters;
  const { pixels, ratioMax } = model.capabilities;
  const area = size.width * size.height;
  const ratio = Math.max(size.width, size.height) / Math.min(size.width, size.height);
  if (pixels && (area < pixels.min || area > pixels.max)) return false;
  return ratio <= (ratioMax ?? ratio) && allows(width, size.width) && allows(height, size.height);
}

type Limits = { min: number; max: number; step?: number } | { choices: string[] } | undefined;

export function allows(limits: Limits, value: number | string): boolean {
  if (!limits) return false;
  if ("choices" in limits) return limits.choices.includes(value as string);
  return typeof value === "number" && value >= limits.min && value <= limits.max && isMultiple(value, limits.step);
}

const isMultiple = (value: number, step?: number) => !step || Number.isInteger(value / step);
