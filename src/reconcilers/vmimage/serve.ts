import { type Algorithm, provable, strongest } from '../../api/digest.ts';
import { Failure } from '../../api/failure.ts';
import { isTrue, READY } from '../../api/conditions.ts';
import { ANNOTATIONS, type PreviousRegistration, type SiteRow } from '../../api/types.ts';
import type { PartBytes } from '../../clouds/cloud.ts';
import type { Format } from '../../images/format.ts';
import { timestamp } from '../../runtime/clock.ts';
import { hashOf, registrationId } from './identity.ts';
import { type Content, sourceDigestOf } from './content.ts';
import type { DownloadView } from './downloads.ts';
import { judgeLook } from './losses.ts';
import {
  begin,
  inWords,
  jobKey,
  type OperationResult,
  type OperationView,
  registrationHashOf,
  settle,
  showProgress,
  type SiteWork,
  startCheck,
  startReactivate,
  startRegister,
  startRetire,
  startTidy,
  startTrim,
  startUpdate,
} from './operations.ts';
import type { Part, Plan } from './plan.ts';
import { AS_PUBLISHED, prepare, prepared, type Prepared, sendableAsPublished } from './prepare.ts';
import type { SitePart } from './register.ts';
import { mayStillFinish } from './release.ts';
import { lookAgain, type Round } from './round.ts';
import { holds, recordSiteFailure, tell } from './rows.ts';
import { admits, bytesOf, checkLimits, durationMs, type Target } from './targets.ts';

/** An upload that follows a download is begun when both should end together, or a little before. */
const JUST_IN_TIME = 1.2;

/** What a site shall serve; the digests are known before the bytes are. */
export interface Wanted {
  plan: Plan;
  /** `alg:hex` that the row is known by: the disk's, or the metafile's that names all parts. */
  digest: string | undefined;
  /** Brings the bytes; called only when a site needs them. */
  content(): Promise<Content>;
}

export type Disposition = 'Serve' | 'Withdraw';

/**
 * Opens the work of an image at a site, or says in the row why nothing can be done there now. A row that serves already goes on
 * serving: what is in the way then concerns only what would come next. Whom a site admits decides what may come, never what may
 * be cleaned up.
 */
export function openWork(
  round: Round,
  target: Target,
  row: SiteRow,
  plan: { inputsHash: string },
  purpose: 'Serve' | 'Leave' = 'Serve',
): SiteWork | undefined {
  const { deps, image } = round;
  const { site } = target;
  const wait = (reason: string, message: string): undefined => {
    tell(row, row.imageID === undefined ? 'Pending' : (row.phase ?? 'Pending'), reason, message);
    return undefined;
  };
  if (site === undefined)
    return wait('SiteNotFound', `there is no ImageSite ${target.name}: create it, or correct spec.sites`);
  if (purpose === 'Serve' && !admits(site, image)) {
    const fact = `ImageSite ${target.name} takes no images of namespace ${round.namespace} (its allowedNamespaces: ${site.spec.allowedNamespaces.join(', ')})`;
    const stays = `; ${row.imageID} stays as it is until you annotate this VMImage with ${ANNOTATIONS.confirmRemoval}: ${target.name}`;
    return wait('NamespaceNotAllowed', row.imageID === undefined ? fact : fact + stays);
  }
  const connection = deps.sites.get(target.name);
  const ready = site.status.conditions?.find((condition) => condition.type === READY);
  if (connection === undefined || !isTrue(site.status.conditions, READY)) {
    const reason = ready?.reason === 'IdentityChanged' ? 'IdentityChanged' : 'SiteNotReady';
    return wait(reason, `ImageSite ${target.name} is not ready: ${ready?.message ?? 'it has not been looked at yet'}`);
  }
  if (row.siteIdentity !== undefined && row.siteIdentity !== connection.identity) {
    return wait(
      'IdentityChanged',
      `ImageSite ${target.name} was ${row.siteIdentity} when ${row.imageID ?? 'the image'} was registered, and is ${connection.identity} now; nothing is done there until it is what it was, or the row is confirmed away`,
    );
  }
  const inputsHash = hashOf([
    plan.inputsHash,
    registrationHashOf(target.registration),
    connection.inputsHash,
    image.metadata.generation,
  ]);
  return { round, row, site, connection, registration: target.registration, inputsHash };
}

