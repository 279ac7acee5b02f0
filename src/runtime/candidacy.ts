import type { LeaseElector } from './lease.ts';

/** A Lease that this process stands for, from `stand` to `withdraw`. It may be held, lost and held again in between. */
export class Candidacy {
  readonly #elector: LeaseElector;
  #stop: AbortController | undefined;
  #ended: Promise<void> = Promise.resolve();

  constructor(elector: LeaseElector) {
    this.#elector = elector;
  }

  /** Who holds it, as far as we have seen. */
  get holder(): string | undefined {
    return this.#elector.holder;
  }

  /** Whether the Lease is certain to be ours for so many milliseconds more. */
  goodForMs(ms: number): boolean {
    return this.#elector.goodForMs(ms);
  }

  /** Called when the Lease becomes ours, and when it is ours no more. */
  onChange(listener: (holds: boolean) => void): () => void {
    return this.#elector.onChange(listener);
  }

  /** Begins to ask for it. Asking twice is asking once. */
  stand(): void {
    if (this.#stop !== undefined) return;
    const { signal } = (this.#stop = new AbortController());
    // Only when what was given back before is given back: it would be given back under the feet of the new holder.
    this.#ended = this.#ended.then(() => this.#elector.run(signal));
  }

  /** Resolves when the Lease is ours; rejects with the signal's reason when that comes first. */
  async held(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.goodForMs(0)) return;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const give = (): void => reject(signal.reason);
    signal.addEventListener('abort', give, { once: true });
    const end = this.onChange((holds) => {
      if (holds) resolve();
    });
    try {
      await promise;
    } finally {
      end();
      signal.removeEventListener('abort', give);
    }
  }

  /** Gives it back, so that the next one need not wait for it to run out. */
  async withdraw(): Promise<void> {
    this.#stop?.abort();
    this.#stop = undefined;
    await this.#ended;
  }
}
