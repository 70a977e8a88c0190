// A client of the API in one function: `const api = createClient({ base: "https://host/api" })`.
//
//   const { data } = await api.call("post", "/api/auth/login", { body: { username, password } });
//   api.session.token = data.token;
//   const page = await api.call("get", "/api/v1/images/history", { query: { per_page: 50 } });
//
// Paths, queries, bodies and answers are typed by `schema.d.ts`, which is made from the document of
// the API. The client sends the token and renews it, waits where the service asks it to, and turns
// every failure into an ApiError.

import { ApiError, errorOf } from "./errors";
import { Session, type Store } from "./session";
import type { paths } from "./schema";

type Method = "get" | "post" | "patch" | "delete";
export type Path<M extends Method> = {
  [P in keyof paths]: paths[P][M] extends { responses: unknown } ? P : never;
}[keyof paths];
type Operation<P extends keyof paths, M extends Method> = paths[P][M];
type Json<R> = R extends { content: { "application/json": infer Body } } ? Body : never;
/** The body of the answer if all is well. */
export type Answer<P extends keyof paths, M extends Method> =
  Operation<P, M> extends { responses: infer R }
    ? Json<{ [S in keyof R]: S extends 200 | 201 | 202 ? R[S] : never }[keyof R]>
    : never;
type Body<P extends keyof paths, M extends Method> =
  Operation<P, M> extends { requestBody?: infer B }
    ? NonNullable<B> extends { content: { "application/json": infer J } } ? J : undefined
    : undefined;
type Query<P extends keyof paths, M extends Method> =
  Operation<P, M> extends { parameters: { query?: infer Q } } ? Q : never;

export interface Options<P extends keyof paths, M extends Method> {
  /** What stands in braces in the path, such as `generation_id`. */
  path?: Record<string, string | number>;
  query?: Query<P, M>;
  body?: Body<P, M>;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

export interface Result<B> {
  /** The `data` of the answer. */
  data: B extends { data?: infer D } ? NonNullable<D> : undefined;
  message: string | undefined;
  /** 304: nothing has changed since the ETag that was sent; there is no `data` then. */
  status: number;
  headers: Headers;
}

/** The client waits: until the service may be asked again, and why. */
export interface Waiting {
  seconds: number;
  error: ApiError;
}

export interface ClientOptions {
  /** Where the API is, "/api" included. */
  base: string;
  /** The language of messages, such as "en". */
  language?: () => string;
  /** Called when the session has ended elsewhere, or by its age. */
  onSessionEnd?: (error: ApiError) => void;
  /** Called when a call waits for `Retry-After`, and with null when it goes on. */
  onWaiting?: (waiting: Waiting | null) => void;
  store?: Store;
}

/** A call waits by itself if it need not wait longer than this, and no oftener. */
const LONGEST_WAIT = 30;
const MOST_WAITS = 3;
/** Who left one network for another would wait for ever for an answer that went to the first. */
const NO_ANSWER = 60;

export type Client = ReturnType<typeof createClient>;

export function createClient(options: ClientOptions) {
  const base = options.base.replace(/\/+$/, "");
  // Paths in the document begin with "/api" and lie below the address of the service.
  const service = base.replace(/\/api$/, "");
  const [, host = "", folder = ""] = /^(\w+:\/\/[^/]+)?(.*)$/.exec(service) ?? [];
  const session = new Session(base, options.store ?? localStorage);
  let refreshing: Promise<void> | null = null;

  async function call<M extends Method, P extends Path<M>>(
    method: M,
    path: P,
    wanted: Options<P, M> = {},
  ): Promise<Result<Answer<P, M>>> {
    if (session.isAging()) await (refreshing ??= refresh());
    for (let waits = 0; ; waits += 1) {
      try {
        return await once(method, path, wanted);
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        noteEnd(error);
        if (waits >= MOST_WAITS || !mayRepeat(method, wanted.headers, error)) throw error;
        const seconds = Math.max(1, error.retryAfter ?? 1);
        options.onWaiting?.({ seconds, error });
        try {
          await sleep(seconds * 1000, wanted.signal);
        } finally {
          options.onWaiting?.(null);
        }
      }
    }
  }

  /** Fetch what is a file, such as an export; it is not JSON. */
  async function file<P extends Path<"get">>(path: P, wanted: Options<P, "get"> = {}): Promise<Blob> {
    if (session.isAging()) await (refreshing ??= refresh());
    const request = { headers: commonHeaders(), signal: wanted.signal };
    let response: Response;
    try {
      response = await fetch(address(path, wanted.path, wanted.query), request);
    } catch (error) {
      if (wanted.signal?.aborted) throw error;
      throw new ApiError("offline", "No answer came");
    }
    if (response.ok) return response.blob();
    const error = errorOf(response.status, await response.text(), response.headers);
    noteEnd(error);
    throw error;
  }

  async function once<M extends Method, P extends Path<M>>(
    method: M,
    path: P,
    wanted: Options<P, M>,
  ): Promise<Result<Answer<P, M>>> {
    const { body, signal } = wanted;
    const headers: Record<string, string> = { ...commonHeaders(), ...wanted.headers };
    // A form brings its own Content-Type, with the boundary that only the browser knows.
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const target = address(path, wanted.path, wanted.query);
    let response: Response;
    let text: string;
    try {
      response = await fetch(target, {
        method: method.toUpperCase(),
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
        signal: AbortSignal.any([AbortSignal.timeout(NO_ANSWER * 1000), ...(signal ? [signal] : [])]),
        // Records come with an ETag of their own, which the watcher keeps.
        cache: "no-store",
      });
      text = await response.text();
    } catch (error) {
      if (signal?.aborted) throw error;
      // The browser does not say why: no network, no service, or CORS_ORIGINS lacks this page.
      throw new ApiError("offline", "No answer came");
    }
    if (!response.ok && response.status !== 304) throw errorOf(response.status, text, response.headers);
    const answer = text ? JSON.parse(text) : {};
    return { ...answer, status: response.status, headers: response.headers };
  }

  function noteEnd(error: ApiError): void {
    if (!error.endsSession || !session.token) return;
    session.token = null;
    options.onSessionEnd?.(error);
  }

  function commonHeaders(): Record<string, string> {
    const headers: Record<string, string> = {};
    if (options.language) headers["Accept-Language"] = options.language();
    if (session.token) headers.Authorization = `Bearer ${session.token}`;
    return headers;
  }

  function address(path: string, parts: Record<string, string | number> = {}, query: unknown = {}): string {
    const filled = path.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(parts[name]));
    const search = new URLSearchParams();
    for (const [name, value] of Object.entries(query ?? {})) {
      if (Array.isArray(value) && name === "tag") for (const tag of value) search.append(name, tag);
      else if (value !== undefined && value !== null && value !== "") search.append(name, String(value));
    }
    return service + filled + (search.size ? `?${search}` : "");
  }