/** What the site's owner does not allow is told in the row. What is there already, as it is, was allowed when it came. */
function isAllowed(work: SiteWork): boolean {
  const { round, row, site, registration } = work;
  try {
    checkLimits(round.image, registration, site);
    return true;
  } catch (error) {
    recordSiteFailure(round, row, Failure.from(error), work.inputsHash);
    return false;
  }
}

/** Looks at the job that may be running for this row. True when there is nothing more to decide in this round. */
export function attend(work: SiteWork): { busy: boolean; result?: OperationResult } {
  const { round, row } = work;
  const { jobs } = round.deps;
  const key = jobKey(round, row.name);
  const view = jobs.view<OperationView>(key);
  const outcome = jobs.take<OperationResult>(key, round.key);
  if (outcome !== undefined) {
    const result = settle(work, outcome, view);
    return result === undefined ? { busy: false } : { busy: false, result };
  }
  if (!jobs.runs(key)) return { busy: false };
  if (view?.kind === 'Check') return { busy: true };
  const { phase, message } = inWords(view?.kind ?? '');
  tell(row, phase, row.operation?.kind ?? 'Busy', message);
  showProgress(row, view);
  return { busy: true };
}

/** Decides and begins the one next step that brings this site to serve what is wanted. */
export async function serve(work: SiteWork, wanted: Wanted): Promise<void> {
  const { round, row } = work;
  const { busy, result } = attend(work);
  if (busy) {
    if (
      row.operation?.kind === 'Register' &&
      row.operation.digest !== undefined &&
      row.operation.digest !== wanted.digest &&
      wanted.digest !== undefined
    ) {
      // Something else is wanted now: the upload is cut, and what it left is removed before the next begins.
      round.deps.jobs.leave(jobKey(round, row.name), round.key);
      begin(work, { kind: 'Tidy' });
      lookAgain(round, round.now + 1000);
    }
    return;
  }
  if (result?.kind === 'Check' && !judgeLook(work, result)) return;
  if (holds(round, row, work.inputsHash)) return;

  const serving = await serves(row, wanted, round);
  if (serving === 'Yes') return maintain(work, result);
  if (serving === 'Unknown') {
    // Only the bytes can tell whether what is declared now is what is there.
    const content = await wanted.content();
    if (content.step !== 'Ready') return tellContent(work, content);
    if (sameAsBytes(row, wanted.plan, content)) {
      row.digest = wanted.digest ?? row.digest ?? '';
      return maintain(work, result);
    }
  }
  if (row.operation?.kind === 'Tidy') return startTidy(work);
  if (!isAllowed(work)) return;
  const former = formerOf(row, wanted);
  if (former !== undefined) {
    begin(work, { kind: 'Reactivate', id: former.imageID });
    return startReactivate(work, former.artifacts ?? [], wanted.digest ?? former.digest ?? '');
  }
  return registerAnew(work, wanted);
}

/** The image is there: its registration, its predecessors and the cloud's own word are looked after, one thing at a time. */
function maintain(work: SiteWork, result: OperationResult | undefined): void {
  const { round, row, site, registration } = work;
  const { image } = round;
  row.observedGeneration = round.generation;
  if (row.operation !== undefined && !['Reactivate', 'Update', 'Retire', 'Trim', 'Tidy'].includes(row.operation.kind)) {
    // An upload of something that is no longer wanted was interrupted.
    begin(work, { kind: 'Tidy' });
  }
  if (row.operation?.kind === 'Tidy') return startTidy(work);
  if (row.retired === true) {
    begin(work, { kind: 'Reactivate', id: row.imageID ?? '' });
    return startReactivate(work, row.artifacts ?? [], row.digest ?? '');
  }
  if (row.registrationHash !== registrationHashOf(registration)) {
    if (!isAllowed(work)) return;
    begin(work, { kind: 'Update' });
    return startUpdate(work);
  }
  if (row.phase !== 'Held' && row.missingSince === undefined) tell(row, 'Ready');
  const previous = row.previous ?? [];
  const excess = previous.slice(image.spec.history);
  const unretired = previous.slice(0, image.spec.history).filter((each) => each.retiredAt === undefined);
  if (excess.length > 0) {
    begin(work, { kind: 'Trim' });
    return startTrim(
      work,
      excess.flatMap((each) => each.artifacts ?? []),
    );
  }
  if (unretired.length > 0) {
    begin(work, { kind: 'Retire' });
    return startRetire(
      work,
      'Retire',
      unretired.flatMap((each) => each.artifacts ?? []),
    );
  }
  delete row.operation;
  if (result?.kind === 'Check') row.lastCheckedTime = timestamp(round.now);
  const interval = durationMs(site.spec.drift?.interval, 30 * 60_000);
  // Spread by uid, so that ten thousand images that became ready together are not looked at together; stable across restarts.
  const spread = (Number.parseInt(hashOf([image.metadata.uid, row.name]).slice(0, 6), 16) / 0xffffff) * 0.2 + 0.9;
  const due = Date.parse(row.lastCheckedTime ?? '') + interval * spread;
  const second =
    row.missingSince === undefined
      ? Number.POSITIVE_INFINITY
      : Date.parse(row.missingSince) + round.deps.settings.lossConfirmMs;
  const next = Math.min(Number.isNaN(due) ? 0 : due, second);
  if (result?.kind !== 'Check' && (next <= round.now || round.asked)) return startCheck(work);
  lookAgain(round, Math.max(next, round.now + 1000));
}

