// What can go wrong with a call. Decide by `code`, show `message`; `fields` has a sentence for each
// wrong field. The codes are listed in the document of the API, at /api/docs.

export class ApiError extends Error {
  constructor(
    /** A code of the service, or "offline" if no answer came, or "unreadable" if it was not one of ours. */
    readonly code: string,
    message: string,
    readonly status = 0,
    readonly fields: Record<string, string> = {},
    /** In seconds: when the service says that it may be asked again. */
    readonly retryAfter: number | null = null,
    /** To be quoted when the problem is reported. */
    readonly requestId: string | null = null,
  ) {
    super(message);
    this.name = "ApiError";
  }

  /** Whether the session is over, so that only another log-in helps. */
  get endsSession(): boolean {
    return ["token_missing", "token_invalid", "token_expired"].includes(this.code);
  }
}

/** The error of an answer that is not 2xx, whatever stands in its body. */
export function errorOf(status: number, text: string, headers: Pick<Headers, "get">): ApiError {
  let body: { code?: string; message?: string; fields?: Record<string, string> } = {};
  try {
    body = JSON.parse(text) ?? {};
  } catch {
    // A proxy in between may answer with a page of its own.
  }
  return new ApiError(
    body.code ?? "unreadable",
    body.message ?? `HTTP ${status}`,
    status,
    body.fields,
    readRetryAfter(headers.get("Retry-After")),
    headers.get("X-Request-Id"),
  );
}

/** `Retry-After` in seconds; proxies may write a date instead. */
export function readRetryAfter(value: string | null, now = Date.now()): number | null {
  if (!value) return null;
  const seconds = /^\d+$/.test(value) ? Number(value) : (Date.parse(value) - now) / 1000;
  return Number.isFinite(seconds) ? Math.max(0, Math.ceil(seconds)) : null;
}
