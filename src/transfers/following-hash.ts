import type { Digests } from '../api/digest.ts';
import type { Generation } from './generation.ts';
import type { Piece } from './window.ts';

/** As much is read from the file at once, and for less the thread is not woken: a message for every block would keep it awake. */
const STEP_BYTES = 4 * 1024 * 1024;
/** A step takes milliseconds. Once the file is complete its digests are waited for, and a thread that others leave no time for that long is not. */
const STARVED_MS = 1000;

/** What the thread is told that hashes where nobody else wants the processor. It answers `read` and `take` with where it stands then. */
interface Thread {
  read(available: number, direct: boolean): void;
  take(bytes: Uint8Array): void;
  finish(): void;
  stop(): void;
  /** The same digests of the complete file, by a thread that has its share of the processor. */
  again(signal: AbortSignal): Promise<Digests>;
}

/**
 * Further digests of a file that grows: from memory, where an upload has the bytes kept there anyway and the thread keeps up; else
 * from the file, beside the reception.
 */
export class FollowingHash {
  readonly digests: Promise<Digests>;
  readonly #generation: Generation;
  readonly #thread: Thread;
  readonly #unsubscribe: () => void;
  readonly #stopped = new AbortController();
  #position = 0;
  #busy = false;
  #over = false;
  #lent: Piece | undefined;
  /** Set when no byte will be added. */
  #size: number | undefined;
  #starving: NodeJS.Timeout | undefined;
  #again: Promise<Digests> | undefined;

  constructor(generation: Generation, along: Promise<Digests>, thread: Thread) {
    this.#generation = generation;
    this.#thread = thread;
    this.#unsubscribe = generation.onChange(() => this.#look());
    this.digests = along
      .finally(() => this.#end())
      .catch((error: unknown) => {
        if (this.#again !== undefined) return this.#again;
        throw error;
      });
    this.digests.catch(() => {}); // whoever waits for it hears of it
    generation.hashedTo(0);
    this.#look();
  }

  /** The thread has come to here. */
  taken(position: number): void {
    if (this.#over) return;
    this.#busy = false;
    this.#position = position;
    this.#giveBack();
    this.#starving?.refresh();
    this.#generation.hashedTo(position);
    this.#look();
  }

  /** The file is complete. */
  finish(size: number): void {
    if (this.#over) return;
    this.#size = size;
    this.#starving = setTimeout(() => this.#beginAgain(), STARVED_MS);
    this.#look();
  }

  stop(): void {
    this.#end();
    this.#stopped.abort();
    this.#thread.stop();
  }

  #look(): void {
    if (this.#busy || this.#over) return;
    const end = this.#size ?? this.#generation.watermark;
    if (this.#position === this.#size) {
      this.#busy = true;
      this.#thread.finish();
      return;
    }
    this.#lent = this.#generation.lendToHash(this.#position);
    if (this.#lent !== undefined) {
      this.#busy = true;
      this.#thread.take(this.#lent.bytes);
    } else if (end - this.#position >= STEP_BYTES || this.#size !== undefined) {
      this.#busy = true;
      const next = Math.min(end, this.#position + STEP_BYTES);
      this.#generation.hashedTo(next);
      this.#thread.read(next, this.#generation.isDirect);
    }
  }

  #beginAgain(): void {
    this.#end();
    this.#again = this.#thread.again(this.#stopped.signal);
    this.#thread.stop();
  }

  /** Nothing of the download waits for this any more. What a thread that is no more was lent, it would never give back. */
  #end(): void {
    this.#over = true;
    clearTimeout(this.#starving);
    this.#unsubscribe();
    this.#generation.hashedTo(undefined);
    this.#giveBack();
  }

  #giveBack(): void {
    this.#lent?.giveBack();
    this.#lent = undefined;
  }
}