async function registerAnew(work: SiteWork, wanted: Wanted): Promise<void> {
  const { round, row, connection, site } = work;
  const content = await wanted.content();
  // A metafile that is still on its way names no parts yet.
  if (content.step === 'Failed' || wanted.plan.parts.length === 0) return tellContent(work, content);
  let attempt = row.operation?.kind === 'Register' ? (row.operation.attempt ?? 1) : 1;
  const parts: SitePart[] = [];
  let follows = false;
  for (const part of wanted.plan.parts) {
    const sent = await sendable(work, part, content);
    if (sent === undefined) return;
    follows ||= sent.follows;
    if (sent.bytes.size > (bytesOf(site.spec.maxImageSize) ?? Number.POSITIVE_INFINITY)) {
      const failure = new Failure(
        'TooLarge',
        `${part.field}: the ${part.role.toLowerCase()} has ${sent.bytes.size} bytes, ImageSite ${row.name} takes at most ${site.spec.maxImageSize}`,
      );
      return recordSiteFailure(round, row, failure, work.inputsHash);
    }
    parts.push({
      role: part.role,
      id: '',
      sourceDigest: sent.sourceDigest,
      format: sent.format,
      ...(sent.virtualSize === undefined ? {} : { virtualSize: sent.virtualSize }),
      bytes: sent.bytes,
      transform: sent.transform,
    });
  }
  const digest = wanted.digest ?? parts.find((part) => part.role === 'Disk')?.sourceDigest ?? '';
  // A new digest starts with attempt 1; the attempts of an interrupted one go on.
  if (row.operation?.digest !== digest) attempt = 1;
  for (const part of parts) {
    part.id = registrationId({
      instance: round.deps.settings.instance,
      namespace: round.namespace,
      guid: round.guid,
      role: part.role,
      digest: part.sourceDigest,
      transform: part.transform,
      site: row.name,
      attempt,
    });
  }
  const id = parts.find((part) => part.role === 'Disk')?.id ?? '';
  begin(work, { kind: 'Register', id, digest, attempt });
  row.siteIdentity ??= connection.identity;
  const { phase, message } = inWords('Register');
  tell(row, phase, 'Register', message);
  startRegister(work, { attempt, parts }, digest, follows);
}

interface Sendable {
  format: Format;
  virtualSize?: number;
  transform: string;
  sourceDigest: string;
  bytes: PartBytes;
  follows: boolean;
}

/** What of this part can be sent now; undefined (and the row says why) while there is nothing. */
async function sendable(
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
    bytes: {
      path: ready.blob.path,
      size: ready.blob.size,
      mayFinish: () => mayStillFinish(round),
      digest: async (algorithm) => {
        const known = (await deps.cache.get(ready.blob.sha256))?.digests[algorithm] ?? ready.blob.digests[algorithm];
        if (known !== undefined) return known;
        const digests = await deps.transfers.digest(ready.blob.path, [algorithm], AbortSignal.timeout(3_600_000));
        await deps.cache.annotate(ready.blob.sha256, { digests: { ...ready.blob.digests, ...digests } });
        return digests[algorithm] ?? '';
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
  const key = `prepare/${hashOf([sha256, part.role, part.member, part.format, part.content, connection.formats])}`;
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
      return found;
    }
  } catch (error) {
    recordSiteFailure(round, row, Failure.from(error), work.inputsHash);
    return undefined;
  }
  const view = { bytes: 0, totalBytes: undefined as number | undefined };
  deps.jobs.start(key, round.key, { lane: { name: 'prepare', limit: 2 }, view }, (handle, mine) =>
    prepare(
      part,
      blob,
      connection.formats,
      deps,
      (bytes, totalBytes) => {
        mine.bytes = bytes;
        mine.totalBytes = totalBytes;
        handle.changed('Soon');
      },
      handle.signal,
    ),
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
  if (format === undefined || row.attempts !== undefined) return undefined;
  const tried = `${part.key}/${growing.generation}`;
  if (round.deps.followed.get(jobKey(round, row.name)) === tried) return undefined;
  const remaining =
    view.bytesPerSecond > 0 ? (growing.size - view.bytes) / view.bytesPerSecond : Number.POSITIVE_INFINITY;
  if (remaining > JUST_IN_TIME * (growing.size / connection.bytesPerSecond)) return undefined;
  round.deps.followed.set(jobKey(round, row.name), tried);
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
        await mayStillFinish(round);
      },
      digest: async (algorithm: Algorithm) => {
        await growing.proof;
        const blob = await view.blob;
        const known = blob.digests[algorithm];
        if (known !== undefined) return known;
        return (
          (await round.deps.transfers.digest(blob.path, [algorithm], AbortSignal.timeout(3_600_000)))[algorithm] ?? ''
        );
      },
    },
  };
}

