import { type ClientRequest, type IncomingMessage, request as httpRequest } from 'node:http';
import type { Socket } from 'node:net';
import { Failure } from '../api/failure.ts';
import { connect } from '../sources/http/connect.ts';
import { Receiver } from '../sources/http/receiver.ts';
import { cleanUrl } from '../sources/url.ts';
import { openBody, type UploadBody } from './body.ts';
import type { Generations } from './generation.ts';
import { lingerAfterFailedWrite } from './linger.ts';
import { Ticker } from './ticker.ts';
import type { UploadRequest, UploadResult } from './transfers.ts';
import type { Piece } from './window.ts';

const MAX_ANSWER_BYTES = 64 * 1024;
const CONNECT_MS = 30_000;
/** After the last byte a receiver may have to move all of it (nginx's buffering, a store that copies), and says nothing meanwhile. */
const ANSWER_MS = 15 * 60_000;

/** The listener of an upload, as the transfer thread sees it. */
export interface UploadHost {
  mayFinish(): Promise<void>;
  progress(bytes: number): void;
}

/**
 * One PUT with a Content-Length. Its last bytes leave only after `mayFinish`; whatever goes wrong before destroys the connection,
 * so that the receiver has less than it was promised and throws it away. No `Expect: 100-continue`: WSGI servers answer it late or
 * not at all, and an early refusal is seen without it.
 */
export async function runUpload(
  request: UploadRequest,
  host: UploadHost,
  generations: Generations,
  signal: AbortSignal,
): Promise<UploadResult> {
  const url = URL.parse(request.url);
  const where = cleanUrl(request.url);
  if (url === null || !/^https?:$/.test(url.protocol)) {
    throw new Failure('InvalidSpec', `${where}: an upload goes to http:// or https://`);
  }
  const body = await openBody(request, generations);
  let socket: Socket | undefined;
  try {
    const receiver = new Receiver();
    const tls = request.tls === undefined ? {} : { tls: request.tls };
    socket = await connect({ url, where, connectMs: CONNECT_MS, onread: receiver.onread, ...tls }, signal);
    receiver.attach(socket);
    lingerAfterFailedWrite(socket);
    return await new Upload(request, url, where, socket, body, host, signal).run();
  } finally {
    socket?.destroy();
    await body.close();
  }
}

class Upload {
  readonly #request: UploadRequest;
  readonly #where: string;
  readonly #socket: Socket;
  readonly #body: UploadBody;
  readonly #host: UploadHost;
  readonly #put: ClientRequest;
  /** Fires when nothing more is to be sent: an answer, a failure, an abort. */
  readonly #over = new AbortController();
  readonly #outcome: Promise<UploadResult>;
  #settle: { resolve(result: UploadResult): void; reject(error: Failure): void };
  #sent = 0;

