import { createHash, type Hash } from 'node:crypto';
import type { Algorithm } from '../api/digest.ts';
import { Failure } from '../api/failure.ts';
import type { Generation } from './generation.ts';

const BLOCK_BYTES = 512 * 1024;

/**
 * One digest of a generation, computed while it is written. Bytes that arrive in order are hashed while they are still in the
 * processor's cache. What it has not seen (the beginning of a resumed download: Node cannot save a hash's state; bytes out of
 * order) it reads from the file, beside the reception, until it has caught up.
 */
export class PrimaryHash {
  readonly algorithm: Algorithm;
  readonly #generation: Generation;
  readonly #hash: Hash;
  #position = 0;
  #reading: Promise<void> | undefined;
  #stopped = false;

  constructor(algorithm: Algorithm, generation: Generation) {
    this.algorithm = algorithm;
    this.#generation = generation;
    this.#hash = createHash(algorithm);
    if (generation.watermark > 0) this.#catchUp();
  }

  /** Call it before the write of the same bytes. */
  feed(offset: number, bytes: Uint8Array): void {
    if (this.#reading !== undefined || offset !== this.#position) return;
    this.#hash.update(bytes);
    this.#position += bytes.length;
  }

  /** Call it after a write. */
  written(): void {
    if (this.#position < this.#generation.watermark && this.#reading === undefined) this.#catchUp();
  }

  /** The hex digest of everything, once everything is written. Call it once. */
  async digest(size: number): Promise<string> {
    while (this.#position < size) {
      if (this.#stopped) throw new Failure('Aborted', 'stopped');
      this.#catchUp();
      await this.#reading;
    }
    return this.#hash.digest('hex');
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#reading?.catch(() => {});
  }

  #catchUp(): void {
    if (this.#reading !== undefined) return;
    this.#reading = this.#read().finally(() => {
      this.#reading = undefined;
    });
    this.#reading.catch(() => {}); // told by digest(), which reads the same bytes again
  }

  async #read(): Promise<void> {
    const block = Buffer.allocUnsafeSlow(BLOCK_BYTES);
    while (this.#position < this.#generation.watermark && !this.#stopped) {
      const count = await this.#generation.read(block, block.length, this.#position);
      if (count === 0) throw new Error(`${this.#generation.path} is shorter than its watermark`);
      this.#hash.update(block.subarray(0, count));
      this.#position += count;
    }
  }
}
