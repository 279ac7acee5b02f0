import type { CacheLog } from './log.ts';

/** Tells those who wait that space may have become free: once for all that happens in one turn, and never inside the caller's own. */
export class SpaceSignal {
  readonly #listeners = new Set<() => void>();
  readonly #log: CacheLog;
  #due = false;

  constructor(log: CacheLog) {
    this.#log = log;
  }

  subscribe(listener: () => void): () => void {
    // A listener given twice is two listeners, each with its own end.
    const own = () => listener();
    this.#listeners.add(own);
    return () => this.#listeners.delete(own);
  }

  raise(): void {
    if (this.#due) return;
    this.#due = true;
    queueMicrotask(() => {
      this.#due = false;
      for (const listener of this.#listeners) {
        try {
          listener();
        } catch (error) {
          this.#log.error({ err: error }, 'a listener for free space failed');
        }
      }
    });
  }

  clear(): void {
    this.#listeners.clear();
  }
}
