import { type Algorithm, provable, strongest } from '../../api/digest.ts';
import { Failure } from '../../api/failure.ts';
import type { PartBytes } from '../../clouds/cloud.ts';
import type { Format } from '../../images/format.ts';
import { packingOf } from './admission.ts';
import { type Content, sourceDigestOf } from './content.ts';
import type { DownloadView } from './download.ts';
import { hashOf } from './identity.ts';
import { digestOf, isIntact } from './intact.ts';
import type { SiteWork } from './operations.ts';
import type { Part } from './plan.ts';
import { AS_PUBLISHED, prepare, prepared, type Prepared, sendableAsPublished } from './prepare.ts';
import { percentOf } from './progress.ts';
import { mayStillFinish } from './release.ts';
import { jobKey } from './round.ts';
import { recordSiteFailure, tell } from './rows.ts';

/** An upload that follows a download is begun when both should end together, or a little before. */
const JUST_IN_TIME = 1.2;

interface Sendable {
  format: Format;
  virtualSize?: number;
  transform: string;
  sourceDigest: string;
  bytes: PartBytes;
  /** See `SitePart`; bytes that follow a download have just been proven. */
  recheck?(signal: AbortSignal): Promise<boolean>;
  follows: boolean;
}

/** What of this part can be sent now; undefined (and the row says why) while there is nothing. */
export async function sendable(
  work: SiteWork,
  part: Part,
  content: Exclude<Content, { step: 'Failed' }>,
): Promise<Sendable | undefined> {
  const { round } = work;
  const blob = content.blobs.get(part.role);
  if (blob === undefined) {
    const view = content.step === 'Fetching' ? content.views.get(part.role) : undefined;
    const growing = view === undefined ? undefined : following(work, part, view);
    if (growing === undefined) tellContent(work, content);
    return growing;
  }
  const ready = await preparedFor(work, part, blob.sha256, content);
  if (ready === undefined) return undefined;
  const { deps } = round;
  return {
    format: ready.format,
    ...(ready.blob.virtualSize === undefined ? {} : { virtualSize: ready.blob.virtualSize }),
    transform: ready.transform,
    sourceDigest: sourceDigestOf(part, blob) ?? `sha256:${blob.sha256}`,
    follows: false,
    recheck: (signal) => isIntact(ready.blob, deps, signal),
    bytes: {
      path: ready.blob.path,
      size: ready.blob.size,
      mayFinish: () => mayStillFinish(work),
      digest: async (algorithm) => {
        const known = (await deps.cache.get(ready.blob.sha256))?.digests[algorithm] ?? ready.blob.digests[algorithm];
        return known ?? digestOf(ready.blob, algorithm, deps);
      },
    },
  };
}

/** The part in a form that the site takes: there already, or being made by a job. */
async function preparedFor(
  work: SiteWork,
  part: Part,
  sha256: string,
  content: Exclude<Content, { step: 'Failed' }>,
): Promise<Prepared | undefined> {
  const { round, row, connection } = work;
  const { deps } = round;
  const blob = content.blobs.get(part.role);
  if (blob === undefined) return undefined;
  const key = `prepare/${hashOf([sha256, part.role, part.member, packingOf(part, blob), part.format, part.content, connection.formats])}`;
  const outcome = deps.jobs.take<Prepared>(key, round.key);
  if (outcome !== undefined && !outcome.ok) {
    recordSiteFailure(round, row, Failure.from(outcome.error), work.inputsHash);
    // Others may need the space that this waits for.
    deps.cache.unpinAll(round.image.metadata.uid);
    return undefined;
  }
  try {
    const found = await prepared(part, blob, connection.formats, deps);
    if (found !== undefined) {
      deps.cache.pin(found.blob.sha256, round.image.metadata.uid);
      // The job's own pins have done their duty.
      if (!deps.jobs.runs(key)) deps.cache.unpinAll(key);
      return found;
    }
  } catch (error) {
    recordSiteFailure(round, row, Failure.from(error), work.inputsHash);
    return undefined;
  }
  const view = { bytes: 0, totalBytes: undefined as number | undefined };
  deps.jobs.start(key, round.key, { lane: { name: 'prepare', limit: 2 }, view }, (handle, mine) =>
    prepare(part, blob, connection.formats, deps, {
      holder: key,
      progress: (bytes, totalBytes) => {
        mine.bytes = bytes;
        mine.totalBytes = totalBytes;
        handle.changed('Soon');
      },
      signal: handle.signal,
    }),
  );
  const shown = deps.jobs.view<typeof view>(key);
  tell(row, 'Preparing', 'Preparing', 'being unpacked or converted for this site');
  if (shown !== undefined && shown.bytes > 0) {
    row.progress = {
      step: 'Prepare',
      bytes: shown.bytes,
      ...(shown.totalBytes === undefined ? {} : { totalBytes: shown.totalBytes }),
    };
  }
  return undefined;
}

