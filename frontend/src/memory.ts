// What this browser keeps of somebody's choices and unfinished work.

const PREFIX = "atelier ";

export function remembered<T>(name: string, fallback: T): T {
  try {
    const text = localStorage.getItem(PREFIX + name);
    return text === null ? fallback : JSON.parse(text);
  } catch {
    return fallback;
  }
}

export function remember(name: string, value: unknown): void {
  try {
    localStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // Full, or forbidden: the page works without it.
  }
}

export function forget(name: string): void {
  localStorage.removeItem(PREFIX + name);
}
