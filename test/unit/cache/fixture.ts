import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import type { Failure, Reason } from '../../../src/api/failure.ts';
import type { BlobFacts, Cache, Scope } from '../../../src/cache/cache.ts';
import { type CacheOptions, openCache } from '../../../src/cache/index.ts';

/** The unit of file systems on which the tests' files take exactly what they are long. */
export const BLOCK = 4096;

export const FETCHED_AT = '2026-11-21T12:00:00Z';

/** A clock that moves when told to; timers run when it passes them. */
export class HeldClock {
  #now = Date.parse(FETCHED_AT);
  readonly #timers = new Set<{ at: number; callback(): void }>();

  now = (): number => this.#now;

  after = (ms: number, callback: () => void): (() => void) => {
    const timer = { at: this.#now + ms, callback };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  };

  advance(ms: number): void {
    this.#now += ms;
    for (const timer of this.#timers) {
      if (timer.at > this.#now) continue;
      this.#timers.delete(timer);
      timer.callback();
    }
  }
}

export interface LogLine {
  level: 'info' | 'warn' | 'error';
  fields: object;
  message: string;
}

export function recordingLog(): CacheOptions['log'] & {
  lines: LogLine[];
  messages(level: LogLine['level']): string[];
} {
  const lines: LogLine[] = [];
  const at = (level: LogLine['level']) => (fields: object, message: string) =>
    void lines.push({ level, fields, message });
  return {
    lines,
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
    messages: (level) => lines.filter((line) => line.level === level).map((line) => line.message),
  };
}

/** In memory where the machine has it: an fsync costs nothing there, and these tests make thousands. */
export const TEMPORARY = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();

export function temporaryFolder(): string {
  const folder = mkdtempSync(join(TEMPORARY, 'cache-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A volume that is never the bottleneck. */
export const largeVolume = () => ({ bsize: BLOCK, blocks: 2 ** 30, bavail: 2 ** 30 });

export interface Opened {
  cache: Cache;
  clock: HeldClock;
  log: ReturnType<typeof recordingLog>;
  directory: string;
}

export async function opened(options: Partial<CacheOptions> = {}, clock = new HeldClock()): Promise<Opened> {
  const directory = options.directory ?? temporaryFolder();
  const log = recordingLog();
  const cache = await openCache({
    directory,
    log,
    now: clock.now,
    after: clock.after,
    statfs: largeVolume,
    quotaBytes: 100 * BLOCK,
    ...options,
  });
  onTestFinished(() => cache.close());
  return { cache, clock, log, directory };
}

/** Different bytes for each name; whole blocks, so that the size is what it takes. */
export function content(name: string, blocks = 1): Buffer {
  return Buffer.alloc(blocks * BLOCK, `${name}.`);
}

export function digestOf(bytes: Uint8Array, algorithm = 'sha256'): string {
  return createHash(algorithm).update(bytes).digest('hex');
}

export function factsOf(bytes: Uint8Array, more: Partial<BlobFacts> = {}): BlobFacts {
  return { digests: {}, size: bytes.length, fetchedAt: FETCHED_AT, ...more };
}

/** Takes a new file into the cache; the digest is its name from then on. */
export async function admitted(
  cache: Cache,
  name: string,
  { blocks = 1, scope = 'public', facts = {} }: { blocks?: number; scope?: Scope; facts?: Partial<BlobFacts> } = {},
): Promise<string> {
  const bytes = content(name, blocks);
  const path = cache.scratch('.raw');
  writeFileSync(path, bytes);
  const sha256 = digestOf(bytes);
  await cache.admit(path, sha256, factsOf(bytes, facts), scope);
  return sha256;
}

/** The files below `blobs/`, by name, with what they take on the disk. */
export function blobFiles(directory: string): Map<string, number> {
  const files = new Map<string, number>();
  const root = join(directory, 'blobs', 'sha256');
  for (const folder of readdirSync(root)) {
    for (const name of readdirSync(join(root, folder))) {
      files.set(name, statSync(join(root, folder, name)).blocks * 512);
    }
  }
  return files;
}

/** The reason that a promise is rejected with. */
export async function reasonOf(work: Promise<unknown>): Promise<Reason | 'none'> {
  try {
    await work;
    return 'none';
  } catch (error) {
    return (error as Failure).reason;
  }
}

/** All that is due in this turn of the event loop has run. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
