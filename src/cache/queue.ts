/** A place that was not asked for again for this long is empty: its holder has gone without saying so. */
export const PLACE_KEPT_MS = 10 * 60 * 1000;

interface Place {
  bytes: number;
  /** Key of the partial that is to be written inside the reservation. */
  partial: string | undefined;
  askedAt: number;
}

/** Who was refused space, in the order of their first asking. A later small request must not take, again and again, what an earlier big one waits for. */
export class WaitingQueue {
  /** A Map keeps the order of insertion; asking again changes a place, not its order. */
  readonly #places = new Map<string, Place>();
  readonly #now: () => number;

  constructor(now: () => number) {
    this.#now = now;
  }

  get size(): number {
    return this.#places.size;
  }

  /** How many wait before this holder: all, when it has no place yet. */
  ahead(holder: string): number {
    let count = 0;
    for (const waiting of this.#places.keys()) {
      if (waiting === holder) break;
      count += 1;
    }
    return count;
  }

  /** What a holder waits for; undefined when it has no place. */
  place(holder: string): Pick<Place, 'bytes' | 'partial'> | undefined {
    const { bytes, partial } = this.#places.get(holder) ?? {};
    return bytes === undefined ? undefined : { bytes, partial };
  }

  /** The holder's place, made at the end when it has none. */
  keep(holder: string, bytes: number, partial?: string): void {
    const place = this.#places.get(holder);
    if (place === undefined) this.#places.set(holder, { bytes, partial, askedAt: this.#now() });
    else Object.assign(place, { bytes, partial, askedAt: this.#now() });
  }

  /** True when it had a place. */
  leave(holder: string): boolean {
    return this.#places.delete(holder);
  }

  /** Removes the places that lapsed. True when there were any. */
  lapse(): boolean {
    let lapsed = false;
    for (const [holder, place] of this.#places) {
      if (this.#now() - place.askedAt < PLACE_KEPT_MS) continue;
      this.#places.delete(holder);
      lapsed = true;
    }
    return lapsed;
  }

  /** When the next place lapses, in milliseconds since the epoch. */
  nextLapse(): number | undefined {
    let next: number | undefined;
    for (const { askedAt } of this.#places.values()) next = Math.min(next ?? Infinity, askedAt + PLACE_KEPT_MS);
    return next;
  }
}
