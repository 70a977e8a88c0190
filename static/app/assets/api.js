// src/api/errors.ts
var ApiError = class extends Error {
	code;
	status;
	fields;
	retryAfter;
	requestId;
	constructor(code, message, status = 0, fields = {}, retryAfter = null, requestId = null) {
		super(message);
		this.code = code;
		this.status = status;
		this.fields = fields;
		this.retryAfter = retryAfter;
		this.requestId = requestId;
		this.name = "ApiError";
	}
	/** Whether the session is over, so that only another log-in helps. */
	get endsSession() {
		return [
			"token_missing",
			"token_invalid",
			"token_expired"
		].includes(this.code);
	}
};
/** The error of an answer that is not 2xx, whatever stands in its body. */
function errorOf(status, text, headers) {
	let body = {};
	try {
		body = JSON.parse(text) ?? {};
	} catch {}
	return new ApiError(body.code ?? "unreadable", body.message ?? `HTTP ${status}`, status, body.fields, readRetryAfter(headers.get("Retry-After")), headers.get("X-Request-Id"));
}
/** `Retry-After` in seconds; proxies may write a date instead. */
function readRetryAfter(value, now = Date.now()) {
	if (!value) return null;
	const seconds = /^\d+$/.test(value) ? Number(value) : (Date.parse(value) - now) / 1e3;
	return Number.isFinite(seconds) ? Math.max(0, Math.ceil(seconds)) : null;
}
// src/api/session.ts
/** How much of its life a token may have left before it is exchanged for a fresh one. */
var REFRESH_BELOW = .25;
var Session = class {
	store;
	key;
	listeners = /* @__PURE__ */ new Set();
	constructor(base, store) {
		this.store = store;
		this.key = `token ${base}`;
		globalThis.addEventListener?.("storage", (event) => {
			if (event.key === this.key || event.key === null) this.tell();
		});
	}
	get token() {
		return this.store.getItem(this.key);
	}
	set token(token) {
		if (token) this.store.setItem(this.key, token);
		else this.store.removeItem(this.key);
		this.tell();
	}
	/** Call `listener` at each log-in and log-out, those in other tabs included. */
	onChange(listener) {
		this.listeners.add(listener);
		return () => this.listeners.delete(listener);
	}
	tell() {
		const { token } = this;
		for (const listener of this.listeners) listener(token);
	}
	/** Whether the token works, but not for long. */
	isAging(now = Date.now()) {
		const claims = this.token && readClaims(this.token);
		if (!claims) return false;
		const left = claims.exp - now / 1e3;
		return left > 0 && left < (claims.exp - claims.iat) * REFRESH_BELOW;
	}
};
/** When a token was made and until when it is good; null if that cannot be told. */
function readClaims(token) {
	try {
		const part = token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
		const { iat, exp } = JSON.parse(atob(part));
		return Number.isFinite(iat) && Number.isFinite(exp) ? {
			iat,
			exp
		} : null;
	} catch {
		return null;
	}
}
// src/api/client.ts
/** A call waits by itself if it need not wait longer than this, and no oftener. */
var LONGEST_WAIT = 30;
var MOST_WAITS = 3;
/** Who left one network for another would wait for ever for an answer that went to the first. */
var NO_ANSWER = 60;
function createClient(options) {
	const base = options.base.replace(/\/+$/, "");
	const service = base.replace(/\/api$/, "");
	const [, host = "", folder = ""] = /^(\w+:\/\/[^/]+)?(.*)$/.exec(service) ?? [];
	const session = new Session(base, options.store ?? localStorage);
	let refreshing = null;
	async function call(method, path, wanted = {}) {
		if (session.isAging()) await (refreshing ??= refresh());
		for (let waits = 0;; waits += 1) try {
			return await once(method, path, wanted);
		} catch (error) {
			if (!(error instanceof ApiError)) throw error;
			noteEnd(error);
			if (waits >= MOST_WAITS || !mayRepeat(method, wanted.headers, error)) throw error;
			const seconds = Math.max(1, error.retryAfter ?? 1);
			options.onWaiting?.({
				seconds,
				error
			});
			try {
				await sleep(seconds * 1e3, wanted.signal);
			} finally {
				options.onWaiting?.(null);
			}
		}
	}
	/** Fetch what is a file, such as an export; it is not JSON. */
	async function file(path, wanted = {}) {
		if (session.isAging()) await (refreshing ??= refresh());
		const request = {
			headers: commonHeaders(),
			signal: wanted.signal
		};
		let response;
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
	async function once(method, path, wanted) {
		const { body, signal } = wanted;
		const headers = {
			...commonHeaders(),
			...wanted.headers
		};
		if (body !== void 0) headers["Content-Type"] = "application/json";
		const target = address(path, wanted.path, wanted.query);
		let response;
		let text;
		try {
			response = await fetch(target, {
				method: method.toUpperCase(),
				headers,
				body: body === void 0 ? void 0 : JSON.stringify(body),
				signal: AbortSignal.any([AbortSignal.timeout(NO_ANSWER * 1e3), ...signal ? [signal] : []]),
				cache: "no-store"
			});
			text = await response.text();
		} catch (error) {
			if (signal?.aborted) throw error;
			throw new ApiError("offline", "No answer came");
		}
		if (!response.ok && response.status !== 304) throw errorOf(response.status, text, response.headers);
		return {
			...text ? JSON.parse(text) : {},
			status: response.status,
			headers: response.headers
		};
	}
	function noteEnd(error) {
		if (!error.endsSession || !session.token) return;
		session.token = null;
		options.onSessionEnd?.(error);
	}
	function commonHeaders() {
		const headers = {};
		if (options.language) headers["Accept-Language"] = options.language();
		if (session.token) headers.Authorization = `Bearer ${session.token}`;
		return headers;
	}
	function address(path, parts = {}, query = {}) {
		const filled = path.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(parts[name]));
		const search = new URLSearchParams();
		for (const [name, value] of Object.entries(query ?? {})) if (Array.isArray(value) && name === "tag") for (const tag of value) search.append(name, tag);
		else if (value !== void 0 && value !== null && value !== "") search.append(name, String(value));
		return service + filled + (search.size ? `?${search}` : "");
	}
	/** Exchange the token for a fresh one; calls that come meanwhile wait for the same. */
	async function refresh() {
		const before = session.token;
		try {
			const { data } = await once("post", "/api/auth/refresh", {});
			if (session.token === before) session.token = data.token;
		} catch {} finally {
			refreshing = null;
		}
	}
	/**
	* Send a form with files. `fetch` cannot tell how much of it has gone; XMLHttpRequest can.
	* `onProgress` gets a number from 0 to 1; at 1 the service has all, and still looks at it.
	*/
	async function upload(method, path, form, onProgress, signal) {
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
				if (status >= 200 && status < 300) resolve({
					...JSON.parse(responseText),
					status,
					headers
				});
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
	function asset(path) {
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
		download: (path) => `${asset(path)}${path.includes("?") ? "&" : "?"}download=1`
	};
}
/** Only what is done at most once may be sent again: a GET, or what has an Idempotency-Key. */
function mayRepeat(method, headers, error) {
	const isSafe = method === "get" || Boolean(headers?.["Idempotency-Key"]);
	const isPassing = error.status === 429 || error.status === 502 || error.status === 503;
	return isSafe && isPassing && (error.retryAfter ?? 1) <= LONGEST_WAIT;
}
/** A new `Idempotency-Key`. `crypto.randomUUID()` would do, but is there with HTTPS alone. */
function newKey() {
	const bytes = crypto.getRandomValues(/* @__PURE__ */ new Uint8Array(16));
	return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
function sleep(milliseconds, signal) {
	return new Promise((resolve, reject) => {
		const timer = setTimeout(resolve, milliseconds);
		signal?.addEventListener("abort", () => {
			clearTimeout(timer);
			reject(signal.reason);
		});
	});
}
// src/api/inputs.ts
var MEDIA_TYPES = {
	png: "image/png",
	jpg: "image/jpeg",
	webp: "image/webp"
};
/** What the service takes of every picture; a model may take less: `capabilities.images`. */
var TAKEN = {
	formats: Object.keys(MEDIA_TYPES),
	maxBytes: 20971520
};
/** What is wrong with a file, before any of it is sent; null if nothing is. */
function checkPicture(file, offer = TAKEN) {
	if (!offer.formats.some((format) => MEDIA_TYPES[format] === file.type)) return "format";
	return file.size > Math.min(offer.maxBytes, TAKEN.maxBytes) ? "bytes" : null;
}
/**
* Send a picture. The same bytes again are the same upload, so that it may be tried again after
* "offline". 400 names the field `file`; 409 `storage_full`, 429 `too_many_uploads`.
*/
async function addUpload(api, file, options = {}) {
	const form = new FormData();
	form.append("file", file, options.name ?? "picture.png");
	const { data } = await api.upload("post", "/api/v1/uploads", form, options.onProgress, options.signal);
	return data;
}
// src/api/watch.ts
var SECONDS = 1;
var LONGEST_SECONDS = 30;
/** So many ids a request may name. */
var MOST_IDS = 50;
function isFinished({ status }) {
	return status !== "pending" && status !== "processing";
}
/** How long to wait after this many failures in a row: 2 s, 4 s, 8 s and so on, to half a minute. */
function backoff(failures) {
	return Math.min(LONGEST_SECONDS, SECONDS * 2 ** failures);
}
function createWatcher(api, events) {
	const ids = /* @__PURE__ */ new Set();
	let etag = null;
	let failures = 0;
	let timer;
	let isAsking = false;
	async function ask() {
		clearTimeout(timer);
		if (isAsking || !ids.size) return;
		isAsking = true;
		const asked = [...ids].slice(0, MOST_IDS);
		try {
			const headers = etag ? { "If-None-Match": etag } : {};
			const answer = await api.call("get", "/api/v1/images", {
				query: { ids: asked },
				headers
			});
			if (failures) events.onConnection?.(false);
			failures = 0;
			if (answer.status !== 304) {
				etag = answer.headers.get("ETag");
				take(asked, answer.data.records);
			}
		} catch (error) {
			if (error instanceof ApiError && error.endsSession) return ids.clear();
			failures += 1;
			if (failures === 2) events.onConnection?.(true);
		} finally {
			isAsking = false;
		}
		if (ids.size && !document.hidden) timer = setTimeout(ask, backoff(failures) * 1e3);
	}
	function take(asked, records) {
		const found = new Set(records.map((record) => record.id));
		const gone = asked.filter((id) => !found.has(id));
		for (const id of gone) ids.delete(id);
		for (const record of records) if (isFinished(record)) ids.delete(record.id);
		events.onRecords(records, gone);
	}
	const wake = () => void ask();
	globalThis.addEventListener("online", wake);
	document.addEventListener("visibilitychange", wake);
	return {
		/** Follow these, too. */
		add(more) {
			for (const id of more) ids.add(id);
			etag = null;
			ask();
		},
		remove(id) {
			ids.delete(id);
			etag = null;
		},
		clear() {
			ids.clear();
			etag = null;
			clearTimeout(timer);
		}
	};
}
export { ApiError, MEDIA_TYPES, Session, addUpload, checkPicture, createClient, createWatcher, isFinished, newKey, readClaims, readRetryAfter };
