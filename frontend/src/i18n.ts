// Chinese and English: the browser's, or the one that was chosen. Texts are compiled when the page
// is built; only those of one language are loaded.

import { createI18n } from "vue-i18n";
import { remember, remembered } from "./memory";

export const LANGUAGES = { en: "English", zh: "中文" } as const;
export type Language = keyof typeof LANGUAGES;

const loaders = {
  en: () => import("./locales/en.json"),
  zh: () => import("./locales/zh.json"),
};

export const i18n = createI18n({ legacy: false, locale: "en", messages: {}, missingWarn: false });

export function language(): Language {
  return i18n.global.locale.value as Language;
}

export function preferredLanguage(): Language {
  const chosen = remembered<Language | null>("language", null);
  if (chosen && chosen in LANGUAGES) return chosen;
  return navigator.languages.some((one) => one.startsWith("zh")) && !navigator.language.startsWith("en")
    ? "zh"
    : "en";
}

export async function setLanguage(wanted: Language): Promise<void> {
  const { default: messages } = await loaders[wanted]();
  i18n.global.setLocaleMessage(wanted, messages);
  i18n.global.locale.value = wanted;
  document.documentElement.lang = wanted === "zh" ? "zh-CN" : "en";
}

export function chooseLanguage(wanted: Language): Promise<void> {
  remember("language", wanted);
  return setLanguage(wanted);
}

// -- Numbers and times, as the language writes them ---------------------------------------------

/** "" for a time that is not known. */
export function formatTime(time: string | null): string {
  if (!time) return "";
  const style = { dateStyle: "medium", timeStyle: "short" } as const;
  return new Intl.DateTimeFormat(language(), style).format(new Date(time));
}

/** The day alone. */
export function formatDate(time: string | null): string {
  if (!time) return "";
  return new Intl.DateTimeFormat(language(), { dateStyle: "medium" }).format(new Date(time));
}

/** How long ago that was, such as "3 hours ago". */
export function formatAgo(time: string | null, now = Date.now()): string {
  if (!time) return "";
  const seconds = Math.max(0, (now - Date.parse(time)) / 1000);
  const steps = [["minute", 60], ["hour", 3600], ["day", 86400]] as const;
  const [unit, size] = steps[seconds < 3600 ? 0 : seconds < 86400 ? 1 : 2];
  const style = { numeric: "auto" } as const;
  return new Intl.RelativeTimeFormat(language(), style).format(-Math.floor(seconds / size), unit);
}

export function formatNumber(number: number): string {
  return new Intl.NumberFormat(language()).format(number);
}

export function formatBytes(bytes: number): string {
  const units = ["byte", "kilobyte", "megabyte", "gigabyte"] as const;
  const step = Math.min(3, bytes < 1 ? 0 : Math.floor(Math.log(bytes) / Math.log(1024)));
  const style = { style: "unit", unit: units[step], maximumFractionDigits: step > 1 ? 1 : 0 } as const;
  return new Intl.NumberFormat(language(), style).format(bytes / 1024 ** step);
}

/** A time that is left, such as "2 min". */
export function formatSeconds(seconds: number): string {
  const [unit, size] = seconds < 90 ? ["second", 1] : seconds < 5400 ? ["minute", 60] : ["hour", 3600];
  const style = { style: "unit", unit: unit as string, unitDisplay: "short" } as const;
  return new Intl.NumberFormat(language(), style).format(Math.ceil(seconds / (size as number)));
}
