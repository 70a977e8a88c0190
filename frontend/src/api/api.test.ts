import { describe, expect, test, vi } from "vitest";
import { createClient, mayRepeat } from "./client";
import { ApiError, errorOf, readRetryAfter } from "./errors";
import { readClaims } from "./session";
import { backoff } from "./watch";

function memory() {
  const kept = new Map<string, string>();
  return {
    getItem: (key: string) => kept.get(key) ?? null,
    setItem: (key: string, value: string) => void kept.set(key, value),
    removeItem: (key: string) => void kept.delete(key),
  };
}

function token(iat: number, exp: number): string {
  return `e.${btoa(JSON.stringify({ iat, exp })).replace(/=/g, "")}.s`;
}

function answers(...all: [number, object, Record<string, string>?][]) {
  const asked: Request[] = [];
  vi.stubGlobal("fetch", async (url: string, init: RequestInit) => {
    asked.push(new Request(url, init));
    const [status, body, headers] = all[Math.min(asked.length, all.length) - 1];
    return new Response(JSON.stringify(body), { status, headers });
  });
  return asked;
}

const refused = (status: number, retryAfter: number | null) => new ApiError("x", "", status, {}, retryAfter);

describe("errors", () => {
  test.each([
    ["7", 7],
    [null, null],
    ["soon", null],
    ["Thu, 01 Jan 1970 00:00:09 GMT", 9],
  ])("Retry-After %s", (value, seconds) => expect(readRetryAfter(value, 0)).toBe(seconds));

  test("a page of a proxy is an error, too", () => {
    const error = errorOf(502, "<html>", new Headers());
    expect([error.code, error.status]).toEqual(["unreadable", 502]);
  });

  test("only what is done once is sent again, and not after hours", () => {
    const key = { "Idempotency-Key": "k" };
    expect(mayRepeat("get", {}, refused(503, 5))).toBe(true);
    expect(mayRepeat("post", {}, refused(503, 5))).toBe(false);
    expect(mayRepeat("post", key, refused(429, 5))).toBe(true);
    expect(mayRepeat("post", key, refused(429, 3600))).toBe(false);
    expect(mayRepeat("get", {}, refused(404, null))).toBe(false);
  });

  test("failures make the pauses longer, to half a minute", () => {
    expect([0, 1, 2, 9].map(backoff)).toEqual([1, 2, 4, 30]);
  });
});

test.each([
  ["https://a.example/api", "/api/uploads/a.png", "https://a.example/api/uploads/a.png"],
  ["https://a.example/studio/api", "/studio/api/uploads/a.png", "https://a.example/studio/api/uploads/a.png"],
  ["https://a.example/studio/api", "/api/uploads/a.png", "https://a.example/studio/api/uploads/a.png"],
  ["/api", "/api/s/x", "/api/s/x"],
])("below %s, %s is at %s", (base, path, whole) => {
  const client = createClient({ base, store: memory() });
  expect([client.asset(path), client.download(path)]).toEqual([whole, `${whole}?download=1`]);
});

describe("session", () => {
  test("claims of a token", () => {
    expect(readClaims(token(1, 2))).toEqual({ iat: 1, exp: 2 });
    expect(readClaims("no token")).toBeNull();
  });

  test("an aging token is renewed before the call, once", async () => {
    const now = Date.now() / 1000;
    const asked = answers([200, { data: { token: token(now, now + 100) } }], [200, { data: {} }]);
    const api = createClient({ base: "https://x/api", store: memory() });
    api.session.token = token(now - 90, now + 10);
    await Promise.all([api.call("get", "/api/auth/profile"), api.call("get", "/api/v1/images/quota")]);
    const paths = asked.map((request) => new URL(request.url).pathname);
    expect(paths.filter((path) => path === "/api/auth/refresh")).toHaveLength(1);
    expect(paths[0]).toBe("/api/auth/refresh");
  });

  test("a session that ended is forgotten and reported", async () => {
    answers([401, { code: "token_expired", message: "over" }]);
    const ended = vi.fn();
    const api = createClient({ base: "https://x/api", store: memory(), onSessionEnd: ended });
    api.session.token = token(0, 1e12);
    await expect(api.call("get", "/api/auth/profile")).rejects.toMatchObject({ code: "token_expired" });
    expect([api.session.token, ended.mock.calls.length]).toEqual([null, 1]);
  });

  test("a wrong password ends no session", async () => {
    answers([401, { code: "wrong_credentials", message: "no" }]);
    const ended = vi.fn();
    const api = createClient({ base: "https://x/api", store: memory(), onSessionEnd: ended });
    const body = { username: "a", password: "b" };
    await expect(api.call("post", "/api/auth/login", { body })).rejects.toBeInstanceOf(ApiError);
    expect(ended).not.toHaveBeenCalled();
  });
});

test("a call waits as long as the service asks, and says so", async () => {
  vi.useFakeTimers();
  const asked = answers([503, { code: "server_busy" }, { "Retry-After": "2" }], [200, { data: {} }]);
  const waiting = vi.fn();
  const api = createClient({ base: "https://x/api", store: memory(), onWaiting: waiting });
  const called = api.call("get", "/api/v1/models");
  await vi.advanceTimersByTimeAsync(1900);
  expect(asked).toHaveLength(1);
  await vi.advanceTimersByTimeAsync(200);
  await called;
  expect(asked).toHaveLength(2);
  expect(waiting.mock.calls.map(([call]) => call?.seconds ?? null)).toEqual([2, null]);
  vi.useRealTimers();
});

test("a call that gets no answer ends as if there were no network", async () => {
  vi.spyOn(AbortSignal, "timeout").mockReturnValue(AbortSignal.abort());
  vi.stubGlobal("fetch", (_: string, { signal }: RequestInit) => Promise.reject(signal!.reason));
  const api = createClient({ base: "https://a.example/api", store: memory() });

  await expect(api.call("get", "/api/health")).rejects.toMatchObject({ code: "offline" });
  vi.restoreAllMocks();
});
