import { PAGE_BYTES, pages } from '../pages.ts';
import type { Sink } from '../source.ts';

/** Large enough that a write, a hash update and their thread changes cost nothing per byte; small enough for twenty downloads at once. */
export const BLOCK_BYTES = 1024 * 1024;
/** Two are enough for a sink that takes bytes to the disk; one that keeps them in memory for an upload holds more. */
export const MAX_BLOCKS = 6;
const spare: Uint8Array[] = [];
const MAX_SPARE = 8;

interface Block {
  bytes: Uint8Array;
  /** Received. */
  filled: number;
  /** Handed to the sink. */
  flushed: number;
  writes: number;
  /** Somebody reads it still, who may stand still: it is used no more, and goes when he lets go of it. */
  lent: boolean;
}

/**
 * Gathers a body into blocks: one fills while others are with the sink. Nothing is allocated while bytes arrive: a fresh buffer for
 * every read (what streams do) had 80 MiB waiting for the garbage collector on a fast network.
 *
 * A block begins at a page of memory and, but for what a flush cuts up, at a page of the file.
 */
export class Blocks {
  readonly #sink: Sink;
  readonly #blocks: Block[] = [];
  /** The one that fills; undefined while all are with the sink. */
  #current: Block | undefined;
  #offset: number;
  #failure: Error | undefined;
  #wake: (() => void) | undefined;

  constructor(sink: Sink, offset: number) {
    this.#sink = sink;
    this.#offset = offset;
  }

  /** Room to receive into; empty while all blocks wait for the sink. */
  get space(): Uint8Array {
    this.#current ??= this.#free();
    return this.#current?.bytes.subarray(this.#current.filled) ?? NOTHING;
  }

  /** What the sink objected to, at its first write that failed. */
  get failure(): Error | undefined {
    return this.#failure;
  }

  /** Counts bytes that were received into `space`. */
  commit(count: number): void {
    const block = this.#current;
    if (block === undefined) return;
    block.filled += count;
    if (block.filled < block.bytes.length) return;
    this.flush();
    this.#current = undefined;
  }

  /** Copies as much as there is room for; tells how much that was. */
  put(bytes: Uint8Array): number {
    let taken = 0;
    while (taken < bytes.length) {
      const { space } = this;
      if (space.length === 0) break;
      const count = Math.min(space.length, bytes.length - taken);
      space.set(bytes.subarray(taken, taken + count));
      this.commit(count);
      taken += count;
    }
    return taken;
  }

  /** Hands over what has come so far, so that a slow origin's bytes are not kept from those who follow the file. */
  flush(): void {
    const from = this.#current;
    if (from === undefined || from.filled === from.flushed) return;
    const bytes = from.bytes.subarray(from.flushed, from.filled);
    const offset = this.#offset;
    this.#offset += bytes.length;
    from.flushed = from.filled;
    if (this.#failure !== undefined) return;
    from.writes += 1;
    this.#sink.write(offset, bytes).then(
      (memory) => {
        from.lent ||= memory === 'Lent';
        this.#written(from);
      },
      (error: Error) => {
        this.#failure ??= error;
        this.#written(from);
      },
    );
  }

  /** Calls back, once, when a write has ended: there may be room now, or a failure. */
  onWritten(wake: () => void): void {
    this.#wake = wake;
  }

  /** Hands over the rest and waits for the sink. Call it in any case: the blocks are used again afterwards. */
  async close(): Promise<void> {
    this.flush();
    while (this.#blocks.some(({ writes }) => writes > 0)) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    for (const { bytes, lent } of this.#blocks) if (!lent && spare.length < MAX_SPARE) spare.push(bytes);
    if (this.#failure !== undefined) throw this.#failure;
  }

  #free(): Block | undefined {
    let block = this.#blocks.find(({ writes, lent }) => writes === 0 && !lent);
    if (block === undefined) {
      const lost = this.#blocks.findIndex(({ writes }) => writes === 0);
      if (lost >= 0) this.#blocks.splice(lost, 1);
      if (this.#blocks.length === MAX_BLOCKS) return undefined;
      block = { bytes: spare.pop() ?? pages(BLOCK_BYTES), filled: 0, flushed: 0, writes: 0, lent: false };
      this.#blocks.push(block);
    }
    // Where a resumed file goes on in the middle of a page, so does the memory.
    block.filled = block.flushed = this.#offset % PAGE_BYTES;
    return block;
  }

  #written(block: Block): void {
    block.writes -= 1;
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }
}

const NOTHING = new Uint8Array(0);
