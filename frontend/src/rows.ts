// Pictures in rows of equal height, as wide as the page: whole rows never change when more come.

import type { Generation } from "./api";

export interface Row {
  top: number;
  height: number;
  items: { record: Generation; width: number }[];
}

export function layOut(records: Generation[], width: number, height: number, gap: number): Row[] {
  const rows: Row[] = [];
  let items: Generation[] = [];
  let ratios = 0;
  let top = 0;
  const close = (rowHeight: number) => {
    // Of broken pixels, as borders of neighbours would blur.
    const high = Math.round(rowHeight);
    rows.push({ top, height: high, items: items.map((record) => ({ record, width: shape(record) * rowHeight })) });
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
  if (items.length) close(height);
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
