import { createHash, type Hash } from 'node:crypto';
import { ftruncateSync, writeSync } from 'node:fs';
import type { Algorithm, Digests } from '../api/digest.ts';
import { Failure } from '../api/failure.ts';

/** Hashing is half as fast in pieces of 64 KiB as in pieces of 1 MiB. */
export const CHUNK_BYTES = 2 ** 20;
/** File systems allocate in blocks of 4 KiB: shorter runs of zeros save nothing. */
const HOLE_BYTES = 4096;
const ZEROS = Buffer.alloc(CHUNK_BYTES);

/**
 * Writes a file without its zeros: every aligned 4 KiB of them become a hole. Digests are of all bytes, in the same pass.
 * It blocks while it writes, so it is for a child process only.
 */
export class SparseWriter {
  readonly #fd: number | undefined;
  readonly #limit: number;
  readonly #hashes: [Algorithm, Hash][];
  readonly #chunk = Buffer.alloc(CHUNK_BYTES);
  #filled = 0;
  #offset = 0;

  /** Without `fd` nothing is written, only hashed. More than `limit` bytes are a `TooLarge` failure. */
  constructor(fd: number | undefined, limit: number, algorithms: readonly Algorithm[]) {
    this.#fd = fd;
    this.#limit = limit;
    this.#hashes = algorithms.map((algorithm) => [algorithm, createHash(algorithm)]);
  }

  get size(): number {
    return this.#offset + this.#filled;
  }

  /** @throws Failure TooLarge, before a byte beyond the limit is written. */
  write(bytes: Buffer): void {
    if (this.size + bytes.length > this.#limit) {
      throw new Failure('TooLarge', `the unpacked image has more than the ${this.#limit} bytes that it may have`);
    }
    let taken = 0;
    while (taken < bytes.length) {
      const length = Math.min(bytes.length - taken, CHUNK_BYTES - this.#filled);
      bytes.copy(this.#chunk, this.#filled, taken, taken + length);
      this.#filled += length;
      taken += length;
      if (this.#filled === CHUNK_BYTES) this.#flush();
    }
  }

  /** As many zeros. */
  skip(length: number): void {
    for (let rest = length; rest > 0; rest -= CHUNK_BYTES) this.write(ZEROS.subarray(0, Math.min(rest, CHUNK_BYTES)));
  }

  finish(): { size: number; digests: Digests } {
    this.#flush();
    if (this.#fd !== undefined) ftruncateSync(this.#fd, this.#offset);
    const digests: Digests = {};
    for (const [algorithm, hash] of this.#hashes) digests[algorithm] = hash.digest('hex');
    return { size: this.#offset, digests };
  }

  #flush(): void {
    const chunk = this.#chunk.subarray(0, this.#filled);
    for (const [, hash] of this.#hashes) hash.update(chunk);
    if (this.#fd !== undefined) this.#writeRuns(this.#fd, chunk);
    this.#offset += chunk.length;
    this.#filled = 0;
  }

  #writeRuns(fd: number, chunk: Buffer): void {
    let start = -1;
    for (let block = 0; block < chunk.length; block += HOLE_BYTES) {
      const end = Math.min(block + HOLE_BYTES, chunk.length);
      const zero = chunk.compare(ZEROS, 0, end - block, block, end) === 0;
      if (!zero && start < 0) start = block;
      if (zero && start >= 0) {
        writeFully(fd, chunk.subarray(start, block), this.#offset + start);
        start = -1;
      }
    }
    if (start >= 0) writeFully(fd, chunk.subarray(start), this.#offset + start);
  }
}

function writeFully(fd: number, bytes: Buffer, position: number): void {
  for (let written = 0; written < bytes.length; ) {
    written += writeSync(fd, bytes, written, bytes.length - written, position + written);
  }
}
