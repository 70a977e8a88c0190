import { beforeEach, expect, test, vi } from "vitest";

vi.hoisted(() => {
  const kept = new Map<string, string>();
  vi.stubGlobal("localStorage", {
    getItem: (key: string) => kept.get(key) ?? null,
    setItem: (key: string, value: string) => void kept.set(key, value),
    removeItem: (key: string) => void kept.delete(key),
  });
});
const { addReference, bodyOf, draft, forgetWork, seedOf, takes } = await import("./draft");
type Model = Parameters<typeof bodyOf>[0];

const side = { min: 64, max: 2048, default: 512 };
function model(changes: object = {}, capabilities: object = {}): Model {
  const images = { min: 0, max: 4, mask: true, strength: { min: 0, max: 1, default: 0.6 }, formats: ["png"], maxBytes: 9 };
  const rules = { negativePrompt: true, seed: true, seedMax: 100, promptMax: 50, pixels: null, ratioMax: null, n: 4, images };
  return {
    name: "m",
    parameters: { width: side, height: side, ...changes },
    capabilities: { ...rules, ...capabilities },
    sizes: [],
  } as unknown as Model;
}
const choices = (...all: string[]) => ({ choices: all, default: all[0] });

beforeEach(forgetWork);

test("a size is said in one way", () => {
  const shaped = model({ aspect_ratio: choices("1:1", "16:9"), resolution: choices("1K") });
  draft.prompt = "a fox";
  expect(bodyOf(shaped)).toEqual({ prompt: "a fox", model: "m", n: 1, aspect_ratio: "1:1", resolution: "1K" });
  draft.size = { width: 640, height: 480 };
  expect(bodyOf(shaped)).toMatchObject({ width: 640, height: 480 });
  expect(bodyOf(shaped)).not.toHaveProperty("aspect_ratio");
});

test("a mask goes with the picture that it is for, while that is the first", () => {
  addReference({ upload: "a" });
  addReference({ image: 7 });
  addReference({ upload: "a" });
  draft.mask = { upload: "m", of: "upload a" };
  draft.strength = 0.5;
  expect(bodyOf(model())).toMatchObject({
    images: [{ upload: "a" }, { image: 7 }],
    mask: { upload: "m" },
    strength: 0.5,
  });
  draft.references.reverse();
  expect(bodyOf(model())).not.toHaveProperty("mask");
  expect(bodyOf(model())).not.toHaveProperty("prompt");
});

test("pictures are sent even to a model that refuses them", () => {
  addReference({ image: 7 });
  expect(bodyOf(model({}, { images: null }))).toHaveProperty("images", [{ image: 7 }]);
});

test("a seed that would be refused is not sent", () => {
  Object.assign(draft, { seed: 101, isSeedLocked: true });
  expect([seedOf(model()), seedOf(model({}, { seedMax: 2 ** 53 - 1 }))]).toEqual([null, 101]);
});

test("there is nothing to say of the compression of a PNG", () => {
  const offered = model({ output_format: choices("png", "webp"), output_compression: { min: 0, max: 100, default: 90 } });
  draft.values.output_compression = 50;
  expect(takes(offered, "output_compression")).toBe(false);
  draft.values.output_format = "webp";
  expect(bodyOf(offered)).toMatchObject({ output_format: "webp", output_compression: 50 });
});
