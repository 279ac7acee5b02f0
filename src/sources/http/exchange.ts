import { type ClientRequest, type IncomingHttpHeaders, type IncomingMessage, request as httpRequest } from 'node:http';
import type { Socket } from 'node:net';
import { Failure } from '../../api/failure.ts';
import type { NetworkGuard } from '../network.ts';
import type { HttpSourceSpec, Sink } from '../source.ts';
import { cleanUrl } from '../url.ts';
import { contentLength } from './answers.ts';
import { Blocks } from './blocks.ts';
import { aborted, connect, seconds, type TlsIdentity } from './connect.ts';
import { networkFailure } from './failures.ts';
import { Receiver } from './receiver.ts';

/** How long received bytes may wait in memory for their block to fill up. */
const FLUSH_MS = 500;

export interface ExchangeOptions {
  url: URL;
  headers: Record<string, string>;
  tls?: TlsIdentity;
  guard: NetworkGuard;
  timeouts: HttpSourceSpec['timeouts'];
}

/** One GET on a connection of its own, up to the head of the answer. Nothing of the body is read until `readInto`. */
export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** The URL that was asked, cleaned. */
  readonly where: string;
  /** Content-Length; undefined for a body that is chunked or ended by close. */
  readonly length: number | undefined;
  /**
   * Reads the whole body into the blocks. Resolves to the number of bytes.
   * @throws Failure Truncated | Stalled | LengthMismatch | Aborted, or what the sink objected to
   */
  readInto(blocks: Blocks): Promise<number>;
  /** Closes the connection. Safe at any time, and needed in any case. */
  discard(): void;
}