/**
 * A download that is still growing, where the upload may follow it: its proof is a strong digest, its head says what it is, an
 * unfinished upload can be used by nobody there, and it is neither too early nor a second try.
 */
function following(work: SiteWork, part: Part, view: DownloadView): Sendable | undefined {
  const { round, row, connection } = work;
  const { growing } = view;
  if (growing === undefined || part.role !== 'Disk' || !connection.cloud.traits.mayFollow || !provable(part.declared))
    return undefined;
  if (Object.keys(part.content).length > 0 || (part.compression !== 'Auto' && part.compression !== 'None'))
    return undefined;
  if (growing.recognition.compression !== 'None' || !growing.recognition.judgedByHead) return undefined;
  const format = sendableAsPublished(part, growing.recognition.format, connection.formats);
  if (format === undefined || row.inputsHash !== undefined) return undefined;
  const remaining =
    view.bytesPerSecond > 0 ? (growing.size - view.bytes) / view.bytesPerSecond : Number.POSITIVE_INFINITY;
  if (remaining > JUST_IN_TIME * (growing.size / connection.bytesPerSecond)) return undefined;
  if (!round.deps.downloads.mayFollow(part, jobKey(round, row.name), growing.generation)) return undefined;
  return {
    format,
    transform: AS_PUBLISHED,
    sourceDigest: strongest(part.declared) ?? '',
    follows: true,
    bytes: {
      path: growing.path,
      size: growing.size,
      follow: { directory: growing.directory, generation: growing.generation },
      mayFinish: async () => {
        await growing.proof;
        await mayStillFinish(work);
      },
      digest: async (algorithm: Algorithm) => {
        await growing.proof;
        const blob = await view.blob;
        return blob.digests[algorithm] ?? digestOf(blob, algorithm, round.deps);
      },
    },
  };
}

/** The row shares what is known of the bytes on their way. */
export function tellContent(work: SiteWork, content: Content): void {
  const { round, row } = work;
  if (content.step === 'Failed') {
    const phase = content.stalled ? 'Failed' : 'Pending';
    tell(row, phase, content.failure.reason, content.failure.message);
    return;
  }
  const view = content.step === 'Fetching' ? [...content.views.values()][0] : undefined;
  const verifying = view?.step === 'Verifying';
  tell(
    row,
    verifying ? 'Verifying' : 'Fetching',
    verifying ? 'Verifying' : 'Fetching',
    view?.note ?? `waits for the bytes${view?.source === undefined ? '' : ` from ${view.source}`}`,
  );
  if (view !== undefined && round.deps.duties.shared) {
    // Whoever summarizes sees nothing else of the download.
    const { bytes, totalBytes, bytesPerSecond } = view;
    const total = totalBytes === undefined ? {} : { totalBytes, percent: percentOf(bytes, totalBytes) };
    row.progress = { step: 'Fetch', bytes, bytesPerSecond, ...total };
  }
  if (row.operation?.kind === 'Register' && !round.deps.jobs.runs(jobKey(round, row.name))) {
    // Written before the bytes were here, by an upload that was to follow them; it goes on when they are.
    row.operation.message = 'waits for the complete image';
  }
}
