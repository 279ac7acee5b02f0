import type { Digests } from '../api/digest.ts';
import type { Generation } from './generation.ts';
import type { Piece } from './window.ts';

/** As much is read from the file at once, and for less the thread is not woken: a message for every block would keep it awake. */
const STEP_BYTES = 4 * 1024 * 1024;

/** What the low-priority thread is told. It answers `read` and `take` with where it stands then. */
interface Thread {
  read(available: number, direct: boolean): void;
  take(bytes: Uint8Array): void;
  finish(): void;
  stop(): void;
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
  #position = 0;
  #busy = false;
  #over = false;
  #lent: Piece | undefined;
  /** Set when no byte will be added. */
  #size: number | undefined;

  constructor(generation: Generation, digests: Promise<Digests>, thread: Thread) {
    this.#generation = generation;
    this.digests = digests;
    this.#thread = thread;
    digests.catch(() => this.#end()); // whoever waits for it hears of it
    this.#unsubscribe = generation.onChange(() => this.#look());
    generation.hashedTo(0);
    this.#look();
  }

  /** The thread has come to here. */
  taken(position: number): void {
    if (this.#over) return;
    this.#busy = false;
    this.#position = position;
    this.#giveBack();
    this.#generation.hashedTo(position);
    this.#look();
  }

  /** The file is complete. */
  finish(size: number): void {
    this.#size = size;
    this.#look();
  }

  stop(): void {
    this.#end();
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

  /** Nothing of the download waits for this any more. What a thread that is no more was lent, it would never give back. */
  #end(): void {
    this.#over = true;
    this.#unsubscribe();
    this.#generation.hashedTo(undefined);
    this.#giveBack();
  }

  #giveBack(): void {
    this.#lent?.giveBack();
    this.#lent = undefined;
  }
}
