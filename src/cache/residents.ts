/** A blob as the memory knows it; the rest is in the index. */
export interface Resident {
  readonly sha256: string;
  readonly allocated: number;
  readonly stamp: string;
  /** Milliseconds since the epoch, made strictly increasing, so that it orders uses within one millisecond too. */
  usedAt: number;
  /** The `usedAt` that the index has. */
  persistedUse: number;
}

/** Which blobs are there, in the order of their last use, who pins them, and the sums over them. */
export class Residents {
  /** A Map keeps the order of insertion: the first is the least recently used. */
  readonly #byUse = new Map<string, Resident>();
  readonly #holders = new Map<string, Set<string>>();
  readonly #pinned = new Map<string, Set<string>>();
  #bytes = 0;
  #pinnedBytes = 0;
  #lastUse = 0;

  get count(): number {
    return this.#byUse.size;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get pinnedBytes(): number {
    return this.#pinnedBytes;
  }

  get(sha256: string): Resident | undefined {
    return this.#byUse.get(sha256);
  }

  all(): IterableIterator<Resident> {
    return this.#byUse.values();
  }

  /** The clock may have been set back, or stand still in a test: a later use is later all the same. */
  nextUse(nowMs: number): number {
    this.#lastUse = Math.max(nowMs, this.#lastUse + 1);
    return this.#lastUse;
  }

  /** At start, in the order of `usedAt`; later with `usedAt` from {@link nextUse}. */
  add(resident: Resident): void {
    this.remove(resident.sha256);
    this.#byUse.set(resident.sha256, resident);
    this.#lastUse = Math.max(this.#lastUse, resident.usedAt);
    this.#bytes += resident.allocated;
    if (this.isPinned(resident.sha256)) this.#pinnedBytes += resident.allocated;
  }

  /** Pins stay: they are on the digest, and the blob may come again. */
  remove(sha256: string): void {
    const resident = this.#byUse.get(sha256);
    if (resident === undefined) return;
    this.#byUse.delete(sha256);
    this.#bytes -= resident.allocated;
    if (this.isPinned(sha256)) this.#pinnedBytes -= resident.allocated;
  }

  touch(resident: Resident, nowMs: number): void {
    resident.usedAt = this.nextUse(nowMs);
    this.#byUse.delete(resident.sha256);
    this.#byUse.set(resident.sha256, resident);
  }

  isPinned(sha256: string): boolean {
    return this.#pinned.has(sha256);
  }

  pin(sha256: string, holder: string): boolean {
    const resident = this.#byUse.get(sha256);
    const holders = this.#pinned.get(sha256);
    if (holders === undefined) {
      this.#pinned.set(sha256, new Set([holder]));
      this.#pinnedBytes += resident?.allocated ?? 0;
    } else {
      holders.add(holder);
    }
    const pins = this.#holders.get(holder);
    if (pins === undefined) this.#holders.set(holder, new Set([sha256]));
    else pins.add(sha256);
    return resident !== undefined;
  }

  /** True when a blob may be evicted now that could not be before. */
  unpinAll(holder: string): boolean {
    let freed = false;
    for (const sha256 of this.#holders.get(holder) ?? []) {
      const holders = this.#pinned.get(sha256);
      holders?.delete(holder);
      if (holders?.size !== 0) continue;
      this.#pinned.delete(sha256);
      const resident = this.#byUse.get(sha256);
      if (resident === undefined) continue;
      this.#pinnedBytes -= resident.allocated;
      freed = true;
    }
    this.#holders.delete(holder);
    return freed;
  }

  /** Least recently used first, until their sum reaches `bytes`; fewer when there are no more. */
  victims(bytes: number): Resident[] {
    const chosen: Resident[] = [];
    let sum = 0;
    for (const resident of this.#byUse.values()) {
      if (sum >= bytes) break;
      if (this.isPinned(resident.sha256)) continue;
      chosen.push(resident);
      sum += resident.allocated;
    }
    return chosen;
  }
}
