// The one client of this page, and what the whole page knows: who is logged in, whether the service
// can be reached, what it waits for.

import { reactive, shallowRef } from "vue";
import { type Answer, ApiError, createClient, newKey, type Waiting } from "./api";
import { language } from "./i18n";
import { forget, remember, remembered } from "./memory";

export type Profile = Answer<"/api/auth/profile", "get">["data"];
export type Model = Answer<"/api/v1/models", "get">["data"]["models"][number];
export type Quota = Answer<"/api/v1/images/quota", "get">["data"];

// What the service tells its own page; all is missing where the files lie on another server.
const { mode, passwordMax, registration, mail, openid } = document.documentElement.dataset;
export const hints = {
  isDevelopment: mode === "development",
  passwordMax: Number(passwordMax ?? 20),
  registration: registration ?? "open",
  hasMail: mail !== undefined && mail !== "false",
  mayHaveOpenId: openid !== "false",
};

const OWN = new URL("api", document.baseURI).href;

/** The other service that the address names, or "" for the one that served this page. */
export const otherApi = mode === "production" ? "" : readOther();

function readOther(): string {
  const wanted = new URLSearchParams(location.search).get("api");
  if (wanted === "") forget("api");
  const text = wanted ?? remembered<string>("api", "");
  return /^https?:\/\/[^/?#\s@]+(\/[^?#\s]*)?$/.test(text) && text !== OWN ? text.replace(/\/+$/, "") : "";
}

/** Whether somebody still has to agree to use that service: a link alone must not choose it. */
export const mustAgree = otherApi !== "" && remembered<string>("api", "") !== otherApi;

/** Use the other service from now on. The page's policy lets it in only if the address names it. */
export function useOther(): void {
  remember("api", otherApi);
}

/** Load the page with `?api=` if it is remembered, but not in the address. True if it is loading. */
export function reloadedForOther(): boolean {
  if (!otherApi || new URLSearchParams(location.search).has("api")) return false;
  const address = new URL(location.href);
  address.searchParams.set("api", otherApi);
  location.replace(address);
  return true;
}

export const status = reactive({
  /** Calls that wait for `Retry-After`. */
  waiting: null as Waiting | null,
  isOffline: false,
  /** The session ended while somebody was at work: the log-in is shown over the page. */
  hasEnded: false,
});

export const models = shallowRef<Model[]>([]);

export async function loadModels(): Promise<void> {
  models.value = (await api.call("get", "/api/v1/models")).data.models;
}

export const user = shallowRef<Profile | null>(null);

export const api = createClient({
  base: otherApi || OWN,
  language,
  onSessionEnd: () => (status.hasEnded = true),
  onWaiting: (waiting) => (status.waiting = waiting),
});

export const isLoggedIn = shallowRef(Boolean(api.session.token));
api.session.onChange((token) => {
  isLoggedIn.value = Boolean(token);
});

export async function loadUser(): Promise<Profile> {
  const { data } = await api.call("get", "/api/auth/profile");
  return (user.value = data);
}

export async function logIn(username: string, password: string, code?: string): Promise<void> {
  const { data } = await api.call("post", "/api/auth/login", {
    body: code ? { username, password, code } : { username, password },
  });
  await enter(data.token);
}

/** Go on with the token of a log-in. */
export async function enter(token: string): Promise<void> {
  api.session.token = token;
  status.hasEnded = false;
  const before = user.value?.username;
  await loadUser();
  // Somebody else's pictures must not stay on the screen.
  if (before && before !== user.value?.username) location.assign(document.baseURI);
}

export function leave(): void {
  api.session.token = null;
  user.value = null;
}

/** A new account for somebody who only wants to look; its password stays in this browser. */
export async function tryWithoutRegistering(): Promise<void> {
  const letters = newKey();
  const account = { username: `guest-${letters.slice(0, 8)}`, password: letters.slice(8, 24) };
  const form = new FormData();
  form.append("username", account.username);
  form.append("password", account.password);
  form.append("email", `${account.username}@example.com`);
  await api.upload("post", "/api/auth/register", form);
  remember("guest", account);
  await logIn(account.username, account.password);
}

/** The password of a guest, who has never seen it. */
export function guestPassword(): string {
  const guest = remembered<{ username: string; password: string } | null>("guest", null);
  return guest && guest.username === user.value?.username ? guest.password : "";
}

export function asError(error: unknown): ApiError {
  return error instanceof ApiError ? error : new ApiError("unreadable", String(error));
}
