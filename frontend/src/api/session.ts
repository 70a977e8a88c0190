// The token of whoever is logged in: kept per service, so that one service never gets another's.

/** How much of its life a token may have left before it is exchanged for a fresh one. */
const REFRESH_BELOW = 0.25;

export interface Store {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

export class Session {
  private readonly key: string;
  private readonly listeners = new Set<(token: string | null) => void>();

  constructor(base: string, private readonly store: Store) {
    this.key = `token ${base}`;
    // Another tab logged in or out.
    globalThis.addEventListener?.("storage", (event: StorageEvent) => {
      if (event.key === this.key || event.key === null) this.tell();
    });
  }

  get token(): string | null {
    return this.store.getItem(this.key);
  }

  set token(token: string | null) {
    if (token) this.store.setItem(this.key, token);
    else this.store.removeItem(this.key);
    this.tell();
  }

  /** Call `listener` at each log-in and log-out, those in other tabs included. */
  onChange(listener: (token: string | null) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  private tell(): void {
    const { token } = this;
    for (const listener of this.listeners) listener(token);
  }

  /** Whether the token works, but not for long. */
  isAging(now = Date.now()): boolean {
    const claims = this.token && readClaims(this.token);
    if (!claims) return false;
    const left = claims.exp - now / 1000;
    return left > 0 && left < (claims.exp - claims.iat) * REFRESH_BELOW;
  }
}

/** When a token was made and until when it is good; null if that cannot be told. */
export function readClaims(token: string): { iat: number; exp: number } | null {
  try {
    const part = token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
    const { iat, exp } = JSON.parse(atob(part));
    return Number.isFinite(iat) && Number.isFinite(exp) ? { iat, exp } : null;
  } catch {
    return null;
  }
}