  /** Exchange the token for a fresh one; calls that come meanwhile wait for the same. */
  async function refresh(): Promise<void> {
    const before = session.token;
    try {
      const { data } = await once("post", "/api/auth/refresh", {});
      // Meanwhile, somebody may have logged out.
      if (session.token === before) session.token = data.token;
    } catch {
      // The call itself finds out what is wrong.
    } finally {
      refreshing = null;
    }
  }

  /**
   * Send a form with files. `fetch` cannot tell how much of it has gone; XMLHttpRequest can.
   * `onProgress` gets a number from 0 to 1; at 1 the service has all, and still looks at it.
   */
  async function upload<M extends "post" | "patch", P extends Path<M>>(
    method: M,
    path: P,
    form: FormData,
    onProgress?: (part: number) => void,
    signal?: AbortSignal,
  ): Promise<Result<Answer<P, M>>> {
    if (session.isAging()) await (refreshing ??= refresh());
    signal?.throwIfAborted();
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open(method.toUpperCase(), service + path);
      for (const [name, value] of Object.entries(commonHeaders())) request.setRequestHeader(name, value);
      request.upload.onprogress = (event) => event.lengthComputable && onProgress?.(event.loaded / event.total);
      request.onerror = () => reject(new ApiError("offline", "No answer came"));
      signal?.addEventListener("abort", () => request.abort());
      request.onabort = () => reject(signal?.reason);
      request.onload = () => {
        const headers = new Headers();
        for (const name of ["Retry-After", "X-Request-Id"]) {
          const value = request.getResponseHeader(name);
          if (value) headers.set(name, value);
        }
        const { status, responseText } = request;
        if (status >= 200 && status < 300) resolve({ ...JSON.parse(responseText), status, headers });
        else {
          const error = errorOf(status, responseText, headers);
          noteEnd(error);
          reject(error);
        }
      };
      request.send(form);
    });
  }

  /** The whole address of what an answer names. With URL_PREFIX it begins with the folder of the service. */
  function asset(path: string): string {
    return (path.startsWith(`${folder}/api/`) ? host : service) + path;
  }

  return {
    base,
    session,
    call,
    file,
    upload,
    /** For an `<img>` or a link. */
    asset,
    /** The same, so that the browser saves the file under a readable name. */
    download: (path: string) => `${asset(path)}${path.includes("?") ? "&" : "?"}download=1`,
  };
}

/** Only what is done at most once may be sent again: a GET, or what has an Idempotency-Key. */
export function mayRepeat(
  method: string,
  headers: Record<string, string> | undefined,
  error: ApiError,
): boolean {
  const isSafe = method === "get" || Boolean(headers?.["Idempotency-Key"]);
  const isPassing = error.status === 429 || error.status === 502 || error.status === 503;
  return isSafe && isPassing && (error.retryAfter ?? 1) <= LONGEST_WAIT;
}

/** A new `Idempotency-Key`. `crypto.randomUUID()` would do, but is there with HTTPS alone. */
export function newKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function sleep(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
