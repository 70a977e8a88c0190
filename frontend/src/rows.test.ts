import { expect, test } from "vitest";
import type { Generation } from "./api";
import { layOut, stepFrom, visible } from "./rows";

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

test("what does not fill a row waits while there is more", () => {
  const count = (hasMore: boolean, ...ratios: number[]) => layOut(pictures(...ratios), 800, 200, 8, hasMore).length;
  expect([count(true, 2, 2, 1), count(false, 2, 2, 1), count(true, 1)]).toEqual([1, 2, 1]);
});

test("only what is near is shown", () => {
  const rows = layOut(pictures(...Array<number>(3000).fill(1)), 800, 200, 8);
  expect(visible(rows, 10_000, 11_000).length).toBeLessThan(9);
});

test("keys lead to the nearest picture", () => {
  // Rows of 0 1 2 and 3 4, and a last one.
  const rows = layOut(pictures(1, 1, 1, 2, 1, 1), 620, 210, 10);
  expect(rows.map((row) => row.items.map((item) => item.record.id))).toEqual([[0, 1, 2], [3, 4], [5]]);
  const led = (id: number, ...steps: Parameters<typeof stepFrom>[2][]) =>
    steps.map((step) => stepFrom(rows, id, step)?.id ?? null);
  expect(led(2, "left", "right", "down", "up", "first", "last")).toEqual([1, 3, 4, null, 0, 5]);
  expect(led(3, "left", "up", "down")).toEqual([2, 0, 5]);
  expect(led(0, "left")).toEqual([null]);
  expect(led(99, "right")).toEqual([0]);
});
