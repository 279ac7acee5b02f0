import { constants } from 'node:fs';
import { type FileHandle, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure } from '../api/failure.ts';
import { DirectFile } from './direct.ts';
import { Ranges } from './ranges.ts';
import { type Piece, Window } from './window.ts';

/** How much may be lost to a power cut, and how long the sync at the end may take. */
export const SYNC_BYTES = 64 * 1024 * 1024;

export function pathOf(directory: string, generation: number): string {
  return join(directory, `${generation}.part`);
}

/**
 * One inode with the bytes of one representation, append-only below its watermark: what was read from it once never changes. A
 * restart from zero or another mirror is another generation. (Else a site could have been sent the beginning of one mirror's file
 * and the end of another's, while the digest of the rewritten file is right.)
 *
 * The writer and everybody who reads hold it; the descriptor is closed when the last lets go, so a reader goes on after the file
 * has been renamed into the cache.
 */
export class Generation {
  readonly directory: string;
  readonly number: number;
  readonly path: string;
  /** Bytes of the whole, where the origin told. */
  totalBytes: number | undefined;
  readonly #handle: FileHandle;
  readonly #ranges = new Ranges();
  readonly #listeners = new Set<() => void>();
  readonly #window = new Window();
  /** Opened when an upload begins to follow. */
  #direct: Promise<DirectFile | undefined> | undefined;
  #writesDirect = false;
  #holders = 1;
  #durable: number;
  #syncing: Promise<void> | undefined;
  #failure: Failure | undefined;
  #outcome: 'growing' | 'complete' | Failure = 'growing';

  private constructor(directory: string, number: number, handle: FileHandle, watermark: number) {
    this.directory = directory;
    this.number = number;
    this.path = pathOf(directory, number);
    this.#handle = handle;
    this.#ranges.add(0, watermark);
    this.#durable = watermark;
  }

  /** A new inode; what an earlier process may have left under the name is unlinked, not written over. */
  static async create(directory: string, number: number): Promise<Generation> {
    const path = pathOf(directory, number);
    await rm(path, { force: true });
    // 0600: nobody else reads what is not proven.
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
    return new Generation(directory, number, await open(path, flags, 0o600), 0);
  }

  /** What an earlier run left, up to its durable watermark; undefined when it is not there any more, or shorter than it should be. */
  static async reopen(directory: string, number: number, watermark: number): Promise<Generation | undefined> {
    let handle: FileHandle;
    try {
      handle = await openToWrite(pathOf(directory, number));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    }
    try {
      const stat = await handle.stat();
      if (stat.isFile() && stat.size >= watermark) {
        await handle.truncate(watermark); // nobody vouches for what is beyond
        return new Generation(directory, number, handle, watermark);
      }
    } catch (error) {
      await handle.close();
      throw error;
    }
    await handle.close();
    return undefined;
  }

  /** Bytes from the beginning without a gap. */
  get watermark(): number {
    return this.#ranges.watermark;
  }

  /** All bytes that are there. */
  get size(): number {
    return this.#ranges.size;
  }

  /** Bytes from the beginning that a power cut cannot take. */
  get durable(): number {
    return this.#durable;
  }

  get outcome(): 'growing' | 'complete' | Failure {
    return this.#outcome;
  }

