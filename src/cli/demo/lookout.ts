import { setTimeout as sleep } from 'node:timers/promises';
import { idsInIndex } from './images.ts';

const EVERY_MS = 20;

/** Looks again and again whether the image that the status names is one that the site has in service. */
export class Lookout {
  looks = 0;
  /** Looks at which it was not. */
  gaps = 0;
  readonly #shelf: string;
  readonly #idInStatus: () => string | undefined;
  readonly #stop = new AbortController();
  readonly #done: Promise<void>;

  constructor(shelf: string, idInStatus: () => string | undefined) {
    this.#shelf = shelf;
    this.#idInStatus = idInStatus;
    this.#done = this.#look();
  }

  async end(): Promise<void> {
    this.#stop.abort();
    await this.#done;
  }

  async #look(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      const before = this.#idInStatus();
      const listed = await idsInIndex(this.#shelf);
      const after = this.#idInStatus();
      this.looks++;
      // The index is read while both may change: either word of the status is the one of that moment.
      if (![before, after].some((id) => id !== undefined && listed.includes(id))) this.gaps++;
      await sleep(EVERY_MS);
    }
  }
}
