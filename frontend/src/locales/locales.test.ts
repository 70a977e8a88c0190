import { expect, test } from "vitest";
import enText from "./en.json?raw";
import zhText from "./zh.json?raw";

// As they are written: imported as JSON, they would be compiled.
const [en, zh] = [enText, zhText].map((text) => JSON.parse(text));

function keys(node: unknown, path = ""): string[] {
  if (typeof node !== "object" || node === null || Array.isArray(node)) return [path];
  return Object.entries(node).flatMap(([name, inner]) => keys(inner, `${path}.${name}`));
}

function holes(node: unknown): string[] {
  return [...new Set([...JSON.stringify(node).matchAll(/\{\w+\}/g)].map(String))].sort();
}

test("both languages say the same things", () => {
  expect(keys(zh)).toEqual(keys(en));
  expect(holes(zh)).toEqual(holes(en));
});
