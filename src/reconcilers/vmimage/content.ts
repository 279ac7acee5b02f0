import { timestamp } from '../../api/conditions.ts';
import { strongest, uncompared } from '../../api/digest.ts';
import { Failure, type FailureClass } from '../../api/failure.ts';
import type { Blob } from '../../cache/cache.ts';
import type { Role } from '../../images/format.ts';
import { backoffMs } from '../../runtime/backoff.ts';
import { MAX_METAFILE_BYTES } from '../../sources/metafile/parse.ts';
import { contentOf, isLookedInto } from './admission.ts';
import { Downloads, type Told } from './downloads.ts';
import type { DownloadOptions, DownloadView } from './download.ts';
import { type MetafilePlan, type Part, type Plan, planOfMetafile } from './plan.ts';
import { giveUpRoomToPrepare, recordedFor, standsFor } from './room.ts';
import { isDue, jobKey, lookAgain, type Round, stamp } from './round.ts';
import { ownSource } from './verdicts.ts';

const FETCH_BACKOFF = { baseMs: 5_000, maxMs: 30 * 60_000 };
/** A named thing that is missing wakes its image itself; this is the look in case that is missed. */
const WAITING_LOOK_MS = 5 * 60_000;
/** What stalled is looked at again this often: the origin may have been mended without anybody telling us. */
const STALLED_LOOK_MS = 6 * 3_600_000;
/** No pause is longer, whatever an origin asks for. */
const LONGEST_PAUSE_MS = 24 * 3_600_000;

/** Where the bytes of an image are on their way. */
export type Content =
  | { step: 'Ready'; blobs: ReadonlyMap<Role, Blob> }
  | { step: 'Fetching'; blobs: ReadonlyMap<Role, Blob>; views: ReadonlyMap<Role, DownloadView> }
  | Failed;

interface Failed {
  step: 'Failed';
  failure: Failure;
  stalled: boolean;
}

/** Classes that nothing but a changed input can mend. */
export const STALLING: readonly FailureClass[] = ['InvalidSpec', 'VerificationFailed', 'UnsafeImage', 'Unauthorized'];

/**
 * The parts that a metafile names. It is fetched like any part (it is small, and stays in the cache).
 * @throws Failure InvalidMetafile | Secret…
 */
export async function readMetafile(round: Round, plan: MetafilePlan): Promise<Plan | Content> {
  const content = await gather(round, [plan.metafile], plan.inputsHash, {
    maxBytes: MAX_METAFILE_BYTES,
    bound: 'that are read of a metafile: is this the URL of one?',
    also: [],
  });
  const blob = content.step === 'Ready' ? content.blobs.get(plan.metafile.role) : undefined;
  if (blob === undefined) return content;
  return planOfMetafile(round.image, plan, await contentOf(blob, MAX_METAFILE_BYTES), round.deps);
}