  /**
   * Writes all of it. Resolves when the memory may be used again (who follows may want it for a moment: see window.ts), or with `Lent`
   * when that would take too long.
   * @throws Failure DiskFull; the bytes before stay
   */
  async write(offset: number, bytes: Uint8Array): Promise<void | 'Lent'> {
    if (this.#failure !== undefined) throw this.#failure;
    try {
      await this.#put(offset, bytes);
    } catch (error) {
      throw this.#fail(error);
    }
    this.#ranges.add(offset, offset + bytes.length);
    // The last bytes wait for their proof, and that for this write.
    const end = offset + bytes.length;
    const unused = end === this.totalBytes ? undefined : this.#window.show(offset, bytes);
    for (const listener of this.#listeners) listener();
    // Beside the reception, one at a time: a sync that is overtaken by 64 MiB is followed by one for all of them.
    if (this.watermark - this.#durable >= SYNC_BYTES && this.#syncing === undefined) void this.sync().catch(() => {});
    return await unused;
  }

  /** What will be taken from memory need not be in the kernel's as well. */
  async #put(offset: number, bytes: Uint8Array): Promise<void> {
    const direct = this.#window.keepsUp(this.watermark) ? await this.#direct : undefined;
    this.#writesDirect = direct?.takes(offset, bytes) === true;
    let done = direct !== undefined && this.#writesDirect ? await direct.write(offset, bytes) : 0;
    while (done < bytes.length) {
      const { bytesWritten } = await this.#handle.write(bytes, done, bytes.length - done, offset + done);
      done += bytesWritten;
    }
  }

  /** Makes everything below the present watermark durable. */
  async sync(): Promise<void> {
    while (this.#syncing !== undefined) await this.#syncing.catch(() => {});
    const { watermark } = this;
    if (this.#durable === watermark) return;
    this.#syncing = this.#handle.datasync().then(
      () => {
        this.#durable = watermark;
      },
      (error: unknown) => {
        // After a failed fsync the kernel has forgotten which pages were dirty: a second call would succeed and mean nothing.
        throw this.#fail(error);
      },
    );
    try {
      await this.#syncing;
    } finally {
      this.#syncing = undefined;
    }
  }

  /** An upload reads along, and has come to this position. */
  followedTo(follower: object, position: number): void {
    this.#direct ??= DirectFile.open(this.#handle.fd);
    this.#window.moved(follower, position);
  }

  leave(follower: object): void {
    this.#window.leave(follower);
  }

  /** The hash that goes along wants nothing before this position; undefined: nothing at all. */
  hashedTo(position: number | undefined): void {
    this.#window.hashedTo(position);
  }

  /** Whether what is written now goes past the kernel's memory, so that reading it there would only fill that. */
  get isDirect(): boolean {
    return this.#writesDirect;
  }

  /** To an upload: at most `length` bytes below the watermark, where they are still in memory. */
  lend(position: number, length: number): Piece | undefined {
    return this.#window.lend(position, Math.min(length, this.watermark - position));
  }

  lendToHash(position: number): Piece | undefined {
    return this.#window.lendToHash(position, this.watermark - position);
  }

  /** Reads below the watermark. */
  async read(buffer: Uint8Array, length: number, position: number): Promise<number> {
    const { bytesRead } = await this.#handle.read(buffer, 0, Math.min(length, this.watermark - position), position);
    return bytesRead;
  }

  /** Calls at every growth and at the end. Returns the way to stop it. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** No byte will be added: either all are there, or the fetch has failed; it may fail after the last byte too, by its digest. */
  end(outcome: 'complete' | Failure): void {
    if (this.#outcome instanceof Failure || this.#outcome === outcome) return;
    this.#outcome = outcome;
    for (const listener of this.#listeners) listener();
  }

  hold(): void {
    this.#holders += 1;
  }

  async release(): Promise<void> {
    this.#holders -= 1;
    if (this.#holders > 0) return;
    await (await this.#direct)?.close();
    await this.#handle.close();
  }

  #fail(error: unknown): Failure {
    this.#failure ??= Failure.from(error);
    return this.#failure;
  }
}

/**
 * Opens what an earlier run left. The cache makes a complete file read-only before it takes it in; where that failed (a full disk, a
 * kill), nobody but root could go on with it.
 */
async function openToWrite(path: string): Promise<FileHandle> {
  const writable = constants.O_RDWR | constants.O_NOFOLLOW;
  try {
    return await open(path, writable);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EACCES') throw error;
  }
  const sealed = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    await sealed.chmod(0o600);
  } finally {
    await sealed.close();
  }
  return open(path, writable);
}

/** A file that was fetched faster than a cloud could make the record for it is still found by the upload that was to follow it. */
const LINGER_MS = 60_000;
const MAX_LINGERING = 16;

/** The generations that are being written now, and those just completed, so that uploads find them. */
export class Generations {
  readonly #live = new Map<string, Generation>();
  /** Oldest first. */
  readonly #lingering = new Map<Generation, NodeJS.Timeout>();

  add(generation: Generation): void {
    this.#live.set(generation.path, generation);
  }

  remove(generation: Generation): void {
    if (this.#live.get(generation.path) === generation) this.#live.delete(generation.path);
  }

  /** Keeps a complete and proven one for a minute, with its descriptor: the file is about to be renamed. */
  linger(generation: Generation): void {
    generation.hold();
    this.#lingering.set(generation, setTimeout(() => this.#forget(generation), LINGER_MS).unref());
    const [oldest] = this.#lingering.keys();
    if (this.#lingering.size > MAX_LINGERING && oldest !== undefined) this.#forget(oldest);
  }

  #forget(generation: Generation): void {
    clearTimeout(this.#lingering.get(generation));
    if (!this.#lingering.delete(generation)) return;
    this.remove(generation);
    void generation.release().catch(() => {}); // read only by now: a close has nothing to lose
  }

  find(directory: string, number: number): Generation | undefined {
    return this.#live.get(pathOf(directory, number));
  }
}
