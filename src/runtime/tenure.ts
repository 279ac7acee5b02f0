import type { Clock } from './clock.ts';

/** A point in time by two clocks. */
export interface Moment {
  monotonic: number;
  wall: number;
}

export interface TenureOptions {
  clock: Clock;
  /** A clock that nobody sets, in milliseconds. */
  monotonic(): number;
  /** How long it lasts after the moment for which it was last confirmed, in milliseconds. */
  lastsMs: number;
}

/**
 * A right that is certain for a time after it was last confirmed, and not a moment longer: whoever works under it hears of its end
 * then, and not when the next confirmation has failed.
 */
export class Tenure {
  readonly #options: TenureOptions;
  readonly #listeners = new Set<(holds: boolean) => void>();
  #since: Moment | undefined;
  #usableFrom = Number.NEGATIVE_INFINITY;
  #holds = false;
  #cancel: (() => void) | undefined;

  constructor(options: TenureOptions) {
    this.#options = options;
  }

  /** Whether it is certain for so many milliseconds more. */
  goodForMs(ms: number): boolean {
    if (this.#since === undefined || this.#waitMs() > 0) return false;
    return this.#elapsedMs(this.#since) + ms < this.#options.lastsMs;
  }

  /** Called when it begins, and when it has ended. */
  onChange(listener: (holds: boolean) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  now(): Moment {
    return { monotonic: this.#options.monotonic(), wall: this.#options.clock.now() };
  }

  /** It is so since that moment at the latest; `usableFrom`, by the monotonic clock: nobody works under it before. */
  confirm(since: Moment, usableFrom = Number.NEGATIVE_INFINITY): void {
    this.#since = since;
    this.#usableFrom = usableFrom;
    this.settle();
  }

  end(): void {
    this.#since = undefined;
    this.settle();
  }

  /** Tells what is so by now: a clock that jumped, or a timer that is late, must not let anybody go on. */
  settle(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    if (this.#since !== undefined) {
      const wait = this.#waitMs();
      const due = wait > 0 ? wait : this.#options.lastsMs - this.#elapsedMs(this.#since);
      if (due > 0) this.#cancel = this.#options.clock.after(Math.ceil(due), () => this.settle());
    }
    const holds = this.goodForMs(0);
    if (holds === this.#holds) return;
    this.#holds = holds;
    for (const listener of [...this.#listeners]) listener(holds);
  }

  #waitMs(): number {
    return this.#usableFrom - this.#options.monotonic();
  }

  /** The longer of two: the monotonic clock stands still while the machine sleeps, the other may be set back. */
  #elapsedMs({ monotonic, wall }: Moment): number {
    return Math.max(this.#options.monotonic() - monotonic, this.#options.clock.now() - wall);
  }
}
