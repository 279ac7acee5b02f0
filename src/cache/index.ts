import { randomUUID } from 'node:crypto';
import { join, resolve } from 'node:path';
import type { Digests } from '../api/digest.ts';
import { Failure } from '../api/failure.ts';
import { BlobIndex } from './blob-index.ts';
import { Blobs } from './blobs.ts';
import type { Blob, BlobFacts, Cache, CacheStats, PartialRecord, Reservation, Scope, Validators } from './cache.ts';
import type { Database } from './database.ts';
import { diskFiles, type FileOps } from './files.ts';
import { removeHolder, writeHolder } from './holder.ts';
import { Layout } from './layout.ts';
import { KeyedLock } from './locks.ts';
import { openDatabase } from './open.ts';
import type { CacheOptions } from './options.ts';
import { Partials } from './partials.ts';
import { repairBlobs } from './repair.ts';
import { Residents } from './residents.ts';
import { type DigestFile, pacedDigest, scrubNext } from './scrub.ts';
import { formatBytes } from './sizes.ts';
import { Space } from './space.ts';

export type { CacheLog } from './log.ts';
export type { CacheOptions, VolumeSpace } from './options.ts';

/**
 * Opens the cache on a volume, as its one writer, and puts right what a crash has left.
 * @throws Failure CacheInUse when another process has it; Conflict when the folder is another program's; DiskFull
 */
export async function openCache(options: CacheOptions): Promise<Cache> {
  try {
    const layout = new Layout(resolve(options.directory));
    const database = await openDatabase(layout, diskFiles, options.log, options.now());
    return await startCache(options, layout, database, diskFiles);
  } catch (error) {
    throw Failure.from(error);
  }
}

/** The second half of {@link openCache}, with its parts given, so that a test can cut the power between two steps. */
export async function startCache(
  options: CacheOptions,
  layout: Layout,
  database: Database,
  files: FileOps,
): Promise<VolumeCache> {
  try {
    const cache = new VolumeCache(options, layout, database, files);
    await cache.start();
    return cache;
  } catch (error) {
    database.close();
    throw error;
  }
}

export class VolumeCache implements Cache {
  readonly #options: CacheOptions;
  readonly #layout: Layout;
  readonly #db: Database;
  readonly #files: FileOps;
  readonly #index: BlobIndex;
  readonly #residents = new Residents();
  readonly #locks = new KeyedLock();
  readonly #blobs: Blobs;
  readonly #partials: Partials;
  readonly #space: Space;
  readonly #digest: DigestFile;
  #closed = false;