  constructor(
    request: UploadRequest,
    url: URL,
    where: string,
    socket: Socket,
    body: UploadBody,
    host: UploadHost,
    signal: AbortSignal,
  ) {
    this.#request = request;
    this.#where = where;
    this.#socket = socket;
    this.#body = body;
    this.#host = host;
    const { promise, resolve, reject } = Promise.withResolvers<UploadResult>();
    this.#outcome = promise;
    this.#settle = { resolve, reject };
    promise.catch(() => {}); // `run` awaits it, but perhaps later than it rejects
    this.#put = httpRequest({
      createConnection: () => socket,
      method: 'PUT',
      path: url.pathname + url.search,
      headers: {
        'content-type': 'application/octet-stream',
        ...lowerCased(request.headers),
        host: url.host,
        connection: 'close',
        'content-length': String(request.totalBytes),
      },
      setHost: false,
    });
    this.#put.on('response', (response) => this.#answered(response));
    this.#put.on('error', (error) => this.#fail(this.#cut('the connection broke', error)));
    this.#put.on('close', () => this.#fail(this.#cut('the connection was closed')));
    const abort = () => this.#fail(new Failure('Aborted', 'stopped'));
    signal.addEventListener('abort', abort, { once: true });
    const stop = body.onFailure((failure) => this.#fail(failure));
    this.#over.signal.addEventListener('abort', () => {
      signal.removeEventListener('abort', abort);
      stop();
    });
    if (signal.aborted) abort();
  }

  async run(): Promise<UploadResult> {
    const ticker = new Ticker(() => this.#host.progress(this.#sent));
    try {
      this.#send().catch((error: unknown) => this.#fail(Failure.from(error)));
      return await this.#outcome;
    } finally {
      ticker.stop();
    }
  }

  async #send(): Promise<void> {
    const { totalBytes, holdBackBytes } = this.#request;
    const { signal } = this.#over;
    const held = Math.max(0, totalBytes - holdBackBytes);
    let released = holdBackBytes <= 0;
    if (!released && totalBytes === 0) {
      await this.#host.mayFinish(); // here the headers are the whole request
      if (signal.aborted) return;
    }
    this.#put.flushHeaders();
    while (this.#sent < totalBytes) {
      if (!released && this.#sent === held) {
        // The proof waits for the rest of the download, which must not wait for us.
        this.#body.rest();
        await this.#host.mayFinish();
        released = true;
      }
      if (signal.aborted) return;
      const piece = await this.#body.next((released ? totalBytes : held) - this.#sent, this.#sent, signal);
      // From here to the write nothing is awaited: an abort in between cannot let the last bytes slip out.
      if (signal.aborted) return;
      await this.#write(piece);
      this.#sent += piece.bytes.length;
    }
    this.#put.end();
    await this.#expect(ANSWER_MS, 'took every byte and then did not answer', 'Timeout', new Promise(() => {}));
  }

  /** Resolves when the kernel has taken all of it, which is when the piece is given back, and not when an answer cuts the wait short. */
  #write(piece: Piece): Promise<void> {
    const written = new Promise<void>((resolve) => {
      // An error comes as the request's own `error` too, with a better name.
      this.#put.write(piece.bytes, () => {
        piece.giveBack();
        resolve();
      });
    });
    return this.#expect(this.#request.stallMs, 'took no byte', 'UploadCut', written);
  }

  async #expect(ms: number, what: string, reason: 'Timeout' | 'UploadCut', done: Promise<void>): Promise<void> {
    const over = Promise.withResolvers<void>();
    const abort = () => over.resolve();
    this.#over.signal.addEventListener('abort', abort, { once: true });
    const timer = setTimeout(
      () => this.#fail(new Failure(reason, `${this.#where}: the receiver ${what} for ${ms / 1000} s`)),
      ms,
    );
    try {
      await Promise.race([done, over.promise]);
    } finally {
      clearTimeout(timer);
      this.#over.signal.removeEventListener('abort', abort);
    }
  }

  /** Any answer ends the upload, also one that comes before the last byte (401, 409, 413). */
  #answered(response: IncomingMessage): void {
    this.#over.abort();
    const chunks: Buffer[] = [];
    let size = 0;
    const done = () => {
      const headers = Object.entries(response.headers).map(([name, value]) => [name, String(value)] as const);
      this.#settle.resolve({
        status: response.statusCode ?? 0,
        headers: Object.fromEntries(headers),
        body: Buffer.concat(chunks).subarray(0, MAX_ANSWER_BYTES).toString('utf8'),
      });
      clearTimeout(timer);
      this.#socket.destroy();
    };
    const timer = setTimeout(done, this.#request.stallMs); // the status is what counts
    response.on('data', (chunk: Buffer) => {
      chunks.push(chunk);
      size += chunk.length;
      if (size >= MAX_ANSWER_BYTES) done();
    });
    response.on('end', done);
    response.on('error', done);
    response.on('close', done);
  }

  #fail(failure: Failure): void {
    if (this.#over.signal.aborted) return;
    this.#over.abort();
    // At once, and not by an orderly end: what is still queued must not leave.
    this.#socket.destroy();
    this.#put.destroy();
    this.#settle.reject(failure);
  }

  #cut(what: string, cause?: unknown): Failure {
    const at = `after ${this.#sent} of ${this.#request.totalBytes} bytes`;
    return new Failure('UploadCut', `${this.#where}: ${what} ${at}, without an answer`, { cause });
  }
}

function lowerCased(headers: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
}
