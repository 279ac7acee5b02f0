import { readSync } from 'node:fs';
import { Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { Failure } from '../api/failure.ts';

const CHUNK_BYTES = 2 ** 20;
const INPUT_BYTES = 256 * 1024;

/**
 * Gunzips all members of a file (RFC 1952 section 2.2). node:zlib stops silently at the first NUL after a member and forgets
 * what follows; so the rest is read here: NULs to the end are padding (tapes and block devices leave them), anything else is
 * an error, never dropped.
 * @throws Failure CorruptImage
 */
export async function gunzip(fd: number, size: number, take: (bytes: Buffer, consumed: number) => void): Promise<void> {
  // Not a ReadStream: destroying one closes the descriptor, whatever `autoClose` says.
  const source = Readable.from(chunksOf(fd));
  const decoder = createGunzip({ chunkSize: CHUNK_BYTES });
  source.on('error', (error) => decoder.destroy(error));
  source.pipe(decoder);
  try {
    for await (const chunk of decoder as AsyncIterable<Buffer>) take(chunk, decoder.bytesWritten);
  } catch (error) {
    if (error instanceof Error && (error as NodeJS.ErrnoException).code?.startsWith('Z_')) {
      throw new Failure(
        'CorruptImage',
        `the gzip file is damaged, cut short or followed by other data (${error.message})`,
        { cause: error },
      );
    }
    throw error;
  } finally {
    source.unpipe(decoder);
    source.destroy();
  }
  requirePadding(fd, decoder.bytesWritten, size);
}

function* chunksOf(fd: number): Generator<Buffer> {
  for (let offset = 0; ; ) {
    const chunk = Buffer.allocUnsafe(INPUT_BYTES);
    const read = readSync(fd, chunk, 0, INPUT_BYTES, offset);
    if (read === 0) return;
    yield chunk.subarray(0, read);
    offset += read;
  }
}

function requirePadding(fd: number, from: number, size: number): void {
  const chunk = Buffer.alloc(CHUNK_BYTES);
  for (let offset = from; offset < size; ) {
    const read = readSync(fd, chunk, 0, CHUNK_BYTES, offset);
    if (read === 0) return;
    if (chunk.subarray(0, read).some((byte) => byte !== 0)) {
      throw new Failure('CorruptImage', `the gzip file is followed by other data after byte ${from}`);
    }
    offset += read;
  }
}
