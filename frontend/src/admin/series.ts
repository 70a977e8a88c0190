// From the numbers of the API to what a chart shows.

import type { Answer } from "../api";

export type Stats = Answer<"/api/v1/admin/stats", "get">["data"];
export type Numbers = Stats["models"][string];

export interface Series {
  name: string;
  values: (number | null)[];
}

/** So many colours there are; the models with the smallest numbers share the last. */
export const MOST_SERIES = 5;

const sum = (values: (number | null)[]) => values.reduce<number>((total, value) => total + (value ?? 0), 0);

const jobs = ({ completed, failed, canceled }: Numbers) => sum([...completed, ...failed, ...canceled]);

/** One series for each model, the busiest first: so each has the same colour in all charts. */
export function byModel(stats: Stats, pick: (numbers: Numbers) => (number | null)[]): Series[] {
  return Object.entries(stats.models)
    .filter(([, numbers]) => jobs(numbers) > 0)
    .sort(([, one], [, other]) => jobs(other) - jobs(one))
    .map(([name, numbers]) => ({ name, values: pick(numbers) }));
}

/** The same, with those for which there is no colour added up. */
export function withOthers(series: Series[], name: string): Series[] {
  if (series.length <= MOST_SERIES) return series;
  const few = series.slice(0, MOST_SERIES - 1);
  const rest = series.slice(MOST_SERIES - 1);
  const values = rest[0].values.map((_, day) => sum(rest.map((one) => one.values[day])));
  return [...few, { name, values }];
}

/** The average over models and days, each by the images that it stands for. */
export function averageSeconds(stats: Stats): number | null {
  let seconds = 0;
  let images = 0;
  for (const { completed, waitingSeconds } of Object.values(stats.models)) {
    completed.forEach((number, day) => {
      seconds += number * (waitingSeconds.average[day] ?? 0);
      images += number;
    });
  }
  return images ? seconds / images : null;
}

export const total = (series: Series[]) => sum(series.map(({ values }) => sum(values)));

/** What an axis ends with: 1, 2 or 5 times a power of ten, in units of `step`, such as 1024 bytes. */
export function axisEnd(most: number, step = 10): number {
  if (most <= 0) return 1;
  const unit = step === 10 ? 1 : step ** Math.floor(Math.log(most) / Math.log(step));
  const power = 10 ** Math.floor(Math.log10(most / unit));
  const factor = [1, 2, 5, 10].find((one) => one * power * unit >= most * 0.999999) ?? 10;
  return factor * power * unit;
}

/** The largest bar: of one value, or of those that stand on each other. */
export function tallest(series: Series[], isStacked: boolean): number {
  const days = series[0]?.values.length ?? 0;
  let most = 0;
  for (let day = 0; day < days; day += 1) {
    const values = series.map((one) => one.values[day] ?? 0);
    most = Math.max(most, isStacked ? sum(values) : Math.max(...values));
  }
  return most;
}

export interface Bar {
  x: number;
  y: number;
  width: number;
  height: number;
  /** Which series it is of. */
  of: number;
}

/** The bars of a chart that is as wide as there are days, and as high as `end`. */
export function barsOf(series: Series[], end: number, isStacked: boolean): Bar[] {
  const width = 0.7 / (isStacked ? 1 : Math.max(1, series.length));
  const bars: Bar[] = [];
  const days = series[0]?.values.length ?? 0;
  for (let day = 0; day < days; day += 1) {
    let below = 0;
    series.forEach(({ values }, of) => {
      const height = values[day] ?? 0;
      const x = day + 0.15 + (isStacked ? 0 : of * width);
      if (height) bars.push({ x, y: end - below - height, width, height, of });
      if (isStacked) below += height;
    });
  }
  return bars;
}