/** Brings the parts here: what is in the cache is used, the rest is fetched by jobs that this looks at. */
export async function gather(
  round: Round,
  parts: readonly Part[],
  inputsHash: string,
  options: DownloadOptions,
): Promise<Content> {
  const { deps, status } = round;
  const blobs = new Map<Role, Blob>();
  const missing: Part[] = [];
  const record = (failure: Failure) =>
    recordFailure(
      round,
      failure,
      recordedFor(round, failure.reason, inputsHash, options.maxBytes),
      deps.downloads.told(parts),
    );
  let came = false;
  // What the parts of a metafile have run into, its own bounds say nothing of.
  const bounds = parts.some((part) => part.metafile) ? undefined : [options.maxBytes];
  if (status.failure !== undefined && !standsFor(round, status.failure.inputsHash ?? '', inputsHash, bounds)) {
    delete status.failure;
    for (const part of parts) deps.downloads.forgive(part);
  }
  for (const part of parts) {
    const bound = deps.jobs.view<DownloadView>(Downloads.key(part))?.maxBytes ?? options.maxBytes;
    const outcome = deps.jobs.take<Blob>(Downloads.key(part), round.key);
    if (outcome?.ok === false && !isOthersBound(outcome.error, bound, options.maxBytes))
      record(Failure.from(outcome.error));
    if (outcome?.ok === true) came = true;
    const blob = outcome?.ok === true ? outcome.value : await here(part, round);
    if (blob === undefined) missing.push(part);
    else blobs.set(part.role, blob);
  }
  const lacksRoom = ['CacheFull', 'TooLarge'].includes(status.failure?.reason ?? '');
  // That stands for what the metafile names, and has not ended because the metafile is here.
  if (lacksRoom && !came && missing.length === 0 && parts.some((part) => part.metafile))
    return { step: 'Ready', blobs };
  // While it waits for space, others may have what it holds: of two that wait for each other's parts neither would else go on. What an
  // earlier spec had, and this very image does not want any more, goes with it.
  const waits = lacksRoom && missing.length > 0 && !isAtWork(round, missing);
  if (waits) deps.cache.unpinAll(round.image.metadata.uid);
  if (waits && status.failure?.reason === 'CacheFull' && !couldFit(round, missing, blobs)) {
    for (const part of missing) deps.cache.giveUp(part.key);
    record(tooLargeTogether(round));
  }
  const failed = missing.length === 0 ? undefined : standing(round, missing, blobs);
  if (!waits || failed === undefined)
    for (const blob of blobs.values()) deps.cache.pin(blob.sha256, round.image.metadata.uid);
  // The download's own pin has done its duty.
  for (const part of parts) if (blobs.has(part.role)) deps.cache.unpinAll(part.key);
  if (missing.length === 0) {
    delete status.failure;
    return { step: 'Ready', blobs };
  }
  if (failed !== undefined) return failed;

  giveUpRoomToPrepare(round);
  const views = new Map<Role, DownloadView>();
  for (const part of missing) {
    const key = Downloads.key(part);
    const view = deps.downloads.newView(options.maxBytes);
    deps.jobs.start(
      key,
      round.key,
      { lane: { name: 'downloads', limit: deps.settings.maxParallelDownloads }, view },
      (handle, mine) => deps.downloads.run(part, options, handle, mine),
    );
    const shown = deps.jobs.view<DownloadView>(key);
    if (shown !== undefined) views.set(part.role, shown);
  }
  return { step: 'Fetching', blobs, views };
}

/** A download that was shared ended at the bound of somebody whose sites take less: for this image it is no failure. */
function isOthersBound(error: unknown, theirs: number, ours: number): boolean {
  return error instanceof Failure && error.reason === 'TooLarge' && theirs < ours;
}

/** What the cache has of the part: by its digests, and without any by what was fetched for these very inputs. */
async function here(part: Part, round: Round): Promise<Blob | undefined> {
  const { cache, jobs } = round.deps;
  if (jobs.runs(Downloads.key(part))) return undefined;
  const wanted = Object.keys(part.declared).length > 0 ? part.declared : part.content;
  if (Object.keys(wanted).length > 0) {
    const blob = await cache.find(wanted, part.scope);
    // What is missing to it, a job finds out.
    return blob !== undefined && isLookedInto(part, blob) && uncompared(wanted, blob.digests).length === 0
      ? blob
      : undefined;
  }
  const kept = round.status.artifacts?.find((artifact) => artifact.role === part.role);
  const sha256 = kept?.digest?.startsWith('sha256:') === true ? kept.digest.slice(7) : undefined;
  return sha256 === undefined || kept?.inputsHash !== part.key ? undefined : cache.get(sha256);
}

/** Remembers a failed fetch in the status, so that a restart neither forgets a back-off nor fetches wrong bytes again. */
function recordFailure(round: Round, failure: Failure, inputsHash: string, told: Told): void {
  if (failure.reason === 'Aborted') return;
  const before = round.status.failure;
  const attempts = before?.inputsHash === inputsHash ? (before.attempts ?? 0) + 1 : 1;
  const { clock } = round.deps;
  const pause =
    failure.failureClass === 'Transient'
      ? Math.max(failure.retryAfterMs ?? 0, backoffMs(attempts, FETCH_BACKOFF, clock))
      : failure.failureClass === 'Waiting'
        ? WAITING_LOOK_MS
        : STALLED_LOOK_MS;
  round.status.failure = {
    class: failure.failureClass,
    reason: failure.reason,
    message: failure.message,
    attempts,
    nextAttemptTime: timestamp(round.now + pause),
    inputsHash,
    ...(Object.keys(told).length === 0 ? {} : { sourceHashes: told }),
  };
}

/** A site is being sent something of the image, or one of the parts is on its way: what is here stays until that has ended. */
function isAtWork(round: Round, missing: readonly Part[]): boolean {
  const { jobs } = round.deps;
  return (
    missing.some((part) => jobs.runs(Downloads.key(part))) ||
    round.status.sites.some(({ name }) => jobs.runs(jobKey(round, name)))
  );
}

