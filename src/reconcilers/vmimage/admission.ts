import { open, readFile, rm } from 'node:fs/promises';
import type { Algorithm } from '../../api/digest.ts';
import { Failure } from '../../api/failure.ts';
import type { Blob, Cache } from '../../cache/cache.ts';
import type { Compression } from '../../images/format.ts';
import type { Images } from '../../images/images.ts';
import { HEAD_BYTES } from '../../images/recognise.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { FetchResult } from '../../transfers/transfers.ts';
import { allocatedBytes, firstBid, keepAhead } from './growing.ts';
import type { Part } from './plan.ts';
import { isContentOf } from './verdicts.ts';

const MiB = 2 ** 20;
/** By then whoever asked for a blob has taken it, or has gone. */
export const HAND_OVER_MS = 60_000;

/** What looking into a file tells of it. */
export type Looked = Pick<Blob, 'compression' | 'format' | 'virtualSize'>;

interface AdmissionDeps {
  cache: Cache;
  images: Images;
  clock: Clock;
}

/** A fetched file, whose declared digests are proven. */
export interface Arrival {
  part: Part;
  fetched: FetchResult;
  /** The mirror it came from. */
  source: string;
  /** Begun when the proof came; otherwise the file is looked into now. */
  inspection: Promise<Looked> | undefined;
  maxBytes: number;
}

/** The proven file becomes a blob; whether it may be used as an image is a question of its own, asked before anyone else can. */
export async function admit(arrival: Arrival, deps: AdmissionDeps, signal: AbortSignal): Promise<Blob> {
  const { part, fetched, source } = arrival;
  const { cache, clock } = deps;
  const { sha256 } = fetched.digests;
  if (sha256 === undefined) throw new Failure('InternalError', 'the transfer told no sha256');
  if (Object.keys(part.declared).length === 0 && Object.keys(part.content).length > 0) {
    return admitContent(arrival, deps, signal);
  }
  let inspected: Partial<Blob> = {};
  let verdict: Failure | undefined;
  try {
    inspected = await (arrival.inspection ?? lookInto(part, fetched.path, deps, signal));
  } catch (error) {
    verdict = Failure.from(error);
  }
  keepForAskers(part, sha256, deps);
  const blob = await cache.admit(
    fetched.path,
    sha256,
    {
      digests: fetched.digests,
      size: fetched.size,
      source,
      fetchedAt: new Date(clock.now()).toISOString(),
      ...inspected,
    },
    part.scope,
  );
  await cache.dropPartial(part.key);
  // The bytes are what was promised, so they stay; but they are no image that may be used.
  if (verdict !== undefined) throw verdict;
  return blob;
}

/** Only the digest of the content is declared: the file proves nothing until it is unpacked, so only the result is admitted. */
async function admitContent(arrival: Arrival, deps: AdmissionDeps, signal: AbortSignal): Promise<Blob> {
  const { part, fetched, source, maxBytes } = arrival;
  const { cache, images, clock } = deps;
  const compression = await compressionOf(part, fetched.path, deps);
  let path = fetched.path;
  let { digests, size } = fetched;
  if (compression !== 'None') {
    const besideBytes = Math.max(size, await allocatedBytes(fetched.path));
    const bounds = { quotaBytes: cache.stats().quotaBytes, besideBytes };
    const reservation = await cache.reserve(firstBid(Math.max(size, MiB), bounds), part.key);
    path = cache.scratch('.content');
    reservation.cover(path);
    const space = keepAhead(reservation, [path], clock, bounds);
    try {
      const produced = await images.decompress(
        {
          from: fetched.path,
          to: path,
          compression,
          maxOutputBytes: maxBytes,
          digests: Object.keys(part.content) as Algorithm[],
        },
        AbortSignal.any([signal, space.signal]),
      );
      await space.complete(signal);
      ({ digests, size } = produced);
    } catch (error) {
      await rm(path, { force: true });
      throw space.signal.aborted ? space.signal.reason : error;
    } finally {
      space.stop();
      reservation.release();
    }
  }
  try {
    if (!isContentOf(part, digests, source)) throw new Failure('InternalError', 'a digest of the content is missing');
  } catch (error) {
    await rm(path, { force: true });
    await cache.dropPartial(part.key);
    throw error;
  }
  const sha256 = digests.sha256 ?? '';
  const inspected = await lookInto(keptOf(part), path, deps, signal).catch(async (error: unknown) => {
    if (path !== fetched.path) await rm(path, { force: true });
    throw error;
  });
  keepForAskers(part, sha256, deps);
  const blob = await cache.admit(
    path,
    sha256,
    { digests, size, source, fetchedAt: new Date(clock.now()).toISOString(), ...inspected },
    part.scope,
  );
  await cache.dropPartial(part.key);
  return blob;
}

