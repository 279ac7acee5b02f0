import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { PAGE_BYTES } from '../sources/pages.ts';

/** A disk that is slower is better written through the kernel's memory, which takes bytes at once and gives them away later. */
const SLOWEST_BYTES_PER_SECOND = 64 * 2 ** 20;
/** The fastest of so many writes tells how fast the disk is; the others, how busy the machine. */
const TRIALS = 64;

/**
 * Writes whole pages of a file straight from our memory to the disk (O_DIRECT). A page of the kernel's memory that is filled only to be
 * written is work twice, and in a container it counts as ours: of the 5.4 CPU seconds that 1 GiB took from origin to cloud, 2.3 were
 * spent on these copies. Reading through the kernel sees what was written here, and the other way round.
 */
export class DirectFile {
  readonly #handle: FileHandle;
  #usable = true;
  #trials = 0;
  #bestBytesPerMs = 0;

  private constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  /** The file that this descriptor has open, whatever its name is. Undefined where the file system cannot do it (some in user space). */
  static async open(descriptor: number): Promise<DirectFile | undefined> {
    try {
      return new DirectFile(await open(`/proc/self/fd/${descriptor}`, constants.O_WRONLY | constants.O_DIRECT));
    } catch {
      return undefined;
    }
  }

  /** Whether these bytes can go this way. */
  takes(offset: number, bytes: Uint8Array): boolean {
    return (
      this.#usable &&
      offset % PAGE_BYTES === 0 &&
      bytes.byteOffset % PAGE_BYTES === 0 &&
      bytes.length % PAGE_BYTES === 0
    );
  }

  /** Tells how many bytes were written; fewer than all of them where the rest cannot go this way. */
  async write(offset: number, bytes: Uint8Array): Promise<number> {
    const started = performance.now();
    try {
      const { bytesWritten } = await this.#handle.write(bytes, 0, bytes.length, offset);
      this.#judge(bytesWritten / (performance.now() - started));
      return bytesWritten;
    } catch (error) {
      // Not these pages (memory that was not mapped as such), or not on this file system after all.
      if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw error;
      this.#usable = false;
      return 0;
    }
  }

  close(): Promise<void> {
    return this.#handle.close();
  }

  #judge(bytesPerMs: number): void {
    this.#bestBytesPerMs = Math.max(this.#bestBytesPerMs, bytesPerMs);
    this.#trials += 1;
    if (this.#trials < TRIALS) return;
    if (this.#bestBytesPerMs * 1000 < SLOWEST_BYTES_PER_SECOND) this.#usable = false;
    this.#trials = 0;
    this.#bestBytesPerMs = 0;
  }
}
