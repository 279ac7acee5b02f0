import type { Algorithm } from '../../api/digest.ts';
import { Failure } from '../../api/failure.ts';
import type { Blob } from '../../cache/cache.ts';
import type { Deps } from '../deps.ts';

/** The largest image, read slowly. */
const DIGEST_MS = 3_600_000;

/**
 * Whether a blob's bytes still are what was proven. A disk that rots changes neither size nor date: only reading all of it again tells.
 * What is damaged is dropped, and fetched again when it is needed.
 */
export async function isIntact(
  blob: Blob,
  { cache, transfers, log }: Pick<Deps, 'cache' | 'transfers' | 'log'>,
  signal: AbortSignal,
): Promise<boolean> {
  const { sha256 } = await transfers.digest(blob.path, ['sha256'], signal);
  if (sha256 === blob.sha256) return true;
  log.error(
    { sha256: blob.sha256, found: sha256, path: blob.path },
    'a blob is damaged: it is dropped; look at the disk',
  );
  await cache.drop(blob.sha256);
  return false;
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
  { cache, transfers }: Pick<Deps, 'cache' | 'transfers'>,
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
