import { rm } from 'node:fs/promises';
import type { Algorithm } from '../../api/digest.ts';
import { Failure } from '../../api/failure.ts';
import type { Blob } from '../../cache/cache.ts';
import type { Format } from '../../images/format.ts';
import { archiveBeside } from '../../images/images.ts';
import type { Deps } from '../deps.ts';
import { HAND_OVER_MS, headOf, inspected, packingOf } from './admission.ts';
import { allocatedBytes, firstBid, keepAhead } from './growing.ts';
import { damaged, isIntact, withDigests } from './intact.ts';
import type { Part } from './plan.ts';
import { spaceFor } from './room.ts';
import { isContentOf, ownSource } from './verdicts.ts';

/** What is sent to a site that takes these formats. */
export interface Prepared {
  blob: Blob;
  format: Format;
  /** How it was made of the published file; part of the registration's id. */
  transform: string;
}

export const AS_PUBLISHED = 'as-published';

/** Raw bytes are raw bytes: an ISO image is a disk that can be read, and nothing has to be converted between the two. */
function accepts(formats: readonly Format[], format: Format): Format | undefined {
  if (formats.includes(format)) return format;
  if (format === 'Iso' && formats.includes('Raw')) return 'Raw';
  return undefined;
}

type PrepareDeps = Pick<Deps, 'cache' | 'images'>;
type WorkDeps = PrepareDeps & Pick<Deps, 'settings' | 'clock' | 'metrics' | 'transfers' | 'log'>;

/** What was proven so recently is not read once more before something is made of it. */
const FRESH_MS = 3_600_000;

/**
 * What the site gets, if all of it is in the cache already.
 * @throws Failure DigestMismatch | FormatMismatch | ToolMissing
 */
export async function prepared(
  part: Part,
  published: Blob,
  formats: readonly Format[],
  deps: PrepareDeps,
): Promise<Prepared | undefined> {
  const steps: string[] = [];
  let blob = published;
  const compression = packingOf(part, published);
  if (compression !== 'None') {
    const step = await unpackId(part, compression, deps);
    const unpacked = await deps.cache.findTransform(blob.sha256, step);
    if (unpacked === undefined) return undefined;
    steps.push(step);
    blob = unpacked;
  }
  // Each image has it compared with what that image declares: it may have been unpacked for another.
  if (!isContentOf(part, blob.digests, nameOf(part, published))) return undefined;
  if (part.role !== 'Disk') return { blob, format: 'Raw', transform: steps.join('+') || AS_PUBLISHED };
  if (blob.format === undefined) return undefined;
  checkFormat(part, blob.format);
  const fits = accepts(formats, blob.format);
  if (fits !== undefined) return { blob, format: fits, transform: steps.join('+') || AS_PUBLISHED };
  const toFormat = targetOf(formats);
  const step = await deps.images.transformId({ fromFormat: blob.format, toFormat });
  const converted = await deps.cache.findTransform(blob.sha256, step);
  if (converted === undefined) return undefined;
  return { blob: converted, format: toFormat, transform: [...steps, step].join('+') };
}

/** The format in which a growing download may be sent as it is; undefined when it has to be complete first. */
export function sendableAsPublished(
  part: Part,
  format: Format | 'Unknown' | undefined,
  formats: readonly Format[],
): Format | undefined {
  if (format === undefined || format === 'Unknown' || part.member !== undefined) return undefined;
  if (part.format !== 'Auto' && part.format !== format) return undefined;
  return accepts(formats, format);
}

/** The job that prepares. */
interface Preparing {
  /** Holds the pins of all that is made until whoever asked has taken it: it would be the first to be evicted for others. */
  holder: string;
  progress(bytes: number, totalBytes?: number): void;
  signal: AbortSignal;
}

/**
 * Makes what `prepared` did not find: unpacks, checks the content's digest, converts. Runs as a job. Who takes the result pins it, and
 * then unpins all of the job's holder.
 */
