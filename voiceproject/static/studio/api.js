/** The HTTP API: the key, requests, errors of the envelope, uploads with progress, events of jobs, pages of lists. */

const BASE = document.documentElement.dataset.api;
const STORE = 'studio.key';
const POLL_MS = 2000;
// A browser opens six connections to a host, and each stream of events keeps one: others must get through.
const MAX_STREAMS = 2;
const STALLED_MS = 10_000; // Nothing of an upload gets through for so long: it is told
const GIVEN_UP_MS = 60_000; // and then is a broken connection.
const QUIET_MS = 45_000; // The server sends a line every 15 s at least.

/** `code` is the envelope's; `network` where no answer came, `bad_answer` where it was not the API that answered. */
export class ApiError extends Error {
  constructor(code, message, { status = 0, details = {}, requestId = '', retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { code, status, details, requestId, retryAfter });
  }
}

export const isAbort = (error) => error?.name === 'AbortError';

// --- The key: in this browser only, never in a URL or a cookie -------------------------------------------------------

let secret = '';

function stores() {
  return ['sessionStorage', 'localStorage'].flatMap((name) => {
    try {
      return [window[name]];
    } catch {
      return []; // Forbidden: the key then lives as long as the page.
    }
  });
}

export function storedKey() {
  secret = stores().map((store) => store.getItem(STORE)).find(Boolean) ?? '';
  return secret;
}

export function useKey(key) {
  secret = key;
}

export function keepKey(remember) {
  const [session, local] = stores();
  session?.removeItem(STORE);
  local?.removeItem(STORE);
  (remember ? local : session)?.setItem(STORE, secret);
}

export function forgetKey() {
  secret = '';
  for (const store of stores()) store.removeItem(STORE);
}

/** What may be shown of it. */
export const keyPrefix = () => `${secret.slice(0, 8)}…`;

// --- Requests --------------------------------------------------------------------------------------------------------

let refused = () => {};
/** Called when the server no longer takes the key. */
export const onRefused = (listener) => (refused = listener);

/** Only the path of a link counts: behind a proxy its host may be another than the page's. */
const pathOf = (link) => {
  if (link.startsWith('/')) return BASE + link;
  const { pathname, search } = new URL(link);
  return pathname + search;
};

function failure(status, header, body) {
  const requestId = header('X-Request-ID') ?? '';
  const retryAfter = Number(header('Retry-After')) || null;
  let error;
  try {
    const { error: code, message, details } = JSON.parse(body);
    if (typeof code !== 'string') throw new SyntaxError('no envelope');
    error = new ApiError(code, message, { status, details: details ?? {}, requestId, retryAfter });
  } catch {
    error = new ApiError('bad_answer', '', { status, requestId, retryAfter });
  }
  if (status === 401) refused(error);
  return error;
}

/** A Response that is ok. `path`: below the API's root, or a link of its. Throws ApiError; an abort as it is. */
export async function request(path, { method = 'GET', body, headers = {}, signal } = {}) {
  let response;
  try {
    response = await fetch(pathOf(path), {
      method,
      body,
      headers: { 'X-API-Key': secret, ...headers },
      signal,
      credentials: 'omit',
      cache: 'no-store',
    });
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new ApiError('network', '');
  }
  if (!response.ok) throw failure(response.status, (name) => response.headers.get(name), await response.text());
  return response;
}

export async function json(path, options) {
  const response = await request(path, options);
  return response.status === 204 ? null : response.json();
}

export const sendJson = (path, data, method = 'POST') =>
  json(path, { method, body: JSON.stringify(data), headers: { 'Content-Type': 'application/json' } });

export async function blob(path, signal) {
  const response = await request(path, { signal });
  try {
    return await response.blob();
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new ApiError('network', '');
  }
}

/**
 * A form that is sent with progress (0 to 1), which fetch cannot tell; its JSON. onStalled(): nothing gets through at
 * the moment; the next progress says that it does.
 */
