/** Who reads along may slow a download down to this, in bytes per second, and no further: its end is also others' beginning. */
const SLOWEST_BYTES_PER_SECOND = 64 * 2 ** 20;
/**
 * For so long they may stand still when they were faster before. A low-priority thread on a full machine does, for many blocks' time:
 * given up then, it would read from the disk.
 */
const RESERVE_MS = 500;
/** Who begins to follow has a part of the file to read before it is where the download is; so has one that stood still. */
const CATCH_UP_MS = 3000;
/** Each block that is lent is kept from the receiver, which has six of them and must not run out. The hash may have one beyond. */
const MAX_LENT = 3;

/** Bytes in memory, lent; to be given back once, when they are used no more. */
export interface Piece {
  readonly bytes: Uint8Array;
  giveBack(): void;
}

/** An upload that reads along, or the hash. */
interface Follower {
  readonly position: number;
  /** Until then it is waited for although it is behind, in milliseconds of the process clock. */
  readonly expectedUntil: number;
}

interface Held {
  readonly start: number;
  readonly end: number;
  readonly bytes: Uint8Array;
  /** Lent so many times. */
  lent: number;
  /** Waited for no longer; goes as soon as nobody has it. */
  over: boolean;
  go(memory: void | 'Lent'): void;
}

/**
 * The last blocks that a download has written, kept in memory for the uploads that follow it. While the foremost of these keeps up,
 * a byte is copied once into memory and once out of it; it need not be read back from a file that the kernel has just copied away.
 *
 * The hash that goes along is waited for, too, and may catch up: a block that it reads back from the disk costs more than the moment that
 * it is behind, so that one which nobody waited for stayed there, and came seconds after the last byte.
 *
 * Who falls out of the window reads the file, and comes back in when it has caught up.
 */
export class Window {
  readonly #held: Held[] = [];
  readonly #followers = new Map<object, Follower>();
  /** What it will want next; undefined where none goes along. */
  #hash: Follower | undefined;
  /** Until when the last block is shown, in milliseconds of the process clock. */
  #due = Number.POSITIVE_INFINITY;
  #lent = 0;
  /** Where the last block ended. */
  #shownTo = 0;

  /** From now on this follower is at `position`: what is before it, it has read. */
  moved(follower: object, position: number): void {
    this.#followers.set(follower, this.#at(position, this.#followers.get(follower)));
    this.#look();
  }

  leave(follower: object): void {
    this.#followers.delete(follower);
    this.#look();
  }

  /** The hash has come to `position`, or will have when it has read what it was told to; undefined: it goes along no more. */
  hashedTo(position: number | undefined): void {
    this.#hash = position === undefined ? undefined : this.#at(position, this.#hash);
    this.#look();
  }

  /** Whether the foremost follower reads from memory: it has come to the oldest block there, or to the watermark. */
  keepsUp(watermark: number): boolean {
    return this.#followers.size > 0 && this.#foremost >= Math.min(this.#oldest ?? watermark, watermark);
  }

  /**
   * Shows bytes that have just been written. Resolves when they are needed in memory no more, or with `Lent` when somebody has them
   * who has not given them back in good time: a receiver that stands still for a minute would hold the download for as long.
   */
  async show(start: number, bytes: Uint8Array): Promise<void | 'Lent'> {
    this.#shownTo = Math.max(this.#shownTo, start + bytes.length);
    if (this.#followers.size === 0 || bytes.length === 0) return;
    const { promise, resolve } = Promise.withResolvers<void | 'Lent'>();
    const held: Held = { start, end: start + bytes.length, bytes, lent: 0, over: false, go: resolve };
    const next = this.#held.findIndex((other) => other.start > start);
    this.#held.splice(next < 0 ? this.#held.length : next, 0, held);
    const timer = setTimeout(() => this.#giveUp(held), this.#patience(bytes.length));
    this.#look();
    const memory = await promise;
    clearTimeout(timer);
    return memory;
  }

  /** To an upload: at most `length` bytes at `position`, where they are in memory. */
  lend(position: number, length: number): Piece | undefined {
    return this.#lend(position, length, MAX_LENT);
  }

  /** To the hash, which is waited for: refused, it would only wait itself until nobody waits for it. */
  lendToHash(position: number, length: number): Piece | undefined {
    return this.#lend(position, length, MAX_LENT + 1);
  }

  #lend(position: number, length: number, max: number): Piece | undefined {
    const held = this.#held.find(({ start, end, over }) => start <= position && position < end && !over);
    if (length <= 0 || held === undefined || (held.lent === 0 && this.#lent >= max)) return undefined;
    if (held.lent === 0) this.#lent += 1;
    held.lent += 1;
    const from = position - held.start;
    let out = true;
    return {
      bytes: held.bytes.subarray(from, from + length),
      giveBack: () => {
        if (!out) return;
        out = false;
        held.lent -= 1;
        if (held.lent === 0) this.#lent -= 1;
        this.#settle(held);
      },
    };
  }

  #at(position: number, before: Follower | undefined): Follower {
    const isAlong = before === undefined || position >= this.#edge;
    return { position, expectedUntil: isAlong ? performance.now() + CATCH_UP_MS : before.expectedUntil };
  }

  /** Milliseconds. Each block earns what it takes at the slowest rate, and those that are taken sooner fill the reserve. */
  #patience(length: number): number {
    const now = performance.now();
    const earned = Math.max(this.#due, now) + (length / SLOWEST_BYTES_PER_SECOND) * 1000;
    this.#due = Math.min(earned, now + RESERVE_MS);
    return this.#due - now;
  }

  get #foremost(): number {
    return Math.max(...this.#followers.values().map(({ position }) => position));
  }

  /** Where what can be lent begins. */
  get #oldest(): number | undefined {
    return this.#held.find(({ over }) => !over)?.start;
  }

  /** Who is before this is behind. */
  get #edge(): number {
    return this.#oldest ?? this.#shownTo;
  }

  /** Up to where nobody who is waited for needs the blocks any more. */
  get #passed(): number {
    const [edge, now] = [this.#edge, performance.now()];
    const isWaitedFor = ({ position, expectedUntil }: Follower) => position >= edge || now < expectedUntil;
    const uploads = [...this.#followers.values()].filter(isWaitedFor).map(({ position }) => position);
    if (uploads.length === 0) return Number.POSITIVE_INFINITY;
    const hash = this.#hash !== undefined && isWaitedFor(this.#hash) ? this.#hash.position : Number.POSITIVE_INFINITY;
    return Math.min(Math.max(...uploads), hash);
  }

  #look(): void {
    const passed = this.#passed;
    for (const held of this.#held.filter(({ end }) => end <= passed)) this.#end(held);
  }

  #end(held: Held): void {
    held.over = true;
    this.#settle(held);
  }

  #giveUp(held: Held): void {
    this.#end(held);
    this.#go(held, 'Lent');
  }

  #settle(held: Held): void {
    if (held.over && held.lent === 0) this.#go(held);
  }

  /** Once: who has gone does not go again. */
  #go(held: Held, memory?: 'Lent'): void {
    const at = this.#held.indexOf(held);
    if (at < 0) return;
    this.#held.splice(at, 1);
    held.go(memory);
  }
}
