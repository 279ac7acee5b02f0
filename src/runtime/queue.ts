import { type BackoffPolicy, backoffMs } from './backoff.ts';
import type { Clock } from './clock.ts';

/** What the queue tells about itself, for metrics. */
export interface QueueObserver {
  depth(depth: number): void;
  latency(ms: number): void;
  retried(): void;
}

const QUICK: BackoffPolicy = { baseMs: 500, maxMs: 5 * 60_000 };

/**
 * A work queue with the promises of client-go's (util/workqueue): a key waits at most once however often it is added; a key is
 * never handled by two workers at a time; one that is added while it is handled is handled once more afterwards. Keys added
 * with a delay keep the earliest of their dates.
 */
export class WorkQueue {
  readonly #clock: Clock;
  readonly #observer: QueueObserver | undefined;
  readonly #waiting = new Map<string, number>();
  readonly #processing = new Set<string>();
  readonly #dirty = new Set<string>();
  readonly #delayed = new Map<string, { due: number; cancel: () => void }>();
  readonly #failures = new Map<string, number>();
  readonly #idle: ((key: string | undefined) => void)[] = [];
  #closed = false;

  constructor(clock: Clock, observer?: QueueObserver) {
    this.#clock = clock;
    this.#observer = observer;
  }

  /** Keys that wait for a worker now. */
  get depth(): number {
    return this.#waiting.size;
  }

  /** True when nothing waits and nothing is being handled (delayed keys do not count). */
  get quiet(): boolean {
    return this.#waiting.size === 0 && this.#processing.size === 0;
  }

  add(key: string): void {
    if (this.#closed) return;
    if (this.#processing.has(key)) {
      this.#dirty.add(key);
      return;
    }
    if (this.#waiting.has(key)) return;
    const idle = this.#idle.shift();
    if (idle !== undefined) {
      this.#processing.add(key);
      this.#observer?.latency(0);
      idle(key);
      return;
    }
    this.#waiting.set(key, this.#clock.now());
    this.#observer?.depth(this.#waiting.size);
  }

  /** Adds the key once `ms` have passed; an earlier date that is already set stays. */
  addAfter(key: string, ms: number): void {
    if (this.#closed) return;
    // A timer takes NaN for 1 ms: a date that could not be read would keep the queue spinning.
    if (Number.isNaN(ms)) throw new RangeError(`the delay of ${key} is not a number`);
    if (ms <= 0) {
      this.add(key);
      return;
    }
    const due = this.#clock.now() + ms;
    const set = this.#delayed.get(key);
    if (set !== undefined && set.due <= due) return;
    set?.cancel();
    const cancel = this.#clock.after(ms, () => {
      this.#delayed.delete(key);
      // A timeout is shorter than asked for where the date is weeks away: wait for the rest.
      const rest = due - this.#clock.now();
      if (rest > 0) this.addAfter(key, rest);
      else this.add(key);
    });
    this.#delayed.set(key, { due, cancel });
  }

  /** Adds the key after a pause that doubles with each call since the last `forget`. */
  addRateLimited(key: string): void {
    const failures = (this.#failures.get(key) ?? 0) + 1;
    this.#failures.set(key, failures);
    this.#observer?.retried();
    this.addAfter(key, backoffMs(failures, QUICK, this.#clock));
  }

  forget(key: string): void {
    this.#failures.delete(key);
  }

  /**
   * Runs `workers` handlers until the signal fires; resolves when the last one has returned. A handler that throws gets its key
   * back, rate-limited: an error in one object never stops the queue.
   */
  async run(
    workers: number,
    handle: (key: string) => Promise<void>,
    onError: (key: string, error: unknown) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const close = () => this.#close();
    if (signal.aborted) close();
    else signal.addEventListener('abort', close, { once: true });
    const work = async () => {
      for (;;) {
        const key = await this.#take();
        // Handed over in the very step in which the queue was closed.
        if (key === undefined || this.#closed) return;
        try {
          await handle(key);
          this.forget(key);
        } catch (error) {
          onError(key, error);
          this.addRateLimited(key);
        } finally {
          this.#done(key);
        }
      }
    };
    await Promise.all(Array.from({ length: workers }, work));
    signal.removeEventListener('abort', close);
  }

  #take(): Promise<string | undefined> {
    if (this.#closed) return Promise.resolve(undefined);
    for (const [key, since] of this.#waiting) {
      this.#waiting.delete(key);
      this.#processing.add(key);
      this.#observer?.depth(this.#waiting.size);
      this.#observer?.latency(this.#clock.now() - since);
      return Promise.resolve(key);
    }
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  #done(key: string): void {
    this.#processing.delete(key);
    if (this.#dirty.delete(key)) this.add(key);
  }

  #close(): void {
    this.#closed = true;
    this.#waiting.clear();
    this.#dirty.clear();
    for (const { cancel } of this.#delayed.values()) cancel();
    this.#delayed.clear();
    for (const idle of this.#idle.splice(0)) idle(undefined);
  }
}
