// The picture that somebody is about to ask for: kept by the browser at each key, so that neither a
// reload nor the end of a session loses it.

import { reactive, watch } from "vue";
import type { Generation } from "./api";
import { remember, remembered } from "./memory";
import type { Model } from "./service";

export type Name = "steps" | "guidance" | "quality" | "style" | "sampler";
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
};

export const draft = reactive({ ...EMPTY, ...remembered("draft", {}) });
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
  for (const name of ["steps", "guidance", "quality", "style", "sampler"] as const) {
    const value = params[name];
    if (typeof value === "number" || typeof value === "string") values[name] = value;
  }
  Object.assign(draft, {
    prompt: record.prompt,
    negative: typeof params.negative_prompt === "string" ? params.negative_prompt : "",
    model: record.model ?? "",
    size: record.width && record.height ? { width: record.width, height: record.height } : null,
    seed: params.seed,
    isSeedLocked: params.seed !== null,
    values,
  });
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
  return [first, ...sizes.filter((size) => !isSame(size, first))];
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
  for (const [name, value] of Object.entries(draft.values)) {
    if (allows(parameters[name as Name], value)) values[name] = value;
  }
  const size = draft.size && isOffered(model, draft.size) ? draft.size : sizesOf(model)[0];
  const isSeeded = capabilities.seed && draft.isSeedLocked && draft.seed !== null;
  return {
    prompt: draft.prompt,
    model: model.name,
    ...size,
    ...values,
    n: Math.min(draft.n, capabilities.n),
    ...(capabilities.negativePrompt && draft.negative.trim() ? { negative_prompt: draft.negative } : {}),
    ...(isSeeded ? { seed: draft.seed as number } : {}),
  };
}

export function isOffered(model: Model, size: Size): boolean {
  if (model.sizes.length) return model.sizes.some((one) => isSame(one, size));
  const { width, height } = model.parameters;
  return allows(width, size.width) && allows(height, size.height);
}

type Limits = { min: number; max: number; step?: number } | { choices: string[] } | undefined;

export function allows(limits: Limits, value: number | string): boolean {
  if (!limits) return false;
  if ("choices" in limits) return limits.choices.includes(value as string);
  return typeof value === "number" && value >= limits.min && value <= limits.max && isMultiple(value, limits.step);
}

const isMultiple = (value: number, step?: number) => !step || Number.isInteger(value / step);
