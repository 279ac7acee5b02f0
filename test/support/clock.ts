import { type Clock, systemClock } from '../../src/runtime/clock.ts';

/** setTimeout's own bound, which the system clock has too: a later date comes in steps. */
const LONGEST_TIMEOUT_MS = 2 ** 31 - 1;

export interface HeldClockOptions {
  /** Milliseconds since the epoch at which it stands first. */
  start?: number;
  /** Seed of `random`: the same seed gives the same chances. */
  seed?: number;
}

/**
 * Time that passes only when a test says so. Timers run in the order of their dates (of equal ones, in the order they were set),
 * each at its own date; chance is a function of the seed.
 */
export class HeldClock implements Clock {
  #now: number;
  #seed: number;
  #count = 0;
  readonly #timers = new Map<number, { at: number; callback: () => void }>();

  constructor({ start = Date.parse('2026-11-21T12:00:00Z'), seed = 1 }: HeldClockOptions = {}) {
    this.#now = start;
    this.#seed = seed >>> 0;
  }

  readonly now = (): number => this.#now;

  readonly after = (ms: number, callback: () => void): (() => void) => {
    const id = ++this.#count;
    this.#timers.set(id, { at: this.#now + Math.min(Math.max(ms, 0), LONGEST_TIMEOUT_MS), callback });
    return () => void this.#timers.delete(id);
  };

  /** mulberry32: small, and even enough for jitter. */
  readonly random = (): number => {
    this.#seed = (this.#seed + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(this.#seed ^ (this.#seed >>> 15), 1 | this.#seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };

  /** Timers that have not run. */
  get pending(): number {
    return this.#timers.size;
  }

  /** When the next timer is due, in milliseconds since the epoch. */
  get nextAt(): number | undefined {
    return this.#next()?.at;
  }

  /** Lets time pass. What the timers set in motion by promises goes on when the test awaits something. */
  advance(ms: number): void {
    const end = this.#now + ms;
    for (let due = this.#next(); due !== undefined && due.at <= end; due = this.#next()) {
      this.#timers.delete(due.id);
      this.#now = Math.max(this.#now, due.at);
      due.callback();
    }
    this.#now = end;
  }

  #next(): { id: number; at: number; callback: () => void } | undefined {
    let first: { id: number; at: number; callback: () => void } | undefined;
    // A Map keeps the order of setting, so of equal dates the first set comes first.
    for (const [id, timer] of this.#timers) if (first === undefined || timer.at < first.at) first = { id, ...timer };
    return first;
  }
}

/** The machine's time, which a test can put forward: timers that are due then run at once, in the order of their dates. */
export class JumpingClock implements Clock {
  #ahead = 0;
  readonly #timers = new Set<{ at: number; fire: () => void }>();

  readonly now = (): number => systemClock.now() + this.#ahead;
  readonly random = systemClock.random;

  readonly after = (ms: number, callback: () => void): (() => void) => {
    const timer = { at: this.now() + ms, fire: () => this.#timers.delete(timer) && callback() };
    this.#timers.add(timer);
    const cancel = systemClock.after(ms, timer.fire);
    return () => {
      cancel();
      this.#timers.delete(timer);
    };
  };

  jump(ms: number): void {
    this.#ahead += ms;
    const due = [...this.#timers].filter(({ at }) => at <= this.now()).toSorted((a, b) => a.at - b.at);
    for (const { fire } of due) fire();
  }
}

/** Lets everything that waits for nothing but promises come to rest. */
export async function settled(): Promise<void> {
  // One turn of the event loop drains the microtasks, and those that they queue.
  await new Promise<void>((resolve) => setImmediate(resolve));
}
