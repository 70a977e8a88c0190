import { shallowRef } from "vue";
import { beforeEach, expect, test, vi } from "vitest";

vi.mock("./gallery", () => ({ updateTags: () => {} }));
vi.mock("./pictures", () => ({ inParts: () => {} }));
vi.mock("./service", () => ({ api: {}, user: shallowRef(null) }));
const { complete, tags } = await import("./tags");

beforeEach(() => {
  tags.value = ["Seaside", "fox", "red fox", "大海"].map((tag) => ({ tag, count: 1 }));
});

test("those that begin so come first, whatever their case", () => {
  expect(complete("FO", [])).toEqual(["fox", "red fox"]);
  expect(complete("se", [])).toEqual(["Seaside"]);
  expect(complete("海", [])).toEqual(["大海"]);
});

test("what is there already is not offered", () => {
  expect(complete("", ["SEASIDE", "大海"])).toEqual(["fox", "red fox"]);
  expect(complete("", [], 2)).toHaveLength(2);
});