export function upload(path, form, { onProgress = () => {}, onStalled = () => {}, headers = {}, signal } = {}) {
  return new Promise((resolve, reject) => {
    const http = new XMLHttpRequest();
    http.open('POST', pathOf(path));
    http.setRequestHeader('X-API-Key', secret);
    for (const [name, value] of Object.entries(headers)) http.setRequestHeader(name, value);
    let timers = [];
    const rest = () => timers.forEach(clearTimeout);
    const moved = () => {
      rest();
      timers = [
        setTimeout(onStalled, STALLED_MS),
        setTimeout(() => (reject(new ApiError('network', '')), http.abort()), GIVEN_UP_MS),
      ];
    };
    http.upload.onprogress = (event) => {
      moved();
      if (event.lengthComputable) onProgress(event.loaded / event.total);
    };
    http.upload.onloadend = rest; // What the server does with it may take its time.
    http.onloadend = rest;
    http.onerror = () => reject(new ApiError('network', ''));
    http.onabort = () => reject(new DOMException('stopped', 'AbortError'));
    http.onload = () => {
      if (http.status < 200 || http.status > 299) {
        reject(failure(http.status, (name) => http.getResponseHeader(name), http.responseText));
        return;
      }
      try {
        resolve(JSON.parse(http.responseText));
      } catch {
        reject(new ApiError('bad_answer', '', { status: http.status }));
      }
    };
    signal?.addEventListener('abort', () => http.abort(), { once: true });
    http.send(form);
    moved();
  });
}

// --- Jobs ------------------------------------------------------------------------------------------------------------

export const isLive = (job) => job.status === 'queued' || job.status === 'running';

let streams = 0;

/** Server-Sent Events by fetch, since EventSource sends no headers: yields {id, event, data}. */
async function* events(link, last, signal) {
  const quiet = new AbortController();
  const stop = () => quiet.abort();
  signal.addEventListener('abort', stop, { once: true });
  let timer = setTimeout(stop, QUIET_MS);
  streams += 1;
  try {
    const headers = last === null ? {} : { 'Last-Event-ID': last };
    const response = await request(link, { headers, signal: quiet.signal });
    if (response.status === 204) return;
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = '';
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(stop, QUIET_MS);
      const blocks = (rest + value).split('\n\n');
      rest = blocks.pop();
      for (const block of blocks) {
        const found = { id: null, event: 'message', data: '' };
        for (const line of block.split('\n')) {
          const at = line.indexOf(': ');
          if (at > 0 && line.slice(0, at) in found) found[line.slice(0, at)] = line.slice(at + 2);
        }
        if (found.data) yield found;
      }
    }
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', stop);
    quiet.abort();
    streams -= 1;
  }
}

const pause = (ms, signal) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });

/**
 * Tells every change of a job until it has ended: by events, and where those fail by asking. Throws an ApiError that no
 * waiting mends (such as not_found), or the abort.
 */
export async function watch(job, onChange, signal) {
  let last = null;
  while (isLive(job)) {
    try {
      if (job.links.events && streams < MAX_STREAMS) {
        for await (const { id, event, data } of events(job.links.events, last, signal)) {
          if (event === 'deleted') throw new ApiError('not_found', '', { status: 404 });
          last = id ?? last;
          job = JSON.parse(data);
          onChange(job);
        }
      }
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      if (error instanceof ApiError && error.status >= 400 && error.status < 500 && error.status !== 429) throw error;
      // Cut off, quiet for too long, or too many wait already: ask instead, and try the events again after it.
    }
    if (!isLive(job)) return;
    await pause(POLL_MS, signal);
    try {
      const asked = await json(job.links.self, { signal });
      if (asked.updated_at !== job.updated_at || asked.queue_position !== job.queue_position) onChange((job = asked));
    } catch (error) {
      if (isAbort(error)) throw error;
      if (error.status >= 400 && error.status < 500 && error.status !== 429) throw error;
    }
  }
}

const AGAIN_SECONDS = [2, 5, 10, 20, 30]; // Together longer than a server takes to start again.

/** Until this device has a network again. */
const online = (signal) =>
  new Promise((resolve, reject) => {
    addEventListener('online', resolve, { once: true, signal });
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });

/**
 * Tries what may be repeated again when the connection breaks, a few times; `onBroken(seconds)`: until the next time,
 * `onOffline()`: as soon as there is a network.
 */
export async function persistently(work, { onBroken, onOffline }, signal) {
  for (const seconds of AGAIN_SECONDS) {
    try {
      return await work();
    } catch (error) {
      if (isAbort(error) || error.code !== 'network') throw error;
    }
    if (!navigator.onLine) {
      onOffline();
      await online(signal);
    }
    onBroken(seconds);
    await pause(seconds * 1000, signal);
  }
  return work();
}

/** A key for Idempotency-Key. `randomUUID` is for secure contexts only, and the studio may be served by plain HTTP. */
export const newIdempotencyKey = () =>
  [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
