// What the gallery is narrowed down by: as the service is asked, and as it stands in the address of
// the page, so that a reload, a bookmark and the way back keep it.

import type { LocationQuery } from "vue-router";

const STATUSES = ["completed", "failed", "canceled", ""] as const;
/** "": whatever became of it. */
export type Status = (typeof STATUSES)[number];
/** The days back to choose from: any time, today, a week, a month; OWN_DAYS: between two dates. */
export const DAYS = [0, 1, 7, 30] as const;
export const OWN_DAYS = -1;
const MOST_TAGS = 10;

export interface Filters {
  q: string;
  status: Status;
  favorite: boolean;
  model: string;
  days: number;
  /** Dates such as 2026-01-30, where the reader is; only with OWN_DAYS. */
  since: string;
  until: string;
  tags: string[];
}

export const noFilters = (): Filters => ({
  q: "",
  status: "completed",
  favorite: false,
  model: "",
  days: 0,
  since: "",
  until: "",
  tags: [],
});

export const isFiltered = (filters: Filters) => JSON.stringify(filters) !== JSON.stringify(noFilters());

/** What the service is asked for. */
export function queryOf(filters: Filters, now = new Date()) {
  const { since, until } = timesOf(filters, now);
  return {
    q: filters.q.trim().slice(0, 200) || undefined,
    status: filters.status || undefined,
    favorite: filters.favorite || undefined,
    model: filters.model || undefined,
    tag: filters.tags.length ? filters.tags.slice(0, MOST_TAGS) : undefined,
    since,
    until,
  };
}

function timesOf({ days, since, until }: Filters, now: Date): { since?: string; until?: string } {
  if (days === OWN_DAYS) {
    return { since: atDay(since, "00:00:00"), until: atDay(until, "23:59:59") };
  }
  if (!days) return {};
  const first = new Date(now.getTime() - days * 86_400_000);
  if (days === 1) first.setTime(new Date(now).setHours(0, 0, 0, 0));
  return { since: first.toISOString() };
}

/** A time of a day where the reader is. */
function atDay(date: string, time: string): string | undefined {
  const moment = new Date(`${date}T${time}`);
  return Number.isNaN(moment.getTime()) ? undefined : moment.toISOString();
}

/** What stands in the address: only what differs from the usual. */
export function addressOf(filters: Filters): LocationQuery {
  const { q, status, favorite, model, days, since, until, tags } = filters;
  const all = {
    q: q.trim(),
    status: status === "completed" ? "" : status || "all",
    favorite: favorite ? "1" : "",
    model,
    days: days ? String(days) : "",
    since: days === OWN_DAYS ? since : "",
    until: days === OWN_DAYS ? until : "",
    tag: tags,
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value.length));
}

/** The filters of an address; null if it has none, or none that are. */
export function readAddress(query: LocationQuery): Filters | null {
  const text = (name: string) => String([query[name] ?? ""].flat()[0] ?? "");
  const days = Number(text("days"));
  const status = text("status") === "all" ? "" : (text("status") as Status);
  const filters: Filters = {
    q: text("q").slice(0, 200),
    status: text("status") && STATUSES.includes(status) ? status : "completed",
    favorite: text("favorite") === "1",
    model: text("model"),
    days: [...DAYS, OWN_DAYS].some((one) => one === days) ? days : 0,
    since: days === OWN_DAYS ? text("since") : "",
    until: days === OWN_DAYS ? text("until") : "",
    tags: [query.tag ?? []].flat().filter((tag) => tag !== null).slice(0, MOST_TAGS),
  };
  return isFiltered(filters) ? filters : null;
}
