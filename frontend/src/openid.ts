// Log-in at an OpenID provider: the browser goes there and comes back to /login with a `loginCode`,
// which only the tab that keeps the verifier can exchange for a token (PKCE, RFC 7636).

import { api } from "./service";

const KEY = "openid";

interface Begun {
  verifier: string;
  /** Where somebody was, and is led back to. */
  next: string;
}

/** Browsers have what this needs with HTTPS, or on this machine. */
export const isPossible = Boolean(globalThis.crypto?.subtle);

function base64url(bytes: Uint8Array): string {
  const text = btoa(String.fromCharCode(...bytes));
  return text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** What the button says, or "" where the service has no provider. */
export async function providerLabel(): Promise<string> {
  try {
    return (await api.call("get", "/api/auth/oidc")).data.label;
  } catch {
    return "";
  }
}

export async function goToProvider(next: string): Promise<void> {
  const verifier = base64url(crypto.getRandomValues(new Uint8Array(32)));
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier));
  sessionStorage.setItem(KEY, JSON.stringify({ verifier, next } satisfies Begun));
  location.assign(`${api.base}/auth/oidc/login?challenge=${base64url(new Uint8Array(digest))}`);
}

/** What this tab began, once: it is forgotten here. */
export function takeBegun(): Begun {
  const text = sessionStorage.getItem(KEY);
  sessionStorage.removeItem(KEY);
  return text ? JSON.parse(text) : { verifier: "", next: "" };
}