/** @throws Failure NetworkError | Timeout | TlsFailed | AddressForbidden | ServerError | LengthMismatch | Aborted */
export async function exchange(options: ExchangeOptions, signal: AbortSignal): Promise<Answer> {
  const { url, timeouts, guard } = options;
  const where = cleanUrl(url);
  await guard.check(url, where);
  const receiver = new Receiver();
  const socket = await connect(
    {
      url,
      where,
      connectMs: timeouts.connectMs,
      lookup: guard.lookup(url, where),
      onread: receiver.onread,
      ...(options.tls && { tls: options.tls }),
    },
    signal,
  );
  receiver.attach(socket);
  const request = httpRequest({
    createConnection: () => socket,
    method: 'GET',
    path: url.pathname + url.search,
    headers: { host: url.host, 'accept-encoding': 'identity', connection: 'close', ...options.headers },
    setHost: false,
  });
  try {
    const answered = await head(request, receiver, timeouts.headersMs, where, signal);
    return new HttpAnswer(answered, socket, receiver, where, timeouts.stallMs, signal);
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

interface Head {
  response: IncomingMessage;
  /** More bytes came with the head than Content-Length had said. */
  excess: boolean;
}

function head(
  request: ClientRequest,
  receiver: Receiver,
  headersMs: number,
  where: string,
  signal: AbortSignal,
): Promise<Head> {
  return new Promise((resolve, reject) => {
    let answered: Head | undefined;
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', abort);
    };
    const fail = (error: Failure) => {
      done();
      reject(error);
    };
    const abort = () => fail(aborted());
    const timer = setTimeout(
      () => fail(new Failure('Timeout', `${where}: no answer within ${seconds(headersMs)}`)),
      headersMs,
    );
    signal.addEventListener('abort', abort, { once: true });
    if (signal.aborted) abort();
    request.on('error', (error: NodeJS.ErrnoException) => {
      // After the answer the parser can only mind what follows a complete body.
      if (answered !== undefined) answered.excess ||= error.code?.startsWith('HPE_') === true;
      else fail(networkFailure(error, where));
    });
    request.on('upgrade', () => fail(new Failure('ServerError', `${where}: the origin switches protocols unasked`)));
    request.once('response', (response) => {
      receiver.hold();
      response.on('error', () => {}); // told by the socket
      done();
      answered = { response, excess: false };
      resolve(answered);
    });
    request.end();
  });
}

class HttpAnswer implements Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly where: string;
  readonly length: number | undefined;
  readonly #answered: Head;
  readonly #response: IncomingMessage;
  readonly #socket: Socket;
  readonly #receiver: Receiver;
  readonly #stallMs: number;
  readonly #signal: AbortSignal;

  constructor(answered: Head, socket: Socket, receiver: Receiver, where: string, stallMs: number, signal: AbortSignal) {
    const { response } = answered;
    this.#answered = answered;
    this.status = response.statusCode ?? 0;
    this.headers = response.headers;
    this.where = where;
    this.length = contentLength(response.headers, where);
    this.#response = response;
    this.#socket = socket;
    this.#receiver = receiver;
    this.#stallMs = stallMs;
    this.#signal = signal;
    socket.on('error', () => {}); // a reset after the end, or while nobody reads
  }

  async readInto(blocks: Blocks): Promise<number> {
    try {
      return await (this.length === undefined ? this.#parsed(blocks) : this.#direct(this.length, blocks));
    } finally {
      this.discard();
    }
  }

  discard(): void {
    this.#response.destroy();
    this.#socket.destroy();
  }

  /** Past the parser: bytes are counted, nothing else. */
  #direct(length: number, blocks: Blocks): Promise<number> {
    return new Promise((resolve, reject) => {
      const finish = (error?: Error) => {
        clearInterval(ticker);
        this.#signal.removeEventListener('abort', abort);
        this.#socket.off('close', look);
        if (error === undefined) resolve(length);
        else reject(error);
      };
      const look = () => {
        if (!body.done) {
          if (this.#socket.closed && !body.behind) finish(this.#truncated(body.received, length));
          return;
        }
        try {
          body.check(this.where, this.#answered.excess);
          finish();
        } catch (error) {
          finish(error as Error);
        }
      };
      const abort = () => finish(aborted());
      const ticker = setInterval(
        () => {
          blocks.flush();
          look();
          if (body.paused) body.lastByteAt = performance.now();
          else if (performance.now() - body.lastByteAt > this.#stallMs) finish(this.#stalled(body.received));
        },
        Math.min(FLUSH_MS, this.#stallMs),
      );
      this.#socket.on('close', look);
      this.#signal.addEventListener('abort', abort, { once: true });
      const first: Uint8Array[] = [];
      for (let chunk = read(this.#response); chunk !== null; chunk = read(this.#response)) first.push(chunk);
      // `look` waits a turn: `body` is not assigned yet when all of it has come with the head.
      const body = this.#receiver.takeBody(first, length, blocks, () => queueMicrotask(look));
      queueMicrotask(look);
      if (this.#signal.aborted) abort();
    });
  }

  /** Through the parser, for bodies whose end only it can tell. */
  async #parsed(blocks: Blocks): Promise<number> {
    let received = 0;
    let lastByteAt = performance.now();
    let stalled = false;
    const ticker = setInterval(
      () => {
        blocks.flush();
        if (performance.now() - lastByteAt <= this.#stallMs) return;
        stalled = true;
        this.discard();
      },
      Math.min(FLUSH_MS, this.#stallMs),
    );
    const abort = () => this.discard();
    this.#signal.addEventListener('abort', abort, { once: true });
    try {
      this.#receiver.release();
      this.#signal.throwIfAborted();
      for await (const chunk of this.#response as AsyncIterable<Buffer>) {
        received += chunk.length;
        for (let rest: Uint8Array = chunk; rest.length > 0; ) {
          rest = rest.subarray(blocks.put(rest));
          if (blocks.failure !== undefined) throw blocks.failure;
          if (rest.length > 0) await new Promise<void>((resolve) => blocks.onWritten(resolve));
        }
        lastByteAt = performance.now();
      }
      return received;
    } catch (error) {
      if (this.#signal.aborted) throw aborted();
      if (error instanceof Failure) throw error;
      throw stalled ? this.#stalled(received) : this.#truncated(received, undefined, error);
    } finally {
      clearInterval(ticker);
      this.#signal.removeEventListener('abort', abort);
    }
  }

  #stalled(received: number): Failure {
    return new Failure('Stalled', `${this.where}: nothing came for ${seconds(this.#stallMs)} after ${received} bytes`);
  }

  #truncated(received: number, length: number | undefined, cause?: unknown): Failure {
    const all = length === undefined ? 'the end' : `all ${length}`;
    return new Failure(
      'Truncated',
      `${this.where}: the connection ended after ${received} bytes, before ${all}`,
      cause === undefined ? {} : { cause },
    );
  }
}

function read(response: IncomingMessage): Buffer | null {
  return response.read() as Buffer | null;
}

/** Brings the whole body into the sink; its first byte is the file's at `offset`. */
export async function receive(answer: Answer, sink: Sink, offset: number): Promise<void> {
  const blocks = new Blocks(sink, offset);
  let failed = true;
  try {
    await answer.readInto(blocks);
    failed = false;
  } finally {
    // The blocks are used again, so the sink must have let go of them. What cut the body short matters more than what that meets.
    const closed = blocks.close();
    await (failed ? closed.catch(() => {}) : closed);
  }
}