/** A blob of the cache with all that looking into it tells; looked into once. */
export async function inspected(part: Part, blob: Blob, deps: AdmissionDeps, signal: AbortSignal): Promise<Blob> {
  if (isLookedInto(part, blob)) return blob;
  const found = await lookInto(keptOf(part), blob.path, deps, signal);
  await deps.cache.annotate(blob.sha256, found);
  return { ...blob, ...found };
}

/** Whether all that this part needs to know of the blob is known. */
export function isLookedInto(part: Part, blob: Blob): boolean {
  if (blob.compression === undefined) return false;
  return (
    blob.format !== undefined || part.role !== 'Disk' || part.metafile === true || packingOf(part, blob) !== 'None'
  );
}

/**
 * What has to be unpacked of the blob for this part. The blob's own compression is what its bytes say, whoever asked first: it counts only
 * for a part that leaves the question to the bytes. Of a part that is declared by its content alone, the content is what is kept.
 */
export function packingOf(part: Part, { compression = 'None' }: Pick<Blob, 'compression'>): Compression {
  const { compression: said } = keptOf(part);
  return said === 'Auto' ? compression : said;
}

/**
 * What the bytes are compressed with and, where nothing of that is to be unpacked, the facts of a safe image.
 * @throws Failure UnsafeImage | CorruptImage | FormatMismatch | NotAnImage | ToolMissing
 */
export async function lookInto(
  part: Part,
  path: string,
  { images }: { images: Images },
  signal: AbortSignal,
): Promise<Looked> {
  const { compression } = images.recognise(await headOf(path));
  const unpacked = part.compression === 'Auto' ? compression : part.compression;
  if (part.metafile === true || unpacked !== 'None') return { compression };
  const format = part.role === 'Disk' ? part.format : 'Raw';
  const checksumDeclared = Object.keys(part.declared).length + Object.keys(part.content).length > 0;
  const facts = await images.inspect(path, { format, role: part.role, checksumDeclared }, signal);
  return part.role === 'Disk' ? { compression, format: facts.format, virtualSize: facts.virtualSize } : { compression };
}

async function compressionOf(part: Part, path: string, { images }: { images: Images }): Promise<Compression> {
  return part.compression === 'Auto' ? images.recognise(await headOf(path)).compression : part.compression;
}

/**
 * The part as it lies in the cache. `compression: Gzip` is said of the file as published; of a part that is declared by its content
 * alone, what is kept is the content.
 */
function keptOf(part: Part): Part {
  return Object.keys(part.declared).length === 0 && Object.keys(part.content).length > 0
    ? { ...part, compression: 'None' }
    : part;
}

/** Until those who asked have pinned it, a new blob is nobody's, and the next who wants room would evict it. */
function keepForAskers(part: Part, sha256: string, { cache, clock }: AdmissionDeps): void {
  cache.pin(sha256, part.key);
  clock.after(HAND_OVER_MS, () => cache.unpinAll(part.key));
}

/** The first bytes of a file, as many as recognition needs. */
export async function headOf(path: string): Promise<Uint8Array> {
  await using file = await open(path);
  const { bytesRead, buffer } = await file.read(Buffer.alloc(HEAD_BYTES), 0, HEAD_BYTES, 0);
  return buffer.subarray(0, bytesRead);
}

/** Reads a small blob whole. */
export async function contentOf(blob: Blob, maxBytes: number): Promise<Uint8Array> {
  if (blob.size > maxBytes)
    throw new Failure('TooLarge', `the file has ${blob.size} bytes; at most ${maxBytes} are read`);
  return readFile(blob.path);
}
