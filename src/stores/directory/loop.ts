import type { Timers } from './seams.ts';

export interface LoopOptions {
  /** May say in how many milliseconds it wants to run again, if that is sooner than usual. */
  work(): Promise<number | undefined>;
  everyMs: number;
  timers: Timers;
  /** Of runs that nobody waits for. */
  onError(error: unknown): void;
}

/** Runs work now and then, one at a time, and at once when asked. */
export class Loop {
  readonly #options: LoopOptions;
  #timer: unknown;
  #running: Promise<void> | undefined;
  #next: Promise<void> | undefined;
  #stopped = false;

  constructor(options: LoopOptions) {
    this.#options = options;
  }

  /** Resolves after a run that began after this call; rejects with what that run threw. */
  now(): Promise<void> {
    if (this.#stopped) return Promise.resolve();
    this.#next ??= (this.#running ?? Promise.resolve()).catch(() => undefined).then(() => this.#run());
    return this.#next;
  }

  /** The same for those who do not wait. */
  soon(): void {
    this.now().catch(this.#options.onError);
  }

  /** No further run begins; resolves when the one under way has ended. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#options.timers.clearTimeout(this.#timer);
    await this.#next?.catch(() => undefined);
    await this.#running?.catch(() => undefined);
  }

  async #run(): Promise<void> {
    this.#running = this.#next;
    this.#next = undefined;
    const { work, everyMs, timers } = this.#options;
    let delay: number | undefined;
    try {
      if (!this.#stopped) delay = await work();
    } finally {
      this.#running = undefined;
      timers.clearTimeout(this.#timer);
      if (!this.#stopped) this.#timer = timers.setTimeout(() => this.soon(), Math.min(delay ?? everyMs, everyMs));
    }
  }
}
