import { expect, test } from "vitest";
import { addressOf, isFiltered, noFilters, OWN_DAYS, queryOf, readAddress } from "./filters";

const some = {
  ...noFilters(),
  q: "fox",
  status: "" as const,
  favorite: true,
  days: OWN_DAYS,
  since: "2026-01-30",
  tags: ["a", "大海"],
};

test("an address brings the filters back", () => {
  expect(readAddress(addressOf(some))).toEqual(some);
  expect(addressOf(noFilters())).toEqual({});
  expect(readAddress({ api: "https://x" })).toBeNull();
});

test("an address of somebody else's making does no harm", () => {
  const odd = { status: "x", days: ["1e9", "2"], tag: [null, "a"], q: "x".repeat(999), favorite: "yes" };
  const read = readAddress(odd)!;
  expect([read.status, read.days, read.tags, read.q.length, read.favorite]).toEqual([
    "completed", 0, ["a"], 200, false,
  ]);
});

test("days are those of the reader", () => {
  const now = new Date("2026-03-10T15:00:00");
  expect(queryOf({ ...noFilters(), days: 1 }, now).since).toBe(new Date("2026-03-10T00:00:00").toISOString());
  expect(queryOf({ ...noFilters(), days: 7 }, now).since).toBe(new Date("2026-03-03T15:00:00").toISOString());
  const { since, until } = queryOf({ ...some, until: "2026-01-30" }, now);
  expect([since, until]).toEqual(["2026-01-30T00:00:00", "2026-01-30T23:59:59"].map((day) => new Date(day).toISOString()));
  expect(queryOf({ ...some, since: "3", until: "" }, now).since).toBeUndefined();
});

test("the usual filters are none", () => {
  expect(isFiltered(noFilters())).toBe(false);
  expect(isFiltered({ ...noFilters(), tags: ["a"] })).toBe(true);
});
