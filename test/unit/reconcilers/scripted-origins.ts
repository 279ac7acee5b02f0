import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Algorithm, contradicted, type Digests } from '../../../src/api/digest.ts';
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
  /** Closes the connection after so many bytes. */
  cutAfter?: number;
}

/** A download that the test drives: bytes as the thread would tell of them. */
export interface Stream {
  progress(bytes: number): void;
  end(): void;
}

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function digestsOf(bytes: Uint8Array, algorithms: readonly Algorithm[]): Digests {
  return Object.fromEntries(algorithms.map((name) => [name, createHash(name).update(bytes).digest('hex')]));
}

/** The transfer thread and the origins behind it, in memory: they send and fail as the test says, when it says so. */
export class ScriptedOrigins implements Pick<Transfers, 'fetch' | 'digest'> {
  readonly #origins = new Map<string, Origin | Failure>();
  readonly #streams = new Map<string, PromiseWithResolvers<Stream>>();
  /** Places that were asked at all, and those whose bytes were fetched, in order. */
  readonly asked: string[] = [];
  readonly fetched: string[] = [];
  /** Where each of those fetches began. */
  readonly offsets: number[] = [];
  /** What lies on the disk is not any more what was written there. */
  rot = false;

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
    const { etag, body, announced = body.length, held, cutAfter = body.length } = origin;
    if (body.length > request.maxBytes) throw new Failure('TooLarge', `${url} has ${body.length} bytes`);
    const validators = { etag, ...(announced === 0 ? {} : { totalBytes: announced }) };
    const resume = request.resume?.validators.etag === etag ? request.resume : undefined;
    const offset = resume?.watermark ?? 0;
    const generation = resume?.generation ?? request.nextGeneration;
    const path = join(request.directory, `${generation}.part`);
    const begun = listener.onBegin?.({ generation, path, source: url, validators, offset });
    await Promise.race([begun, aborted(signal)]);
    this.fetched.push(url);
    this.offsets.push(offset);
    const bytes = Math.min(offset + cutAfter, body.length);
    await writeFile(path, body.subarray(0, bytes));
    if (held === true) await this.#drive(url, listener, signal);
    if (bytes < body.length) {
      listener.onProgress?.({ bytes, durable: bytes });
      throw new Failure('Truncated', `${url}: cut`);
    }
    const digests = digestsOf(body, [...(Object.keys(request.declared) as Algorithm[]), 'sha256']);
    if (contradicted(request.declared, digests) !== undefined)
      throw new Failure('DigestMismatch', `${url}: other bytes`);
    listener.onProven?.({ generation, size: body.length, digests });
    return { generation, path, size: body.length, digests, validators, source: url, fromZero: offset === 0 };
  }

  async digest(path: string, algorithms: readonly Algorithm[]): Promise<Digests> {
    return digestsOf(this.rot ? Buffer.from('rotten') : await readFile(path), algorithms);
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

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const abort = () => reject(new Failure('Aborted', 'stopped'));
    signal.addEventListener('abort', abort, { once: true });
    if (signal.aborted) abort();
  });
}
