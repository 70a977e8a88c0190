// Pictures in rows of equal height, as wide as the page: what is shown never moves when more come.

import type { Generation } from "./api";

export interface Row {
  top: number;
  height: number;
  items: { record: Generation; left: number; width: number }[];
}

/** With `hasMore`, what does not fill a row waits for the pictures that will. */
export function layOut(records: Generation[], width: number, height: number, gap: number, hasMore = false): Row[] {
  const rows: Row[] = [];
  let items: Generation[] = [];
  let ratios = 0;
  let top = 0;
  const close = (rowHeight: number) => {
    // No broken pixels, by which the borders of neighbours would blur.
    const high = Math.round(rowHeight);
    let left = 0;
    const placed = items.map((record) => {
      const item = { record, left, width: shape(record) * rowHeight };
      left += item.width + gap;
      return item;
    });
    rows.push({ top, height: high, items: placed });
    top += high + gap;
    items = [];
    ratios = 0;
  };
  for (const record of records) {
    items.push(record);
    ratios += shape(record);
    const fitting = (width - gap * (items.length - 1)) / ratios;
    if (fitting <= height) close(fitting);
  }
  // The last row is not stretched.
  if (items.length && !(hasMore && rows.length)) close(height);
  return rows;
}

/** Width by height; pictures of older programs may not say. */
export function ratio(record: Generation): number {
  return record.width && record.height ? record.width / record.height : 1;
}

/** A very long picture must not make its row invisible. */
function shape(record: Generation): number {
  return Math.min(2.4, Math.max(0.5, ratio(record)));
}

/** The rows that can be seen, and some before and after. */
export function visible(rows: Row[], from: number, to: number): Row[] {
  return rows.filter((row) => row.top + row.height >= from && row.top <= to);
}

export type Step = "left" | "right" | "up" | "down" | "first" | "last";

/** Where a step leads to from one picture: up and down, to the nearest of the row before or after. */
export function stepFrom(rows: Row[], id: number, step: Step): Generation | null {
  const at = rows.findIndex((row) => row.items.some((item) => item.record.id === id));
  if (step === "first" || at < 0) return rows[0]?.items[0].record ?? null;
  if (step === "last") return rows.at(-1)!.items.at(-1)!.record;
  const row = rows[at];
  const index = row.items.findIndex((item) => item.record.id === id);
  if (step === "left") return (row.items[index - 1] ?? rows[at - 1]?.items.at(-1))?.record ?? null;
  if (step === "right") return (row.items[index + 1] ?? rows[at + 1]?.items[0])?.record ?? null;
  const other = rows[at + (step === "up" ? -1 : 1)];
  const middle = (item: Row["items"][number]) => item.left + item.width / 2;
  const distance = (item: Row["items"][number]) => Math.abs(middle(item) - middle(row.items[index]));
  return other?.items.toSorted((a, b) => distance(a) - distance(b))[0].record ?? null;
}
