import { STATUS_CODES } from 'node:http';
import { type Dispatcher, request } from 'undici';
import { ApiError } from '../../runtime/api-error.ts';
import { backoffMs } from '../../runtime/backoff.ts';
import type { Clock } from '../../runtime/clock.ts';
import { pause } from '../../runtime/pause.ts';
import type { WatchEvent } from '../../runtime/reflector.ts';
import type { Credentials } from './credentials.ts';

/** What a PATCH's body is. */
export const PATCH = {
  apply: 'application/apply-patch+yaml',
  json: 'application/json-patch+json',
  merge: 'application/merge-patch+json',
} as const;

export interface ApiRequest {
  method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** Below the server: `/apis/…`, without a query. */
  path: string;
  query?: Record<string, string>;
  body?: unknown;
  /** Default: application/json. */
  contentType?: string;
  accept?: string;
  signal?: AbortSignal;
}

const ANSWER_TIMEOUT_MS = 60_000;
/**
 * The server sends a bookmark about once a minute: a watch that is silent for longer hangs on a connection whose other end is gone
 * (a node that lost its power says no goodbye), and would stay silent for the rest of its five minutes.
 */
const SILENCE_MS = 150_000;
const RETRIES = 4;
const RETRY = { baseMs: 500, maxMs: 8_000 };
/** A longer Retry-After is the caller's to wait for: it has other objects to look after. */
const LONGEST_WAIT_MS = 10_000;
/** etcd takes objects of 1.5 MiB; a line with one and its escapes stays well below. */
const LONGEST_LINE = 16 * 2 ** 20;

/** Requests to one API server: authenticated, retried where the server asks for it, and ended by one signal. */
export class ApiClient {
  readonly #credentials: Credentials;
  readonly #clock: Clock;
  readonly #signal: AbortSignal;

  constructor(credentials: Credentials, clock: Clock, signal: AbortSignal) {
    this.#credentials = credentials;
    this.#clock = clock;
    this.#signal = signal;
  }

  /**
   * The JSON that the server answers.
   * @throws ApiError for an answer that says no; undici's errors when there is no answer.
   */
  async request<T>(call: ApiRequest): Promise<T> {
    const signal = call.signal === undefined ? this.#signal : AbortSignal.any([call.signal, this.#signal]);
    let renewed = false;
    for (let attempt = 1; ; attempt++) {
      const answer = await this.#send(call, signal, ANSWER_TIMEOUT_MS);
      if (answer.statusCode < 400) return (await answer.body.json()) as T;
      const error = await errorOf(answer);
      if (error.status === 401 && !renewed) {
        // The token ran out, or was rotated: what the file or the plug-in says now is tried once.
        renewed = true;
        await this.#credentials.renew();
        continue;
      }
      const wait = this.#waitFor(error, attempt);
      if (wait === undefined) throw error;
      await pause(wait, this.#clock, signal);
      signal.throwIfAborted();
    }
  }

  /** The events of a watch, as they come. Ends when the server ends it; throws as `request` does. */
  async *watch(
    path: string,
    query: Record<string, string>,
    signal: AbortSignal,
    accept?: string,
  ): AsyncGenerator<WatchEvent> {
    const stop = AbortSignal.any([signal, this.#signal]);
    const call: ApiRequest = { method: 'GET', path, query: { ...query, watch: 'true' }, ...(accept && { accept }) };
    const answer = await this.#send(call, stop, SILENCE_MS);
    if (answer.statusCode >= 400) {
      const error = await errorOf(answer);
      if (error.status === 401) await this.#credentials.renew();
      throw error;
    }
    for await (const line of lines(answer.body)) yield JSON.parse(line) as WatchEvent;
  }

  async #send(call: ApiRequest, signal: AbortSignal, silenceMs: number): Promise<Dispatcher.ResponseData> {
    const { headers, dispatcher } = await this.#credentials.current();
    const { method, path, query, body, contentType = 'application/json', accept = 'application/json' } = call;
    const search = query === undefined ? '' : `?${new URLSearchParams(query).toString()}`;
    const answer = request(`${this.#credentials.server}${path}${search}`, {
      method,
      headers: {
        ...headers,
        accept,
        'user-agent': 'imageproxy',
        ...(body === undefined ? {} : { 'content-type': contentType }),
      },
      body: body === undefined ? null : JSON.stringify(body),
      signal,
      headersTimeout: ANSWER_TIMEOUT_MS,
      bodyTimeout: silenceMs,
      ...(dispatcher === undefined ? {} : { dispatcher }),
    });
    return answer.catch(async (error: unknown) => {
      // The cluster's CA or our certificate was rotated: the next try takes what the files say by then.
      if (isTlsError(error)) await this.#credentials.renew();
      throw error;
    });
  }

  /** As client-go: an answer with Retry-After (429 always) is taken at its word, a few times. */
  #waitFor(error: ApiError, attempt: number): number | undefined {
    const asked = error.retryAfterMs;
    if (attempt > RETRIES || (error.status !== 429 && (error.status < 500 || asked === undefined))) return undefined;
    if (asked !== undefined && asked > LONGEST_WAIT_MS) return undefined;
    return (asked ?? 0) + backoffMs(attempt, RETRY, this.#clock);
  }
}

/** Node's and OpenSSL's codes of a certificate that is refused, by us or by the server. */
export function isTlsError(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code !== undefined && /CERT|SIGNATURE|^ERR_(TLS|SSL)_/.test(code);
}

async function errorOf(answer: Dispatcher.ResponseData): Promise<ApiError> {
  const text = await answer.body.text();
  let body: unknown = text === '' ? STATUS_CODES[answer.statusCode] : text;
  try {
    body = JSON.parse(text);
  } catch {
    // A proxy, or a path that no API is at: plain text.
  }
  return ApiError.from(answer.statusCode, body, retryAfterMs(answer.headers['retry-after']));
}

/** The API server sends whole seconds; a proxy may send a date, which is as good as nothing told. */
function retryAfterMs(header: string | string[] | undefined): number | undefined {
  const seconds = Number(Array.isArray(header) ? header[0] : header);
  return Number.isFinite(seconds) && seconds >= 0 ? seconds * 1000 : undefined;
}

/** @throws Error when a line is longer than any object can be. */
export async function* lines(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let parts: string[] = [];
  let length = 0;
  for await (const chunk of chunks) {
    let text = decoder.decode(chunk, { stream: true });
    for (let end = text.indexOf('\n'); end !== -1; end = text.indexOf('\n')) {
      const line = parts.join('') + text.slice(0, end);
      parts = [];
      length = 0;
      text = text.slice(end + 1);
      if (line.trim() !== '') yield line;
    }
    length += text.length;
    if (length > LONGEST_LINE) throw new Error(`the API server sent a line of more than ${LONGEST_LINE} characters`);
    if (text !== '') parts.push(text);
  }
  // What is left was cut in the middle: the next watch brings it whole.
}
