import type { Algorithm } from '../../api/digest.ts';
import { Failure } from '../../api/failure.ts';
import type { Blob, Cache } from '../../cache/cache.ts';
import type { Logger } from '../../telemetry/log.ts';
import type { Transfers } from '../../transfers/transfers.ts';

interface ReadingDeps {
  cache: Cache;
  transfers: Transfers;
  log: Logger;
}

/** The largest image, read slowly. */
const DIGEST_MS = 3_600_000;

/**
 * Whether a blob's bytes still are what was proven. A disk that rots changes neither size nor date: only reading all of it again tells.
 * What is damaged is dropped, and fetched again when it is needed.
 */
export async function isIntact(
  blob: Blob,
  { cache, transfers, log }: ReadingDeps,
  signal: AbortSignal,
): Promise<boolean> {
  const { sha256 } = await transfers.digest(blob.path, ['sha256'], signal);
  if (sha256 === blob.sha256) return true;
  await dropDamaged(blob, sha256, { cache, log });
  return false;
}

async function dropDamaged(
  { sha256, path }: Blob,
  found: string | undefined,
  { cache, log }: Pick<ReadingDeps, 'cache' | 'log'>,
): Promise<void> {
  log.error({ sha256, found, path }, 'a blob is damaged: it is dropped; look at the disk');
  await cache.drop(sha256);
}

/**
 * The blob with these digests, too: those that nobody wanted when its bytes came are computed, and remembered. Undefined where the
 * bytes are not what was proven then: it is dropped.
 */
export async function withDigests(
  blob: Blob,
  algorithms: readonly Algorithm[],
  { cache, transfers, log }: ReadingDeps,
  signal: AbortSignal,
): Promise<Blob | undefined> {
  const missing = algorithms.filter((name) => blob.digests[name] === undefined);
  if (missing.length === 0) return blob;
  const found = await transfers.digest(blob.path, [...new Set<Algorithm>(['sha256', ...missing])], signal);
  if (found.sha256 !== blob.sha256) {
    await dropDamaged(blob, found.sha256, { cache, log });
    return undefined;
  }
  const digests = { ...blob.digests, ...found };
  await cache.annotate(blob.sha256, { digests });
  return { ...blob, digests };
}

/** What is told of a damaged blob; the next try fetches it. */
export function damaged(what: string, cause?: unknown): Failure {
  return new Failure(
    'Conflict',
    `${what} in the cache is not what it was (does the disk have errors?): it was dropped, and is fetched again`,
    cause === undefined ? {} : { cause },
  );
}

/**
 * A digest that was not wanted when the bytes came. It is believed only together with the blob's own name: of bytes that have rotted
 * since, the cloud's hash and ours would agree, and nothing else would tell that they are not what was proven.
 * @throws Failure CloudDigestMismatch
 */
export async function digestOf(
  blob: Blob,
  algorithm: Algorithm,
  { cache, transfers }: Pick<ReadingDeps, 'cache' | 'transfers'>,
): Promise<string> {
  const wanted = [...new Set([algorithm, 'sha256'] as const)];
  const digests = await transfers.digest(blob.path, wanted, AbortSignal.timeout(DIGEST_MS));
  if (digests.sha256 !== blob.sha256)
    throw new Failure(
      'CloudDigestMismatch',
      `the bytes in the cache have sha256 ${digests.sha256}, and were proven as ${blob.sha256}`,
    );
  const found = digests[algorithm] ?? '';
  await cache.annotate(blob.sha256, { digests: { ...blob.digests, [algorithm]: found } });
  return found;
}
