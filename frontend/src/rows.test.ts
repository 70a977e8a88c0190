import { expect, test } from "vitest";
import type { Generation } from "./api";
import { layOut, visible } from "./rows";

const pictures = (...ratios: number[]) =>
  ratios.map((ratio, id) => ({ id, width: ratio * 100, height: 100 }) as Generation);

test("each whole row is as wide as the page", () => {
  const rows = layOut(pictures(1, 1.5, 0.7, 2, 1, 1, 0.5, 1), 800, 200, 8);
  for (const { items } of rows.slice(0, -1)) {
    const width = items.reduce((sum, item) => sum + item.width, 8 * (items.length - 1));
    expect(width).toBeCloseTo(800);
  }
});

test("whole rows stay when more pictures come", () => {
  const some = layOut(pictures(1, 1, 1, 1, 1, 1), 800, 200, 8);
  const more = layOut(pictures(1, 1, 1, 1, 1, 1, 2, 2), 800, 200, 8);
  expect(more[0].items.map((item) => item.record.id)).toEqual(some[0].items.map((item) => item.record.id));
  expect(more[0].height).toBe(some[0].height);
});

test("only what is near is shown", () => {
  const rows = layOut(pictures(...Array<number>(3000).fill(1)), 800, 200, 8);
  expect(visible(rows, 10_000, 11_000).length).toBeLessThan(9);
});
