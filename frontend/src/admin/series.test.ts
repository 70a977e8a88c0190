import { expect, test } from "vitest";
import { averageSeconds, axisEnd, barsOf, byModel, MOST_SERIES, tallest, withOthers, type Stats } from "./series";

const numbers = (completed: number[], average: (number | null)[]) => ({
  completed,
  failed: completed.map(() => 0),
  canceled: completed.map(() => 0),
  waitingSeconds: { average, max: average },
  runningSeconds: { average, max: average },
});
const stats = {
  models: {
    small: numbers([1, 0], [8, null]),
    large: numbers([2, 1], [2, 2]),
    idle: numbers([0, 0], [null, null]),
  },
} as unknown as Stats;

test.each([
  [0, 10, 1],
  [1, 10, 1],
  [3, 10, 5],
  [12, 10, 20],
  [51, 10, 100],
  [0.3, 10, 0.5],
  [1000, 1024, 1000],
  [3 * 1024 ** 2, 1024, 5 * 1024 ** 2],
])("an axis for %d, in steps of %d, ends with %d", (most, step, end) => {
  expect(axisEnd(most, step)).toBeCloseTo(end);
});

test("the busiest model comes first, and one that did nothing not at all", () => {
  const series = byModel(stats, ({ completed }) => completed);

  expect(series).toEqual([
    { name: "large", values: [2, 1] },
    { name: "small", values: [1, 0] },
  ]);
  expect([tallest(series, true), tallest(series, false)]).toEqual([3, 2]);
});

test("what has no colour of its own is added up", () => {
  const many = Array.from({ length: MOST_SERIES + 2 }, (_, n) => ({ name: `m${n}`, values: [1, n] }));

  const few = withOthers(many, "others");

  expect(few.length).toBe(MOST_SERIES);
  expect(few.at(-1)).toEqual({ name: "others", values: [3, 4 + 5 + 6] });
});

test("the average counts each image once", () => {
  expect(averageSeconds(stats)).toBe((1 * 8 + 2 * 2 + 1 * 2) / 4);
  expect(averageSeconds({ models: {} } as unknown as Stats)).toBe(null);
});

test("bars stand on each other, or side by side", () => {
  const series = byModel(stats, ({ completed }) => completed);

  const stacked = barsOf(series, 5, true);
  const beside = barsOf(series, 5, false);

  expect(stacked.map(({ y, height, of }) => [y, height, of])).toEqual([[3, 2, 0], [2, 1, 1], [4, 1, 0]]);
  expect(beside.map(({ x }) => Math.round(x * 100))).toEqual([15, 50, 115]);
});