export async function prepare(
  part: Part,
  published: Blob,
  formats: readonly Format[],
  deps: WorkDeps,
  job: Preparing,
): Promise<Prepared> {
  const { cache, clock } = deps;
  // What was made of it is found by it.
  cache.pin(published.sha256, job.holder);
  try {
    const content = await unpack(part, published, deps, job);
    if (part.role === 'Disk' && content.format !== undefined) {
      checkFormat(part, content.format);
      if (accepts(formats, content.format) === undefined)
        await convert(published, content, targetOf(formats), deps, job);
    }
    // Its digests may have been completed.
    const known = await cache.get(published.sha256);
    const result = known === undefined ? undefined : await prepared(part, known, formats, deps);
    if (result === undefined) throw new Failure('Conflict', `${part.field}: the prepared image was dropped meanwhile`);
    clock.after(HAND_OVER_MS, () => cache.unpinAll(job.holder));
    return result;
  } catch (error) {
    cache.unpinAll(job.holder);
    throw error;
  }
}

async function unpack(part: Part, published: Blob, deps: WorkDeps, job: Preparing): Promise<Blob> {
  const { cache, images } = deps;
  const { holder, progress } = job;
  const compression = packingOf(part, published);
  if (compression === 'None') return compared(part, published, published, deps, job);
  const step = await unpackId(part, compression, deps);
  const known = await cache.findTransform(published.sha256, step);
  if (known !== undefined) return compared(part, known, published, deps, job);
  // What comes out is not known before it has come out; twice the packed size is a fair first bid, where there can be so much.
  return transform(
    'Decompress',
    published,
    published,
    Math.max(2 * published.size, 2 ** 20),
    deps,
    job.signal,
    async (to, limited, complete) => {
      const produced = await images.decompress(
        {
          from: published.path,
          to,
          compression,
          maxOutputBytes: deps.settings.maxImageBytes,
          digests: [...new Set<Algorithm>(['sha256', ...(Object.keys(part.content) as Algorithm[])])],
          progress,
          ...(part.member === undefined ? {} : { member: part.member }),
        },
        limited,
      );
      await complete();
      isContentOf(part, produced.digests, nameOf(part, published));
      const { compression: inner } = images.recognise(await headOf(to));
      if (inner !== 'None')
        throw new Failure(
          'NotSupported',
          `${part.field}: ${nameOf(part, published)} is compressed twice (${compression}, then ${inner}): publish it with one compression`,
        );
      const facts =
        part.role === 'Disk'
          ? await images.inspect(to, { format: part.format, role: part.role, checksumDeclared: true }, limited)
          : undefined;
      cache.pin(produced.digests.sha256 ?? '', holder);
      return cache.admitTransform(published.sha256, step, to, produced.digests.sha256 ?? '', {
        digests: produced.digests,
        size: produced.size,
        compression: 'None',
        fetchedAt: published.fetchedAt,
        ...(facts === undefined ? {} : { format: facts.format, virtualSize: facts.virtualSize }),
      });
    },
  );
}

/** Content that is here already, compared with all that this image declares of it. */
async function compared(
  part: Part,
  content: Blob,
  published: Blob,
  deps: WorkDeps,
  { holder, signal }: Preparing,
): Promise<Blob> {
  deps.cache.pin(content.sha256, holder);
  const known = await withDigests(content, Object.keys(part.content) as Algorithm[], deps, signal);
  if (known === undefined) throw damaged('the image');
  isContentOf(part, known.digests, nameOf(part, published));
  // Unpacked for a kernel, nobody has looked at it as a disk.
  return inspected({ ...part, compression: 'None' }, known, deps, signal);
}

