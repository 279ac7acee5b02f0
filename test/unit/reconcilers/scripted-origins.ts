import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { sameBytes } from '../../../src/api/digest.ts';
import { Failure } from '../../../src/api/failure.ts';
import { nameOf } from '../../../src/reconcilers/vmimage/verdicts.ts';
import type { FetchListener, FetchRequest, FetchResult, Transfers } from '../../../src/transfers/transfers.ts';

interface Origin {
  etag: string;
  body: Uint8Array;
  /** The length that it announces; none with 0. Default: the body's. */
  announced?: number;
  /** Sends what the test says when it says so (`stream`); else all at once. */
  held?: boolean;
}

/** A download that the test drives: bytes as the thread would tell of them. */
export interface Stream {
  progress(bytes: number): void;
  end(): void;
}

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** The transfer thread and the origins behind it, in memory: they send and fail as the test says, when it says so. */
export class ScriptedOrigins implements Pick<Transfers, 'fetch'> {
  readonly #origins = new Map<string, Origin | Failure>();
  readonly #streams = new Map<string, PromiseWithResolvers<Stream>>();
  /** Places that were asked at all, and those whose bytes were fetched, in order. */
  readonly asked: string[] = [];
  readonly fetched: string[] = [];

  serve(url: string, origin: Origin | Failure): void {
    this.#origins.set(url, origin);
  }

  /** The held download from there, once it has begun. */
  stream(url: string): Promise<Stream> {
    return this.#streamOf(url).promise;
  }

  #streamOf(url: string): PromiseWithResolvers<Stream> {
    const known = this.#streams.get(url) ?? Promise.withResolvers<Stream>();
    this.#streams.set(url, known);
    return known;
  }

  async fetch(request: FetchRequest, listener: FetchListener, signal: AbortSignal): Promise<FetchResult> {
    const url = nameOf(request.source);
    this.asked.push(url);
    const origin = this.#origins.get(url) ?? new Failure('NotFound', `${url} is not there`);
    if (origin instanceof Failure) throw origin;
    const { etag, body, announced = body.length, held } = origin;
    const validators = { etag, ...(announced === 0 ? {} : { totalBytes: announced }) };
    const generation = request.nextGeneration;
    const path = join(request.directory, `${generation}.part`);
    await listener.onBegin?.({ generation, path, source: url, validators, offset: 0 });
    this.fetched.push(url);
    await writeFile(path, body);
    if (held === true) await this.#drive(url, listener, signal);
    const digests = { sha256: sha256(body) };
    if (request.declared.sha256 !== undefined && !sameBytes(digests, request.declared))
      throw new Failure('DigestMismatch', `${url}: other bytes`);
    listener.onProven?.({ generation, size: body.length, digests });
    return { generation, path, size: body.length, digests, validators, source: url, fromZero: true };
  }

  async #drive(url: string, listener: FetchListener, signal: AbortSignal): Promise<void> {
    const ended = Promise.withResolvers<void>();
    const abort = () => ended.reject(new Failure('Aborted', 'stopped'));
    signal.addEventListener('abort', abort, { once: true });
    if (signal.aborted) abort();
    this.#streamOf(url).resolve({
      progress: (bytes) => listener.onProgress?.({ bytes, durable: 0 }),
      end: () => ended.resolve(),
    });
    await ended.promise.finally(() => {
      signal.removeEventListener('abort', abort);
      this.#streams.delete(url);
    });
  }
}