  constructor(options: CacheOptions, layout: Layout, db: Database, files: FileOps) {
    const { log, now } = options;
    this.#options = options;
    this.#layout = layout;
    this.#db = db;
    this.#files = files;
    this.#index = new BlobIndex(db);
    const [locks, residents, index] = [this.#locks, this.#residents, this.#index];
    const shared = { db, files, layout, locks, log, now };
    const partials = new Partials(shared);
    this.#partials = partials;
    this.#blobs = new Blobs({
      ...shared,
      index,
      residents,
      claim: (path) => {
        const key = partials.keyOf(path);
        return {
          forget: () => key !== undefined && partials.forget(key),
          settle: (allocated) => this.#space.settle(path, key, allocated),
        };
      },
      onGone: () => this.#space.changed(),
    });
    this.#space = new Space({ options, residents, blobs: this.#blobs, partials, root: layout.root });
    this.#digest = options.digest ?? pacedDigest(options.scrubBytesPerSecond ?? 32 * 2 ** 20);
  }

  async start(): Promise<void> {
    const { log, now } = this.#options;
    const [files, layout] = [this.#files, this.#layout];
    await writeHolder(layout, now());
    await files.remove(layout.scratch);
    for (const folder of [layout.blobs, layout.partials, layout.scratch]) await files.makeFolder(folder);
    await files.syncFolder(layout.root);
    await repairBlobs({ db: this.#db, index: this.#index, residents: this.#residents, files, layout, log });
    await this.#partials.repair();
    await this.#space.sweep();
    await this.#space.evictExcess();
    const stats = this.stats();
    log.info(
      { directory: layout.root, blobs: stats.blobs, bytes: stats.bytes, quotaBytes: stats.quotaBytes },
      `the cache holds ${stats.blobs} blobs, ${formatBytes(stats.bytes)} of ${formatBytes(stats.quotaBytes)}`,
    );
  }

  find(digests: Digests, scope: Scope): Promise<Blob | undefined> {
    return this.#do(() => this.#blobs.find(digests, scope));
  }

  get(sha256: string): Promise<Blob | undefined> {
    return this.#do(() => this.#blobs.get(sha256));
  }

  admit(path: string, sha256: string, facts: BlobFacts, scope: Scope): Promise<Blob> {
    return this.#do(async () => {
      const blob = await this.#blobs.admit(resolve(path), sha256, facts, () => [scope]);
      await this.#space.evictExcess(sha256);
      return blob;
    });
  }

  annotate(sha256: string, facts: Partial<BlobFacts>): Promise<void> {
    return this.#do(() => this.#blobs.annotate(sha256, facts));
  }

  grant(sha256: string, scope: Scope): Promise<void> {
    return this.#do(() => this.#blobs.grant(sha256, scope));
  }

  /** Only while the source is there: who may see the result is who may see the source, and that goes with it. */
  findTransform(sha256: string, transformId: string): Promise<Blob | undefined> {
    return this.#do(async () => {
      if (this.#residents.get(sha256) === undefined) return undefined;
      const result = this.#index.transform(sha256, transformId);
      return result === undefined ? undefined : this.#blobs.get(result);
    });
  }

  withResults(sources: readonly string[]): string[] {
    return this.#closed ? [...sources] : this.#index.withResults(sources);
  }

  admitTransform(
    sha256: string,
    transformId: string,
    path: string,
    resultSha256: string,
    facts: BlobFacts,
  ): Promise<Blob> {
    return this.#do(async () => {
      const scopes = (): Scope[] => {
        if (this.#residents.get(sha256) !== undefined) return this.#index.scopes(sha256);
        throw new Failure('Conflict', `blob ${sha256} left the cache while it was converted: it is fetched again`);
      };
      const register = (): void => this.#index.recordTransform(sha256, transformId, resultSha256);
      const blob = await this.#blobs.admit(resolve(path), resultSha256, facts, scopes, register);
      await this.#space.evictExcess(resultSha256);
      return blob;
    });
  }

  pin(sha256: string, holder: string): boolean {
    return this.#residents.pin(sha256, holder);
  }

  unpinAll(holder: string): void {
    if (this.#residents.unpinAll(holder)) this.#space.changed();
  }

  drop(sha256: string): Promise<void> {
    return this.#do(() => this.#blobs.drop(sha256));
  }

  reserve(bytes: number, holder: string, partial?: string): Promise<Reservation> {
    return this.#do(() => this.#space.reserve(bytes, holder, partial));
  }

  isRoomFor(holder: string, kept?: Iterable<string>): boolean {
    return this.#space.isRoomFor(holder, kept);
  }

  couldFit(holder: string, kept: Iterable<string>): boolean {
    return this.#space.couldFit(holder, kept);
  }

  giveUp(holder: string): void {
    this.#space.giveUp(holder);
  }

  onSpace(listener: () => void): () => void {
    return this.#space.subscribe(listener);
  }

  scratch(suffix: string): string {
    if (!/^[\w.-]*$/.test(suffix)) throw new Failure('InternalError', `not the end of a file name: ${suffix}`);
    return join(this.#layout.scratch, `${randomUUID()}${suffix}`);
  }

  partial(key: string): PartialRecord | undefined {
    return this.#partials.get(key);
  }

  partialDirectory(key: string): Promise<{ directory: string; nextGeneration: number }> {
    return this.#do(() => this.#partials.directory(key));
  }

  newPartial(key: string, source: string, validators: Validators, generation?: number): Promise<PartialRecord> {
    return this.#do(() => this.#partials.start(key, source, validators, generation));
  }

  recordWatermark(key: string, generation: number, watermark: number): void {
    if (!this.#closed) this.#partials.advance(key, generation, watermark);
  }

  dropPartial(key: string): Promise<void> {
    return this.#do(async () => {
      await this.#partials.drop(key);
      this.#space.changed();
    });
  }

  stats(): CacheStats {
    return {
      bytes: this.#residents.bytes,
      partialBytes: this.#space.partialBytes,
      quotaBytes: this.#space.quotaBytes,
      reservedBytes: this.#space.reservedBytes,
      pinnedBytes: this.#residents.pinnedBytes,
      blobs: this.#residents.count,
      evictions: this.#space.evictions,
    };
  }

  scrubNext(signal: AbortSignal): Promise<{ sha256: string; intact: boolean } | undefined> {
    const { log, now } = this.#options;
    const [db, index, residents, blobs] = [this.#db, this.#index, this.#residents, this.#blobs];
    const parts = { db, index, residents, blobs, layout: this.#layout, log, now, digest: this.#digest };
    return this.#do(() => scrubNext(parts, signal));
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#space.close();
    await this.#locks.idle();
    try {
      this.#blobs.flushUses();
    } catch (error) {
      this.#options.log.warn({ err: error }, 'the last uses of blobs could not be written down');
    }
    await removeHolder(this.#layout);
    this.#db.close();
  }

  /** Everything thrown is a Failure; a full disk has its own name. */
  async #do<T>(work: () => Promise<T>): Promise<T> {
    if (this.#closed) throw new Failure('Aborted', 'the cache is closed');
    try {
      return await work();
    } catch (error) {
      throw Failure.from(error);
    }
  }
}
