/**
 * When is an object that is no longer in the manifests meant to be deleted? After two clean scans that are some time apart, and
 * not when too many are gone at once: a folder that was not mounted, a checkout half done or a wrong `--manifests` must not empty a cloud.
 */
export const APART_MS = 5_000;
const ALWAYS_ALLOWED = 10;
const ALLOWED_SHARE = 0.25;
/** Deletions of the last while count too: a slow `rm -r` is one deletion, not many small ones. */
const WINDOW_MS = 60_000;

export interface Observation {
  /** When the scan began. */
  at: number;
  clean: boolean;
  /** Ids that ought to be in the manifests and are not. */
  absent: readonly string[];
  /** How many ought to be there. */
  total: number;
  /** This is another folder than the one that the objects were read from, and none of them is here. */
  elsewhere: boolean;
}

export interface Held {
  count: number;
  total: number;
  elsewhere: boolean;
}

export class AbsenceLedger {
  readonly #since = new Map<string, number>();
  readonly #confirmed = new Set<string>();
  #released: number[] = [];
  #held: Held | undefined;

  /** What is to be deleted now. */
  observe(scan: Observation): string[] {
    const absent = new Set(scan.absent);
    for (const id of this.#since.keys()) {
      if (absent.has(id)) continue;
      this.#since.delete(id);
      this.#confirmed.delete(id);
    }
    this.#released = this.#released.filter((at) => scan.at - at < WINDOW_MS);
    if (!scan.clean) return [];
    for (const id of absent) if (!this.#since.has(id)) this.#since.set(id, scan.at);

    const open = [...this.#since.keys()].filter((id) => !this.#confirmed.has(id));
    const total = scan.total + this.#released.length;
    const limit = Math.max(ALWAYS_ALLOWED, Math.floor(total * ALLOWED_SHARE));
    const tooMany = open.length > 0 && (scan.elsewhere || open.length + this.#released.length > limit);
    this.#held = tooMany ? { count: open.length, total, elsewhere: scan.elsewhere } : undefined;
    const due: string[] = [];
    for (const [id, since] of this.#since) {
      const confirmed = this.#confirmed.has(id);
      if (!confirmed && (tooMany || scan.at - since < APART_MS)) continue;
      due.push(id);
      // What a person has confirmed is no sign of an accident.
      if (!confirmed) this.#released.push(scan.at);
      this.#since.delete(id);
      this.#confirmed.delete(id);
    }
    return due;
  }

  /** A scan soon after the second look is due lets nothing wait for longer than needed. */
  nextLookMs(at: number): number | undefined {
    if (this.#held !== undefined || this.#since.size === 0) return undefined;
    return Math.max(0, Math.min(...this.#since.values()) + APART_MS - at);
  }

  get held(): Held | undefined {
    return this.#held;
  }

  /** A person says that what is absent now is meant. Returns those. */
  confirm(): string[] {
    for (const id of this.#since.keys()) this.#confirmed.add(id);
    return [...this.#confirmed];
  }
}
