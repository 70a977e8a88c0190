import { expect, test } from "vitest";
import { formatAgo, formatBytes, formatSeconds } from "./i18n";

const NOW = Date.parse("2026-03-04T12:00:00Z");

test.each([
  ["2026-03-04T11:59:40Z", "this minute"],
  ["2026-03-04T11:15:00Z", "45 minutes ago"],
  ["2026-03-04T09:00:00Z", "3 hours ago"],
  ["2026-03-03T11:00:00Z", "yesterday"],
  ["2026-02-20T12:00:00Z", "12 days ago"],
  // The clock of the service may be ahead of the browser's.
  ["2026-03-04T12:00:30Z", "this minute"],
  [null, ""],
])("%s was %s", (time, text) => {
  expect(formatAgo(time, NOW)).toBe(text);
});

test("sizes and times have the unit that suits them", () => {
  expect([0, 1536, 5.25 * 1024 ** 2].map(formatBytes)).toEqual(["0 byte", "2 kB", "5.3 MB"]);
  expect([1, 60, 300, 7200].map(formatSeconds)).toEqual(["1 sec", "60 sec", "5 min", "2 hr"]);
});
