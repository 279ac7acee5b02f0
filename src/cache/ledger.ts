import { resolve as resolvePath } from 'node:path';
import { Failure } from '../api/failure.ts';
import type { Reservation } from './cache.ts';
import { WaitingQueue } from './queue.ts';
import { cacheFull, diskFull, notGivenBack, tooLarge, waitsBehind, YIELDS } from './refusals.ts';

/** What the ledger knows of the volume and of what lies in the cache. All synchronous: a decision about space is one step. */
export interface Supply {
  /** Bytes that the file system would still give; what is being unlinked counts as given back. */
  freeBytes(): number;
  allocatedBytes(path: string): number;
  partialPath(key: string): string | undefined;
  blobBytes(): number;
  pinnedBytes(): number;
  /** Bytes of partials that no reservation covers. */
  looseBytes(covered: ReadonlySet<string>): number;
  /** Lets go of this much, if it is there, before it returns; resolves when the files are gone. */
  evict(bytes: number, covered: ReadonlySet<string>): Promise<void>;
}

export interface LedgerOptions {
  quotaBytes: number;
  /** Never touched: the volume's room for state. */
  reserveFreeBytes: number;
  supply: Supply;
  now(): number;
  after(ms: number, callback: () => void): () => void;
  /** Space may have become free. */
  onSpace(): void;
}

/** One reservation. Entries are kept in the order of their making: the last is the youngest. */
interface Entry {
  readonly holder: string;
  bytes: number;
  readonly partial: string | undefined;
  readonly files: Set<string>;
  growth: { bytes: number; resolve(granted: Promise<void>): void; reject(failure: Failure): void } | undefined;
}

interface Assessment {
  /** Bytes that must be evicted first. */
  deficit: number;
  evictable: number;
  /** Bytes that could be had now. */
  room: number;
  /** Not even an empty cache would have the room: the volume lacks it. */
  volumeLacks: boolean;
}

/**
 * The one ledger of space: bytes are set aside before the first of them is written.
 *
 *     available = min(quota − blobs − loose partials − reserved, free − 2 GiB − reserved but not yet written)
 *
 * What has been written inside a reservation is gone from the volume's free bytes already, so only the rest of the reservation is
 * taken off there. Sizes are st_blocks: a sparse file counts what it takes.
 */
export class Ledger {
  readonly #options: LedgerOptions;
  readonly #entries = new Set<Entry>();
  readonly #queue: WaitingQueue;
  #cancelLapse: (() => void) | undefined;

  constructor(options: LedgerOptions) {
    this.#options = options;
    this.#queue = new WaitingQueue(options.now);
  }