/**
 * Whether what is missing could ever be had beside what is here. A part that asks again and again for what it cannot get would keep
 * its place in the queue for space, and all behind it from theirs.
 */
function couldFit(round: Round, missing: readonly Part[], blobs: ReadonlyMap<Role, Blob>): boolean {
  const kept = [...blobs.values()].map(({ sha256 }) => sha256);
  return missing.every((part) => round.deps.cache.couldFit(part.key, kept));
}

function tooLargeTogether({ deps }: Round): Failure {
  const { quotaBytes } = deps.cache.stats();
  return new Failure(
    'TooLarge',
    `the parts of this image do not fit together into the cache, which may hold ${quotaBytes} bytes: give it more (--cache-quota), or a larger volume`,
  );
}

/** The recorded failure, while it stands for the parts that are missing beside those that are here. */
function standing(round: Round, parts: readonly Part[], blobs: ReadonlyMap<Role, Blob>): Failed | undefined {
  const { failure } = round.status;
  if (failure === undefined) return undefined;
  const kept = [...blobs.values()].map(({ sha256 }) => sha256);
  if (failure.reason === 'CacheFull' && parts.some((part) => round.deps.cache.isRoomFor(part.key, kept)))
    return undefined;
  const next = Date.parse(failure.nextAttemptTime ?? '');
  const verdict = failure.class === 'VerificationFailed' || failure.class === 'UnsafeImage';
  if (isDue(round, next, LONGEST_PAUSE_MS) && !(verdict && sourcesAreTheSame(round, parts))) return undefined;
  lookAgain(round, Date.parse(round.status.failure?.nextAttemptTime ?? ''));
  const stalled = STALLING.includes(failure.class as FailureClass);
  return { step: 'Failed', failure: new Failure(failure.reason as Failure['reason'], failure.message ?? ''), stalled };
}

/**
 * Wrong bytes are not fetched again because time has passed. Every 6 hours the mirrors are asked what they have; only when one of
 * them says something else than then, or had said nothing, is it worth another download. True while they are being asked, too.
 */
function sourcesAreTheSame(round: Round, parts: readonly Part[]): boolean {
  const { deps, status } = round;
  let same = true;
  for (const part of parts) {
    const key = `look/${part.key}`;
    const outcome = deps.jobs.take<Told>(key, round.key);
    if (outcome === undefined) {
      deps.jobs.start(key, round.key, { view: undefined }, (handle) => deps.downloads.look(part, handle.signal));
      return true;
    }
    const before: Told = status.failure?.sourceHashes ?? {};
    // One that does not answer now is no reason to take another's answer for the old one.
    if (outcome.ok && Object.entries(outcome.value).some(([name, said]) => before[name] !== said)) same = false;
  }
  if (same && status.failure !== undefined) status.failure.nextAttemptTime = timestamp(round.now + STALLED_LOOK_MS);
  return same;
}

/** What the status tells about the parts that are here. */
export function describeArtifacts(round: Round, parts: readonly Part[], blobs: ReadonlyMap<Role, Blob>): void {
  const before = round.status.artifacts ?? [];
  round.status.artifacts = parts.flatMap((part) => {
    const blob = blobs.get(part.role);
    const kept = before.find((artifact) => artifact.role === part.role);
    if (blob === undefined) return kept === undefined ? [] : [kept];
    const source = ownSource(part, blob.source, kept?.source);
    return [
      {
        role: part.role,
        digest: `sha256:${blob.sha256}`,
        size: blob.size,
        ...(blob.format === undefined ? {} : { format: blob.format }),
        ...(blob.virtualSize === undefined ? {} : { virtualSize: blob.virtualSize }),
        ...(source === undefined ? {} : { source }),
        fetchedAt: blob.fetchedAt.replace(/\.\d+Z$/, 'Z') || stamp(round),
        inputsHash: part.key,
      },
    ];
  });
}

/** `alg:hex` by which a part's registration is known: as published, else of its content, else of what was fetched. */
export function sourceDigestOf(part: Part, blob: Blob | undefined): string | undefined {
  return (
    strongest(part.declared) ?? strongest(part.content) ?? (blob === undefined ? undefined : `sha256:${blob.sha256}`)
  );
}
