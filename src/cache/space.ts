import { statfsSync } from 'node:fs';
import type { Blobs } from './blobs.ts';
import type { Reservation } from './cache.ts';
import { Ledger } from './ledger.ts';
import type { CacheOptions, VolumeSpace } from './options.ts';
import { allocatedBytes, type Partials } from './partials.ts';
import type { Residents } from './residents.ts';
import { GIB } from './sizes.ts';
import { SpaceSignal } from './space-signal.ts';

const SWEEP_EVERY_MS = 24 * 3600 * 1000;

interface Dependencies {
  options: CacheOptions;
  residents: Residents;
  blobs: Blobs;
  partials: Partials;
  root: string;
}

/** The ledger joined to what it counts, and what makes room: evictions, and the daily removal of old partials. */
export class Space {
  readonly quotaBytes: number;
  readonly #deps: Dependencies;
  readonly #signal: SpaceSignal;
  readonly #ledger: Ledger;
  #evictions = 0;
  #cancelSweep: (() => void) | undefined;

  constructor(deps: Dependencies) {
    this.#deps = deps;
    const { blobs, options, partials, residents } = deps;
    this.#signal = new SpaceSignal(options.log);
    const { blocks, bsize } = this.#volume();
    this.quotaBytes = options.quotaBytes ?? Math.floor(blocks * bsize * 0.8);
    this.#ledger = new Ledger({
      quotaBytes: this.quotaBytes,
      reserveFreeBytes: options.reserveFreeBytes ?? 2 * GIB,
      now: options.now,
      after: (ms, callback) => this.#after(ms, callback),
      onSpace: () => this.#signal.raise(),
      supply: {
        // In the short time between an unlink and its report the bytes count twice; the 2 GiB kept free are there for that too.
        freeBytes: () => this.#freeBytes() + blobs.beingUnlinked + partials.beingUnlinked,
        allocatedBytes,
        partialPath: (key) => partials.get(key)?.path,
        blobBytes: () => residents.bytes,
        pinnedBytes: () => residents.pinnedBytes,
        looseBytes: (covered) => partials.loose(covered).reduce((sum, { allocated }) => sum + allocated, 0),
        evict: (bytes, covered) => this.#evict(bytes, covered),
      },
    });
  }

  get evictions(): number {
    return this.#evictions;
  }

  get reservedBytes(): number {
    return this.#ledger.reservedBytes;
  }

  /** Bytes of partials that nobody is writing now. */
  get partialBytes(): number {
    const loose = this.#deps.partials.loose(this.#ledger.coveredPartials());
    return loose.reduce((sum, { allocated }) => sum + allocated, 0);
  }

  reserve(bytes: number, holder: string, partial?: string): Promise<Reservation> {
    return this.#ledger.reserve(bytes, holder, partial);
  }

  isRoomFor(holder: string, kept: Iterable<string> = []): boolean {
    const { residents } = this.#deps;
    let keptBytes = 0;
    for (const sha256 of new Set(kept))
      if (!residents.isPinned(sha256)) keptBytes += residents.get(sha256)?.allocated ?? 0;
    return this.#ledger.isRoomFor(holder, keptBytes);
  }

  couldFit(holder: string, kept: Iterable<string>): boolean {
    let keptBytes = 0;
    for (const sha256 of new Set(kept)) keptBytes += this.#deps.residents.get(sha256)?.allocated ?? 0;
    return this.#ledger.couldFit(holder, keptBytes);
  }

  giveUp(holder: string): void {
    this.#ledger.giveUp(holder);
  }

  subscribe(listener: () => void): () => void {
    return this.#signal.subscribe(listener);
  }

  settle(path: string, partial: string | undefined, allocated: number): void {
    this.#ledger.settle(path, partial, allocated);
  }

  changed(): void {
    this.#ledger.spaceChanged();
  }

  /** Back below the quota, which may have been made smaller; a file may also have come in without a reservation. */
  async evictExcess(kept?: string): Promise<void> {
    const { residents } = this.#deps;
    const excess = this.#ledger.excess();
    if (excess === 0) return;
    const holder = `excess beside ${kept}`;
    if (kept !== undefined) residents.pin(kept, holder);
    const gone = this.#evict(excess, this.#ledger.coveredPartials());
    residents.unpinAll(holder);
    await gone;
  }

  /** Removes old partials, now and then once a day. */
  async sweep(): Promise<void> {
    const { options, partials } = this.#deps;
    this.#cancelSweep = this.#after(SWEEP_EVERY_MS, () => {
      this.sweep().catch((error: unknown) =>
        options.log.warn({ err: error }, 'old partials could not be removed; tried again tomorrow'),
      );
    });
    const stale = partials.stale(this.#ledger.coveredPartials());
    if (stale.length === 0) return;
    await partials.discard(stale);
    options.log.info({ partials: stale.length }, 'removed partials that got no byte for 7 days');
    this.changed();
  }

  close(): void {
    this.#cancelSweep?.();
    this.#signal.clear();
    this.#ledger.close();
  }

  /** Blobs first, by last use; then what earlier fetches left, or two unfinished ones could hold each other up for days. */
  async #evict(bytes: number, covered: ReadonlySet<string>): Promise<void> {
    const { blobs, options, partials, residents } = this.#deps;
    const victims = residents.victims(bytes);
    let missing = victims.reduce((rest, { allocated }) => rest - allocated, bytes);
    const loose = missing <= 0 ? [] : partials.loose(covered);
    const discarded = loose.filter(({ allocated }) => {
      const needed = missing > 0 && allocated > 0;
      if (needed) missing -= allocated;
      return needed;
    });
    if (victims.length === 0 && discarded.length === 0) return;
    this.#evictions += victims.length;
    options.log.info(
      { blobs: victims.map(({ sha256 }) => sha256), partials: discarded.map(({ path }) => path) },
      'evicted from the cache to make room',
    );
    await Promise.all([blobs.evict(victims), partials.discard(discarded)]);
  }

  #after(ms: number, callback: () => void): () => void {
    if (this.#deps.options.after !== undefined) return this.#deps.options.after(ms, callback);
    const timer = setTimeout(callback, ms).unref();
    return () => clearTimeout(timer);
  }

  #volume(): VolumeSpace {
    return (this.#deps.options.statfs ?? statfsSync)(this.#deps.root);
  }

  #freeBytes(): number {
    const { bavail, bsize } = this.#volume();
    return bavail * bsize;
  }
}
