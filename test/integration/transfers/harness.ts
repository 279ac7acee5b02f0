import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Algorithm, Digests } from '../../../src/api/digest.ts';
import type { HttpSourceSpec } from '../../../src/sources/source.ts';
import { startTransfers } from '../../../src/transfers/index.ts';
import type { FetchListener, FetchRequest, FetchResult, Transfers } from '../../../src/transfers/transfers.ts';

export const MIB = 2 ** 20;
export const never = new AbortController().signal;

/** Bytes that differ from place to place, the same at every run. */
export function content(size: number, seed = 1): Buffer {
  const bytes = Buffer.allocUnsafe(size);
  let state = seed;
  for (let at = 0; at + 4 <= size; at += 4) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes.writeUInt32LE(state, at);
  }
  for (let at = size - (size % 4); at < size; at += 1) bytes[at] = at & 255;
  return bytes;
}

export function digestOf(bytes: Uint8Array, algorithm: Algorithm = 'sha256'): string {
  return createHash(algorithm).update(bytes).digest('hex');
}

export function httpSource(url: string, more: Partial<HttpSourceSpec> = {}): HttpSourceSpec {
  return {
    kind: 'http',
    url,
    headers: {},
    network: { allow: ['127.0.0.0/8'] },
    // Nothing here is to be up by its own: a test that shows that gives it its time.
    timeouts: { connectMs: 60_000, headersMs: 60_000, stallMs: 60_000 },
    ...more,
  };
}

export interface Harness {
  /** For partials; empty at the start of each test that calls `clean`. */
  readonly folder: string;
  readonly transfers: Transfers;
  request(url: string, declared: Digests, more?: Partial<FetchRequest>): FetchRequest;
  fetch(request: FetchRequest, listener?: FetchListener, signal?: AbortSignal): Promise<FetchResult>;
  clean(): void;
  close(): Promise<void>;
}

/** A transfer thread and a folder for its partials. */
export function startHarness(): Harness {
  const folder = mkdtempSync(join(tmpdir(), 'transfers-'));
  const transfers = startTransfers();
  return {
    folder,
    transfers,
    request: (url, declared, more = {}) => ({
      source: httpSource(url),
      directory: folder,
      nextGeneration: 1,
      declared,
      also: [],
      maxBytes: 1024 * MIB,
      ...more,
    }),
    fetch: (request, listener = {}, signal = never) => transfers.fetch(request, listener, signal),
    clean: () => {
      rmSync(folder, { recursive: true, force: true });
      mkdirSync(folder);
    },
    close: async () => {
      await transfers.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