/** The row shares what is known of the bytes on their way. */
function tellContent(work: SiteWork, content: Content): void {
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
  if (row.operation?.kind === 'Register' && !round.deps.jobs.runs(jobKey(round, row.name))) {
    // Written before the bytes were here, by an upload that was to follow them; it goes on when they are.
    row.operation.message = 'waits for the complete image';
  }
}

// ── what the row serves ────────────────────────────────────────────────────────────────────────────────────────────────

async function serves(row: SiteRow, wanted: Wanted, round: Round): Promise<'Yes' | 'No' | 'Unknown'> {
  if (row.imageID === undefined) return 'No';
  if (round.image.spec.source.metafile !== undefined) return row.digest === wanted.digest ? 'Yes' : 'No';
  const there = row.artifacts ?? [];
  if (there.length !== wanted.plan.parts.length) return 'No';
  let unknown = false;
  for (const part of wanted.plan.parts) {
    const artifact = there.find((each) => each.role === part.role);
    if (artifact?.digest === undefined) return 'No';
    const verdict = matches(artifact.digest, part, round);
    if (verdict === 'No') return 'No';
    if (verdict === 'Unknown') unknown = true;
  }
  return unknown ? 'Unknown' : 'Yes';
}

/** Whether a registered part, known by one digest, is the part that is declared. */
function matches(digest: string, part: Part, round: Round): 'Yes' | 'No' | 'Unknown' {
  const [algorithm, hex] = digest.split(':') as [Algorithm, string];
  const declared =
    part.declared[algorithm] ?? (Object.keys(part.declared).length === 0 ? part.content[algorithm] : undefined);
  if (declared !== undefined) return declared === hex ? 'Yes' : 'No';
  const kept = round.status.artifacts?.find((artifact) => artifact.role === part.role);
  // Without any checksum the source is all there is to go by.
  if (Object.keys(part.declared).length + Object.keys(part.content).length === 0) {
    return kept?.inputsHash === part.key && kept.digest === digest ? 'Yes' : 'Unknown';
  }
  return 'Unknown';
}

function sameAsBytes(row: SiteRow, plan: Plan, content: Extract<Content, { step: 'Ready' }>): boolean {
  return plan.parts.every((part) => {
    const blob = content.blobs.get(part.role);
    const artifact = row.artifacts?.find((each) => each.role === part.role);
    const [algorithm, hex] = (artifact?.digest ?? ':').split(':') as [Algorithm, string];
    return blob !== undefined && blob.digests[algorithm] === hex;
  });
}

/** The kernel and ramdisk as well as the disk; a metafile's digest stands for all of its parts. */
function sameParts(former: PreviousRegistration, wanted: Wanted): boolean {
  const there = former.artifacts ?? [];
  const { parts } = wanted.plan;
  return (
    parts.length === 0 ||
    (there.length === parts.length &&
      parts.every((part) =>
        there.some(
          (each) =>
            each.role === part.role &&
            Object.values(part.declared).some((hex) => each.digest?.endsWith(`:${hex}`) === true),
        ),
      ))
  );
}

/** A retired registration of the very thing that is wanted. */
function formerOf(row: SiteRow, wanted: Wanted): PreviousRegistration | undefined {
  if (wanted.digest === undefined) return undefined;
  return (row.previous ?? []).find(
    (each) => each.digest === wanted.digest && each.retiredAt !== undefined && sameParts(each, wanted),
  );
}