  get reservedBytes(): number {
    let sum = 0;
    for (const entry of this.#entries) sum += entry.bytes;
    return sum;
  }

  /** Keys of partials that are written inside a reservation. */
  coveredPartials(): Set<string> {
    const covered = new Set<string>();
    for (const { partial } of this.#entries) if (partial !== undefined) covered.add(partial);
    return covered;
  }

  async reserve(bytes: number, holder: string, partial?: string): Promise<Reservation> {
    this.#expectSize(bytes);
    if (bytes > this.#options.quotaBytes) {
      this.giveUp(holder);
      throw tooLarge(bytes, this.#options.quotaBytes);
    }
    if (partial !== undefined && this.coveredPartials().has(partial)) {
      throw new Failure('InternalError', `a partial is written inside another reservation already (${holder})`);
    }
    this.#queue.lapse();
    const entry: Entry = { holder, bytes, partial, files: new Set(), growth: undefined };
    // Who holds space already goes first: those in the queue wait for it to end.
    const ahead = this.#holds(holder) ? 0 : this.#queue.ahead(holder);
    const growing = this.#growing().length;
    const assessment = this.#assess(entry, bytes);
    if (assessment.volumeLacks) {
      // No place: nobody here can make that room, and who waits for it must not hold up all the others.
      this.giveUp(holder);
      throw diskFull(bytes, assessment.room, this.#options.reserveFreeBytes);
    }
    if (ahead > 0 || growing > 0 || assessment.deficit > assessment.evictable) {
      if (!this.#holds(holder)) this.#queue.keep(holder, bytes, partial);
      this.#watchLapse();
      throw this.#cacheFull(bytes, assessment, waitsBehind(ahead + growing));
    }
    this.#entries.add(entry);
    // The next in the queue may fit as well.
    if (this.#queue.leave(holder) && this.#queue.size > 0) this.#options.onSpace();
    try {
      await this.#evict(entry, assessment.deficit);
    } catch (error) {
      this.#release(entry);
      throw error;
    }
    return this.#handle(entry);
  }

  /** Whether who waits in the queue would be served now, if so many bytes that could be evicted stayed. */
  isRoomFor(holder: string, keptBytes: number): boolean {
    const place = this.#queue.place(holder);
    if (place === undefined || this.#queue.ahead(holder) > 0 || this.#growing().length > 0) return false;
    const entry: Entry = { holder, ...place, files: new Set(), growth: undefined };
    const { deficit, evictable, volumeLacks } = this.#assess(entry, place.bytes);
    return !volumeLacks && deficit <= evictable - keptBytes;
  }

  /** Whether what a holder waits for could be had beside so many bytes, if nobody else had any. */
  couldFit(holder: string, keptBytes: number): boolean {
    const place = this.#queue.place(holder);
    return place === undefined || keptBytes + place.bytes <= this.#options.quotaBytes;
  }

  giveUp(holder: string): void {
    if (this.#queue.leave(holder)) this.#options.onSpace();
  }

  /** Bytes above the quota: it was made smaller, or a file came in without a reservation. */
  excess(): number {
    const { quotaBytes, supply } = this.#options;
    let held = supply.blobBytes() + supply.looseBytes(this.coveredPartials());
    for (const entry of this.#entries) held += Math.max(entry.bytes, this.#written(entry));
    return Math.max(0, held - quotaBytes);
  }

  /** A file became a blob: its bytes move from the reservation that it was written in to the blobs. */
  settle(path: string, partial: string | undefined, allocated: number): void {
    for (const entry of this.#entries) {
      const own = entry.files.delete(resolvePath(path)) || (partial !== undefined && entry.partial === partial);
      if (own) entry.bytes = Math.max(0, entry.bytes - allocated);
    }
    this.spaceChanged();
  }

  /** Something was released, unpinned or dropped: growths that wait are looked at again, the oldest first. */
  spaceChanged(): void {
    let blocked = false;
    for (const entry of this.#growing()) {
      const growth = entry.growth;
      if (growth === undefined) continue;
      const assessment = this.#assess(entry, growth.bytes);
      if (!blocked && assessment.deficit <= assessment.evictable) {
        entry.growth = undefined;
        growth.resolve(this.#grow(entry, growth.bytes, assessment.deficit));
      } else if (assessment.volumeLacks) {
        entry.growth = undefined;
        growth.reject(diskFull(growth.bytes, assessment.room, this.#options.reserveFreeBytes));
      } else if (this.#isYoungest(entry)) {
        entry.growth = undefined;
        growth.reject(this.#cacheFull(growth.bytes, assessment, YIELDS));
      } else {
        blocked = true;
      }
    }
    this.#options.onSpace();
  }

  close(): void {
    this.#cancelLapse?.();
    for (const entry of this.#entries) this.#release(entry);
  }

  #handle(entry: Entry): Reservation {
    return {
      get bytes() {
        return entry.bytes;
      },
      resize: (bytes) => this.#resize(entry, bytes),
      cover: (path) => {
        entry.files.add(resolvePath(path));
      },
      release: () => this.#release(entry),
    };
  }

  async #resize(entry: Entry, bytes: number): Promise<void> {
    this.#expectSize(bytes);
    if (!this.#entries.has(entry)) throw new Failure('Aborted', 'the reservation has ended');
    if (entry.growth !== undefined) throw new Failure('InternalError', 'the reservation waits for more already');
    if (bytes > this.#options.quotaBytes) throw tooLarge(bytes, this.#options.quotaBytes);
    if (bytes <= entry.bytes) {
      entry.bytes = bytes;
      this.spaceChanged();
      return;
    }
    const assessment = this.#assess(entry, bytes);
    // A younger one that waits does not hold up an older one; the other way round it does.
    const olderWait = this.#growing().some((other) => this.#isOlder(other, entry));
    if (!olderWait && assessment.deficit <= assessment.evictable) {
      await this.#grow(entry, bytes, assessment.deficit);
      return;
    }
    if (assessment.volumeLacks) throw diskFull(bytes, assessment.room, this.#options.reserveFreeBytes);
    // The youngest never waits, so it ends, by itself or by this; then the next is the youngest: nobody waits for ever.
    if (this.#isYoungest(entry)) throw this.#cacheFull(bytes, assessment, YIELDS);
    await new Promise<void>((resolve, reject) => {
      entry.growth = { bytes, resolve, reject };
    });
  }

  async #grow(entry: Entry, bytes: number, deficit: number): Promise<void> {
    const before = entry.bytes;
    entry.bytes = bytes;
    try {
      await this.#evict(entry, deficit);
    } catch (error) {
      entry.bytes = before;
      this.spaceChanged();
      throw error;
    }
  }

  /** Evicts for an entry that is in the ledger already. It has to go back, too, when the volume does not give the space back. */
  async #evict(entry: Entry, deficit: number): Promise<void> {
    if (deficit <= 0) return;
    const { supply, reserveFreeBytes } = this.#options;
    await supply.evict(deficit, this.coveredPartials());
    const missing = reserveFreeBytes + this.#unwritten() - supply.freeBytes();
    if (missing <= 0 || !this.#entries.has(entry)) return;
    throw notGivenBack(entry.bytes, missing);
  }

  #release(entry: Entry): void {
    if (!this.#entries.delete(entry)) return;
    entry.growth?.reject(new Failure('Aborted', 'the reservation was released while it waited for more'));
    entry.growth = undefined;
    this.spaceChanged();
  }

  /** What it takes for `entry`, in the ledger or not yet, to hold `bytes`. */
  #assess(entry: Entry, bytes: number): Assessment {
    const { quotaBytes, reserveFreeBytes, supply } = this.#options;
    const covered = this.coveredPartials();
    if (entry.partial !== undefined) covered.add(entry.partial);
    let [reserved, unwritten, others] = [0, 0, 0];
    for (const other of this.#entries) {
      if (other === entry) continue;
      const written = this.#written(other);
      reserved += Math.max(other.bytes, written);
      unwritten += Math.max(0, other.bytes - written);
      others += written;
    }
    const [blobs, pinned, loose] = [supply.blobBytes(), supply.pinnedBytes(), supply.looseBytes(covered)];
    const evictable = blobs - pinned + loose;
    const written = this.#written(entry);
    const toWrite = Math.max(0, bytes - written);
    const free = supply.freeBytes() - reserveFreeBytes;
    const quotaRoom = quotaBytes - blobs - loose - reserved;
    const freeRoom = free - unwritten;
    // Who needs nothing more of the volume is not refused for what others took of it.
    const volumeDeficit = toWrite === 0 ? 0 : toWrite - freeRoom;
    return {
      deficit: Math.max(0, Math.max(bytes, written) - quotaRoom, volumeDeficit),
      evictable,
      room: Math.max(0, Math.min(quotaRoom, freeRoom + written) + evictable),
      volumeLacks: toWrite > 0 && toWrite > free + blobs + loose + others,
    };
  }

  #written(entry: Entry): number {
    const { supply } = this.#options;
    let sum = 0;
    const partial = entry.partial === undefined ? undefined : supply.partialPath(entry.partial);
    if (partial !== undefined) sum += supply.allocatedBytes(partial);
    for (const path of entry.files) if (path !== partial) sum += supply.allocatedBytes(path);
    return sum;
  }

  #unwritten(): number {
    let sum = 0;
    for (const entry of this.#entries) sum += Math.max(0, entry.bytes - this.#written(entry));
    return sum;
  }

  #holds(holder: string): boolean {
    return this.#entries.values().some((entry) => entry.holder === holder);
  }

  /** Entries that wait for more, the oldest first. */
  #growing(): Entry[] {
    return [...this.#entries].filter((entry) => entry.growth !== undefined);
  }

  #isYoungest(entry: Entry): boolean {
    return [...this.#entries].at(-1) === entry;
  }

  #isOlder(a: Entry, b: Entry): boolean {
    const order = [...this.#entries];
    return order.indexOf(a) < order.indexOf(b);
  }

  /** Nothing else may happen when a place lapses, and those behind it must hear of it. */
  #watchLapse(): void {
    if (this.#cancelLapse !== undefined) return;
    const next = this.#queue.nextLapse();
    if (next === undefined) return;
    this.#cancelLapse = this.#options.after(Math.max(0, next - this.#options.now()), () => {
      this.#cancelLapse = undefined;
      if (this.#queue.lapse()) this.#options.onSpace();
      this.#watchLapse();
    });
  }

  #cacheFull(bytes: number, { room }: Assessment, why: string): Failure {
    const { quotaBytes, supply } = this.#options;
    return cacheFull({ bytes, room, quotaBytes, pinnedBytes: supply.pinnedBytes(), holders: [...this.#entries], why });
  }

  #expectSize(bytes: number): void {
    if (Number.isSafeInteger(bytes) && bytes >= 0) return;
    throw new Failure('InternalError', `space is reserved in whole bytes, not ${bytes}`);
  }
}