async function convert(
  published: Blob,
  content: Blob,
  toFormat: Format,
  deps: WorkDeps,
  job: Preparing,
): Promise<void> {
  const { cache, images } = deps;
  const { holder, progress } = job;
  const fromFormat = content.format ?? 'Raw';
  const step = await images.transformId({ fromFormat, toFormat });
  if ((await cache.findTransform(content.sha256, step)) !== undefined) return;
  // Metadata of every format stays below a few percent of the disk it describes; sparse disks take less than this.
  const bound = Math.ceil((content.virtualSize ?? content.size) * 1.05) + 64 * 2 ** 20;
  const bid = Math.min(bound, Math.max(2 * content.size, 64 * 2 ** 20));
  await transform('Convert', published, content, bid, deps, job.signal, async (to, limited, complete) => {
    const produced = await images.convert(
      { from: content.path, fromFormat, to, toFormat, limits: { maxOutputBytes: bound }, progress },
      limited,
    );
    await complete();
    cache.pin(produced.digests.sha256 ?? '', holder);
    return cache.admitTransform(content.sha256, step, to, produced.digests.sha256 ?? '', {
      digests: produced.digests,
      size: produced.size,
      compression: 'None',
      format: toFormat,
      fetchedAt: content.fetchedAt,
      ...(content.virtualSize === undefined ? {} : { virtualSize: content.virtualSize }),
    });
  });
}

/**
 * Makes one new file of a blob: space is set aside and kept ahead of what is written (`make` says when that is complete), the source
 * stays while it is read (a transform is known by it), and nothing is left when it fails. The space is asked for in the name of what
 * was published, by which the row that waits for it is found again when there is some (room.ts).
 */
async function transform(
  kind: 'Decompress' | 'Convert',
  published: Blob,
  source: Blob,
  bid: number,
  deps: WorkDeps,
  signal: AbortSignal,
  make: (to: string, signal: AbortSignal, complete: () => Promise<void>) => Promise<Blob>,
): Promise<Blob> {
  const { cache, clock, metrics } = deps;
  // What was published stays as well: what is made of it is found by it.
  const stay = [...new Set([published.path, source.path])];
  const besideBytes = (await Promise.all(stay.map(allocatedBytes))).reduce((sum, each) => sum + each, 0);
  const bounds = { quotaBytes: cache.stats().quotaBytes, besideBytes };
  const reservation = await cache.reserve(firstBid(bid, bounds), spaceFor(published.sha256));
  const to = cache.scratch(`.${kind.toLowerCase()}`);
  const written = [to, archiveBeside(to)];
  for (const path of written) reservation.cover(path);
  cache.pin(source.sha256, to);
  const space = keepAhead(reservation, written, clock, bounds);
  const started = clock.now();
  try {
    // What is made of bytes that have rotted would have a digest of its own, and nothing would tell.
    const old = started - Date.parse(source.fetchedAt) > FRESH_MS;
    if (old && !(await isIntact(source, deps, signal))) throw damaged('the image');
    const made = await make(to, AbortSignal.any([signal, space.signal]), () => space.complete(signal));
    metrics.transferred({ step: kind, bytes: made.size, seconds: (clock.now() - started) / 1000 });
    return made;
  } catch (error) {
    await rm(to, { force: true });
    // Ended for want of space, which is what has to be told.
    throw space.signal.aborted ? space.signal.reason : error;
  } finally {
    space.stop();
    cache.unpinAll(to);
    reservation.release();
  }
}

async function unpackId(part: Part, compression: NonNullable<Blob['compression']>, deps: PrepareDeps): Promise<string> {
  const id = await deps.images.transformId({ compression });
  return part.member === undefined ? id : `${id}:${part.member}`;
}

/** Nothing is ever converted to an OVA: it is a package for people, not a disk for machines. */
function targetOf(formats: readonly Format[]): Format {
  const target = formats.find((format) => format !== 'Ova' && format !== 'Iso');
  if (target === undefined)
    throw new Failure(
      'FormatNotAccepted',
      `the site accepts ${formats.join(', ')} only, and an image cannot be converted to that; add Raw or Qcow2 to its acceptedFormats`,
    );
  return target;
}

function checkFormat(part: Part, format: Format): void {
  if (part.format === 'Auto' || part.format === format || (part.format === 'Raw' && format === 'Iso')) return;
  throw new Failure(
    'FormatMismatch',
    `${part.field}.format says ${part.format}, but the bytes are ${format}: correct the field, or leave it out`,
  );
}

function nameOf(part: Part, { source }: Blob): string {
  return ownSource(part, source) ?? 'the file';
}
