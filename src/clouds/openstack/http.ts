import { Agent, request } from 'undici';
import { Failure } from '../../api/failure.ts';

/** One bounded request and its answer as text. Image bytes never pass here: `transfers` moves them. */
export interface HttpCall {
  method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  url: string;
  headers?: Record<string, string>;
  body?: string;
}

export interface HttpAnswer {
  status: number;
  headers: Record<string, string>;
  body: string;
}

const CONNECT_MS = 10_000;
const HEADERS_MS = 60_000;
const TOTAL_MS = 120_000;
/** A page of 200 images with many properties is below 2 MiB. */
const MAX_BODY = 8 * 1024 * 1024;

/** Connections of one site. Proxies of the environment are not used, redirects not followed: the catalog says where to go. */
export class Http {
  readonly #agent: Agent;

  constructor(tls: { ca?: string; insecure?: boolean }) {
    this.#agent = new Agent({
      connect: {
        timeout: CONNECT_MS,
        ...(tls.ca === undefined ? {} : { ca: tls.ca }),
        ...(tls.insecure === true ? { rejectUnauthorized: false } : {}),
      },
      headersTimeout: HEADERS_MS,
      bodyTimeout: HEADERS_MS,
      connections: 8,
    });
  }

  /** @throws Failure NetworkError | TlsFailed | Timeout | Aborted | ServerError (an answer without end) */
  async call(call: HttpCall, signal: AbortSignal): Promise<HttpAnswer> {
    const deadline = AbortSignal.timeout(TOTAL_MS);
    try {
      const answer = await request(call.url, {
        method: call.method,
        dispatcher: this.#agent,
        signal: AbortSignal.any([signal, deadline]),
        headers: { accept: 'application/json', 'user-agent': 'imageproxy', ...call.headers },
        body: call.body ?? null,
      });
      const headers: Record<string, string> = {};
      for (const [name, value] of Object.entries(answer.headers)) {
        if (value !== undefined) headers[name] = Array.isArray(value) ? (value[0] ?? '') : value;
      }
      return { status: answer.statusCode, headers, body: await readText(answer.body, call.url) };
    } catch (error) {
      throw networkFailure(call.url, error, signal, deadline);
    }
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }
}

async function readText(body: AsyncIterable<Buffer>, url: string): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > MAX_BODY) throw new Failure('ServerError', `${place(url)} answers with more than ${MAX_BODY} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

const TLS_CODES = /^(CERT_|ERR_TLS_|ERR_SSL_|UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_|HOSTNAME_MISMATCH|EPROTO)/;
const TIMEOUT_CODES = new Set([
  'UND_ERR_CONNECT_TIMEOUT',
  'UND_ERR_HEADERS_TIMEOUT',
  'UND_ERR_BODY_TIMEOUT',
  'ETIMEDOUT',
]);

function networkFailure(url: string, error: unknown, signal: AbortSignal, deadline: AbortSignal): Failure {
  if (error instanceof Failure) return error;
  if (signal.aborted) return new Failure('Aborted', 'stopped', { cause: error });
  const code = codeOf(error);
  if (deadline.aborted || TIMEOUT_CODES.has(code)) {
    return new Failure('Timeout', `${place(url)} does not answer in time`, { cause: error });
  }
  if (TLS_CODES.test(code)) {
    return new Failure(
      'TlsFailed',
      `the certificate of ${place(url)} is not trusted (${code}): put the certificate of its CA into the site's Secret as ca.crt`,
      { cause: error },
    );
  }
  return new Failure('NetworkError', `${place(url)} cannot be reached (${code})`, { cause: error });
}

function codeOf(error: unknown): string {
  if (!(error instanceof Error)) return 'unknown';
  const code = (error as NodeJS.ErrnoException).code ?? (error.cause as NodeJS.ErrnoException | undefined)?.code;
  return typeof code === 'string' ? code : error.name;
}

function place(url: string): string {
  return URL.parse(url)?.origin ?? 'the endpoint';
}
