import { createHash } from 'node:crypto';
import { open } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Algorithm, Digests } from '../api/digest.ts';
import { Failure } from '../api/failure.ts';
import type { BlobIndex } from './blob-index.ts';
import type { Blobs } from './blobs.ts';
import type { Database } from './database.ts';
import { isMissing } from './files.ts';
import type { Layout } from './layout.ts';
import type { CacheLog } from './log.ts';
import type { Residents } from './residents.ts';

/** A proof is good for this long. */
export const PROOF_KEPT_MS = 7 * 24 * 3600 * 1000;

const READ_BYTES = 2 ** 20;

/** Hashes a complete file, elsewhere or slowly. */
export type DigestFile = (path: string, algorithms: readonly Algorithm[], signal: AbortSignal) => Promise<Digests>;

/**
 * Reads a blob again and compares it with its name: disks rot, and size and mtime do not tell. One that does not compare is dropped,
 * and fetched again when it is needed.
 */
export async function scrubNext(
  parts: {
    db: Database;
    index: BlobIndex;
    residents: Residents;
    blobs: Blobs;
    layout: Layout;
    log: CacheLog;
    now(): number;
    digest: DigestFile;
  },
  signal: AbortSignal,
): Promise<{ sha256: string; intact: boolean } | undefined> {
  const { db, index, residents, blobs, layout, log, now, digest } = parts;
  for (;;) {
    signal.throwIfAborted();
    const sha256 = index.leastProven(now() - PROOF_KEPT_MS);
    if (sha256 === undefined) return undefined;
    const resident = residents.get(sha256);
    let found: string | undefined;
    if (resident !== undefined) {
      try {
        found = (await digest(layout.blob(sha256), ['sha256'], signal)).sha256;
      } catch (error) {
        signal.throwIfAborted();
        if (!isMissing(error) && !isMissing((error as Error).cause)) throw error;
      }
    }
    if (resident === undefined || residents.get(sha256) !== resident) {
      // Evicted, before or meanwhile: its row is a remainder, or another's.
      if (residents.get(sha256) === undefined) db.transaction(() => index.remove(sha256));
      continue;
    }
    if (found === sha256) {
      db.transaction(() => index.recordProof(sha256, now()));
      return { sha256, intact: true };
    }
    log.error(
      { sha256, found, path: layout.blob(sha256) },
      'a blob is damaged (its bytes no longer have its digest): it is dropped and fetched again when it is needed; look at the disk',
    );
    await blobs.drop(sha256);
    return { sha256, intact: false };
  }
}

/**
 * Reads no faster than `bytesPerSecond`, 1 MiB at a time: hashing that much takes about a millisecond, and the event loop turns in
 * between.
 */
export function pacedDigest(bytesPerSecond: number): DigestFile {
  return async (path, algorithms, signal) => {
    const hashes = algorithms.map((algorithm) => ({ algorithm, hash: createHash(algorithm) }));
    const buffer = Buffer.allocUnsafe(READ_BYTES);
    const pauseMs = (READ_BYTES / bytesPerSecond) * 1000;
    const file = await open(path, 'r');
    try {
      for (;;) {
        signal.throwIfAborted();
        const { bytesRead } = await file.read(buffer, 0, READ_BYTES);
        if (bytesRead === 0) break;
        for (const { hash } of hashes) hash.update(buffer.subarray(0, bytesRead));
        if (bytesRead === READ_BYTES) await sleep(pauseMs, undefined, { signal });
      }
    } catch (error) {
      throw Failure.from(error);
    } finally {
      await file.close();
    }
    return Object.fromEntries(hashes.map(({ algorithm, hash }) => [algorithm, hash.digest('hex')]));
  };
}
