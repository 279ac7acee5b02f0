import type { FileHandle } from 'node:fs/promises';
import { Failure } from '../api/failure.ts';

/** 64 TiB: no cloud offers a larger disk, so a larger number in a header is a mistake or an attack. */
const MAX_VIRTUAL_SIZE = 64 * 2 ** 40;

/** A span of bytes that parsers look into: a file, or one member of an archive. All reads are exact and bounded. */
export interface Window {
  readonly size: number;
  /** @throws Failure CorruptImage when the span ends before. */
  read(offset: number, length: number): Promise<Buffer>;
}

export function fileWindow(handle: FileHandle, size: number): Window {
  return {
    size,
    async read(offset, length) {
      requireInside(offset, length, size, 'a header of the image');
      const buffer = Buffer.alloc(length);
      let filled = 0;
      while (filled < length) {
        const { bytesRead } = await handle.read(buffer, filled, length - filled, offset + filled);
        if (bytesRead === 0) throw corrupt(`the file ended at byte ${offset + filled} while it was read`);
        filled += bytesRead;
      }
      return buffer;
    },
  };
}

export function bufferWindow(bytes: Uint8Array): Window {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return {
    size: buffer.length,
    read: async (offset, length) => {
      requireInside(offset, length, buffer.length, 'a header of the image');
      return buffer.subarray(offset, offset + length);
    },
  };
}

/** The part of a window that begins at `offset`, seen as a file of its own. */
export function subWindow(outer: Window, offset: number, size: number): Window {
  requireInside(offset, size, outer.size, 'a member of the archive');
  return {
    size,
    read: async (at, length) => {
      requireInside(at, length, size, 'a header of the image');
      return outer.read(offset + at, length);
    },
  };
}

/** @throws Failure CorruptImage: offsets in headers are an attacker's numbers, nothing is read or allocated before this. */
export function requireInside(offset: number, length: number, size: number, what: string): void {
  if (offset >= 0 && length >= 0 && offset + length <= size) return;
  throw corrupt(
    `${what} lies at bytes ${offset} to ${offset + length}, but the file has ${size}: it is cut short or damaged`,
  );
}

/** @throws Failure CorruptImage for an empty disk, UnsafeImage for an absurd one. */
export function requireVirtualSize(bytes: number, format: string): number {
  if (bytes <= 0) throw corrupt(`the ${format} header says that the disk has no bytes`);
  if (bytes > MAX_VIRTUAL_SIZE) {
    throw unsafe(`the ${format} header asks for a disk of ${bytes} bytes; more than 64 TiB is refused as absurd`);
  }
  return bytes;
}

export function unsafe(message: string): Failure {
  return new Failure('UnsafeImage', message);
}

export function corrupt(message: string): Failure {
  return new Failure('CorruptImage', message);
}

/** 64-bit numbers as JavaScript's: above 2^53 they lose their last digits, but stay far beyond every bound they are compared with. */
export function u64be(bytes: Buffer, offset: number): number {
  return Number(bytes.readBigUInt64BE(offset));
}

export function u64le(bytes: Buffer, offset: number): number {
  return Number(bytes.readBigUInt64LE(offset));
}
