// The checks of the service, as far as a page can make them: accounts/schemas.py, accounts/names.py.

import { hints } from "./service";

type Translate = (key: string, values?: Record<string, unknown>) => string;

const ATOM = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+";
const LABEL = "([A-Za-z0-9]{1,63}|([A-Za-z0-9]{1,20}-){1,2}[A-Za-z0-9]{1,20})";
const EMAIL = new RegExp(`^${ATOM}(\\.${ATOM})*@(${LABEL}\\.)+[A-Za-z]{2,63}$`);
export const AVATAR_TYPES = ["png", "jpg", "jpeg", "gif", "webp"];
export const AVATAR_BYTES = 5 * 1024 * 1024;

/** In characters, as the service counts: an emoji is one. */
export const lengthOf = (text: string) => [...text].length;

export function checkUsername(text: string, t: Translate): string {
  const length = lengthOf(text.normalize("NFKC").trim());
  if (length < 3 || length > 20) return t("checks.username", { min: 3, max: 20 });
  return /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u.test(text.trim()) ? t("checks.unprintable") : "";
}

export function checkEmail(text: string, t: Translate): string {
  const email = text.trim();
  if (!email || lengthOf(email) > 120) return t("checks.email");
  // Addresses in other scripts are for the service to judge.
  const isPlain = /^[\x21-\x7e]*$/.test(email) && !email.includes("xn--");
  return (isPlain ? EMAIL.test(email) : /^[^\s@]+@[^\s@]+\.[^\s@]+$/.test(email)) ? "" : t("checks.email");
}

export function checkPassword(text: string, t: Translate): string {
  const length = lengthOf(text);
  const limits = { min: 6, max: hints.passwordMax };
  return length < limits.min || length > limits.max ? t("checks.password", limits) : "";
}

export function checkAvatar(file: File | null, t: Translate): string {
  if (!file || !file.size) return "";
  const type = file.name.split(".").pop()?.toLowerCase() ?? "";
  if (!AVATAR_TYPES.includes(type)) return t("checks.avatarType");
  return file.size > AVATAR_BYTES ? t("checks.avatarSize") : "";
}

/** Leave out the fields about which there is nothing to say. */
export function onlyWrong(all: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(all).filter(([, text]) => text));
}
