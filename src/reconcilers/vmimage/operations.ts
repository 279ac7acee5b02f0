import { Failure } from '../../api/failure.ts';
import type { ImageSite, RegisteredArtifact, SiteRow } from '../../api/types.ts';
import type { Look, PublishImage, Registration } from '../../clouds/cloud.ts';
import type { Outcome } from '../../runtime/jobs.ts';
import type { Connection } from '../imagesite/connections.ts';
import { hashOf } from './identity.ts';
import { isHalfMade, register, type Registered, type RegisterJob } from './register.ts';
import { note, type Round, stamp } from './round.ts';
import { clearFailure, clearImage, knownIds, putInService, recordSiteFailure, refsOf } from './rows.ts';
import { isLiving } from './siblings.ts';

/** Glance never gives a deleted id again, so an id that was burnt this often is not bad luck. */
const MAX_ATTEMPTS = 16;

/** Changes in a cloud. All but `Check` stand in the row's `operation` before they begin. */
export type OperationKind =
  | 'Register'
  | 'Reactivate'
  | 'Update'
  | 'Retire'
  | 'Withdraw'
  | 'Trim'
  | 'Tidy'
  | 'Delete'
  | 'Check';

export interface OperationView {
  kind: OperationKind;
  /** The registration that the cloud is being given. */
  registrationHash?: string;
  progress?: { bytes: number; totalBytes: number; bytesPerSecond: number };
  /** Whether the upload follows a download that is still running. */
  follows?: boolean;
}

export type OperationResult =
  | { kind: 'Register'; registered: Registered; registrationHash: string; digest: string }
  | { kind: 'Reactivate'; registrationHash: string; digest: string; artifacts: RegisteredArtifact[] }
  | { kind: 'Update'; registrationHash: string }
  | { kind: 'Retire' | 'Withdraw' | 'Trim' | 'Tidy' | 'Delete'; ids: readonly string[] }
  | { kind: 'Check'; look: Look; census: ReadonlySet<string> | undefined };

/** Where one image meets one site. */
export interface SiteWork {
  round: Round;
  row: SiteRow;
  site: ImageSite;
  connection: Connection;
  registration: Registration;
  /** A failed step is tried again when this changes. */
  inputsHash: string;
}

export function jobKey(round: Round, site: string): string {
  return `site/${round.image.metadata.uid}/${site}`;
}

/** Hash of all that `publish` is given. */
export function registrationHashOf(registration: Registration): string {
  return hashOf(registration);
}

/** Writes the operation into the row; it starts once that is durable. */
export function begin(
  work: SiteWork,
  operation: { kind: OperationKind; id?: string; digest?: string; attempt?: number },
): void {
  const { row, round } = work;
  row.operation = { ...operation, startedAt: stamp(round) };
}

/** Starts the job of an operation after the status has been written. */
export function startAfterWrite(
  work: SiteWork,
  view: OperationView,
  run: (
    signal: AbortSignal,
    view: OperationView,
    shown: (bytes: number, total: number) => void,
  ) => Promise<OperationResult>,
): void {
  const { round, site } = work;
  const { deps, key } = round;
  const lane =
    view.kind === 'Register'
      ? { name: `uploads/${site.metadata.name}`, limit: site.spec.maxParallelUploads }
      : undefined;
  round.starts.push(() =>
    deps.jobs.start(
      jobKey(round, site.metadata.name),
      key,
      { ...(lane === undefined ? {} : { lane }), view },
      async (handle, mine) => {
        if (!deps.authority.goodForMs(10_000)) throw new Failure('Aborted', 'this controller does not hold the Lease');
        const started = deps.clock.now();
        const total = { bytes: 0 };
        const result = await run(handle.signal, mine, (bytes, totalBytes) => {
          const seconds = (deps.clock.now() - started) / 1000;
          mine.progress = { bytes, totalBytes, bytesPerSecond: seconds > 0 ? Math.round(bytes / seconds) : 0 };
          total.bytes = bytes;
          handle.changed('Soon');
        });
        if (total.bytes > 0) {
          const ms = deps.clock.now() - started;
          deps.metrics.transferred({
            step: 'Upload',
            site: site.metadata.name,
            bytes: total.bytes,
            seconds: ms / 1000,
          });
          if (mine.follows !== true) deps.sites.measured(site.metadata.name, total.bytes, ms);
        }
        return result;
      },
    ),
  );
}

// ── the operations ─────────────────────────────────────────────────────────────────────────────────────────────────────

export function startRegister(
  work: SiteWork,
  job: Omit<RegisterJob, 'cloud' | 'owner' | 'guid' | 'claim' | 'registration' | 'known' | 'isAlive' | 'onProgress'>,
  digest: string,
  follows: boolean,
): void {
  const { round, row, connection, registration } = work;
  const known = knownIds(row);
  const registrationHash = registrationHashOf(registration);
  const { deps, image, namespace } = round;
  startAfterWrite(work, { kind: 'Register', registrationHash, follows }, async (signal, _view, shown) => {
    const registered = await register(
      {
        ...job,
        cloud: connection.cloud,
        owner: round.owner,
        guid: round.guid,
        claim: image.metadata.uid,
        registration,
        known,
        isAlive: (uid) => isLiving(deps.store, namespace, uid),
        onProgress: shown,
      },
      signal,
    );
    return { kind: 'Register', registered, registrationHash, digest };
  });
}

/** Brings a retired registration (a former digest, or the current one) back into service. */
export function startReactivate(work: SiteWork, artifacts: readonly RegisteredArtifact[], digest: string): void {
  const { connection, registration } = work;
  const registrationHash = registrationHashOf(registration);
  startAfterWrite(work, { kind: 'Reactivate' }, async (signal) => {
    await connection.cloud.reactivate(refsOf(artifacts), signal);
    await connection.cloud.publish(publishOf(work, artifacts), signal);
    return { kind: 'Reactivate', registrationHash, digest, artifacts: [...artifacts] };
  });
}

export function startUpdate(work: SiteWork): void {
  const { connection, registration, row } = work;
  const registrationHash = registrationHashOf(registration);
  startAfterWrite(work, { kind: 'Update' }, async (signal) => {
    await connection.cloud.publish(publishOf(work, row.artifacts ?? []), signal);
    return { kind: 'Update', registrationHash };
  });
}

export function startRetire(
  work: SiteWork,
  kind: 'Retire' | 'Withdraw',
  artifacts: readonly RegisteredArtifact[],
): void {
  startAfterWrite(work, { kind }, async (signal) => {
    await work.connection.cloud.retire(refsOf(artifacts), signal);
    return { kind, ids: artifacts.map((part) => part.id) };
  });
}

export function startTrim(work: SiteWork, artifacts: readonly RegisteredArtifact[]): void {
  startAfterWrite(work, { kind: 'Trim' }, async (signal) => {
    await work.connection.cloud.remove(refsOf(artifacts), signal);
    return { kind: 'Trim', ids: artifacts.map((part) => part.id) };
  });
}

/** Removes half-made records of this image: an upload was given up because something else is wanted now. */
export function startTidy(work: SiteWork): void {
  const { round, row, connection } = work;
  const known = knownIds(row);
  startAfterWrite(work, { kind: 'Tidy' }, async (signal) => {
    const records = await connection.cloud.find({ owner: round.owner, guid: round.guid }, signal);
    const left = records.filter(
      (record) => record.claim === round.image.metadata.uid && isHalfMade(record) && !known.has(record.id),
    );
    await connection.cloud.remove(left, signal);
    return { kind: 'Tidy', ids: left.map((record) => record.id) };
  });
}

/** Removes everything of this image from the site: what the row names, and what a crash kept from being named. */
export function startDelete(work: SiteWork): void {
  const { round, row, connection } = work;
  const refs = [...refsOf(row.artifacts), ...(row.previous ?? []).flatMap((each) => refsOf(each.artifacts))];
  const { image, namespace, deps } = round;
  startAfterWrite(work, { kind: 'Delete' }, async (signal) => {
    const records = await connection.cloud.find({ owner: round.owner, guid: round.guid }, signal);
    const ours = records.filter(
      (record) => record.claim === image.metadata.uid || !isLiving(deps.store, namespace, record.claim),
    );
    // What the row names but another image has taken over meanwhile (a hand-over) is not ours to remove.
    const taken = new Set(records.filter((record) => !ours.includes(record)).map((record) => record.id));
    const ids = new Map(
      [...refs, ...ours].filter((part) => !taken.has(part.id)).map((part) => [part.id, part] as const),
    );
    await connection.cloud.remove([...ids.values()], signal);
    return { kind: 'Delete', ids: [...ids.keys()] };
  });
}

/** Looks whether the cloud still has what the row says; `census` too, where something was missing the last time. */
export function startCheck(work: SiteWork): void {
  const { row, connection } = work;
  const suspicious = row.missingSince !== undefined;
  startAfterWrite(work, { kind: 'Check' }, async (signal) => {
    const look = await connection.cloud.look(publishOf(work, row.artifacts ?? []), signal);
    const census = suspicious && look.gone.length > 0 ? await connection.cloud.census(signal) : undefined;
    return { kind: 'Check', look, census };
  });
}

function publishOf(work: SiteWork, artifacts: readonly RegisteredArtifact[]): PublishImage {
  const { round, registration } = work;
  return {
    parts: refsOf(artifacts),
    ownership: { owner: round.owner, guid: round.guid, claim: round.image.metadata.uid },
    registration,
  };
}

// ── what came of them ──────────────────────────────────────────────────────────────────────────────────────────────────

/** Takes the outcome of the site's job into the row. */
export function settle(
  work: SiteWork,
  outcome: Outcome<OperationResult>,
  view: OperationView | undefined,
): OperationResult | undefined {
  if (!outcome.ok) {
    settleFailure(work, Failure.from(outcome.error), view);
    return undefined;
  }
  const { round, row } = work;
  const result = outcome.value;
  clearFailure(row);
  if (result.kind !== 'Check') delete row.operation;
  switch (result.kind) {
    case 'Register': {
      const before = row.imageID;
      round.deps.followed.delete(jobKey(round, row.name));
      putInService(round, row, result.registered.parts, result.digest);
      row.siteIdentity = work.connection.identity;
      row.registrationHash = result.registrationHash;
      remember(row, result.registered);
      const verb = result.registered.adopted ? 'found again' : 'registered';
      const place = before === undefined || before === row.imageID ? '' : `, in place of ${before}`;
      note(round, 'Normal', 'Registered', `${verb} at ${row.name} as ${row.imageID}${place}`);
      break;
    }
    case 'Reactivate':
      putInService(round, row, result.artifacts, result.digest);
      row.registrationHash = result.registrationHash;
      note(round, 'Normal', 'Reactivated', `back in service at ${row.name} as ${row.imageID}`);
      break;
    case 'Update':
      row.registrationHash = result.registrationHash;
      row.lastCheckedTime = stamp(round);
      note(round, 'Normal', 'Updated', `the registration ${row.imageID} at ${row.name} is as the spec says`);
      break;
    case 'Retire':
      row.previous = (row.previous ?? []).map((each) =>
        each.retiredAt === undefined ? { ...each, retiredAt: stamp(round) } : each,
      );
      note(round, 'Normal', 'Retired', `retired at ${row.name}: ${result.ids.join(', ')}`);
      break;
    case 'Withdraw':
      row.retired = true;
      note(round, 'Normal', 'Withdrawn', `out of service at ${row.name}: ${row.imageID}`);
      break;
    case 'Trim': {
      const gone = new Set(result.ids);
      const previous = (row.previous ?? []).filter(
        (each) => !(each.artifacts ?? []).every((part) => gone.has(part.id)),
      );
      if (previous.length === 0) delete row.previous;
      else row.previous = previous;
      note(round, 'Normal', 'Removed', `removed from ${row.name}: ${result.ids.join(', ')}`);
      break;
    }
    case 'Delete':
      clearImage(row);
      delete row.previous;
      if (result.ids.length > 0) note(round, 'Normal', 'Removed', `removed from ${row.name}: ${result.ids.join(', ')}`);
      break;
    case 'Tidy':
    case 'Check':
      break;
  }
  return result;
}

/** Registrations that a lost state had forgotten come back as what they are: former ones, to be retired like any other. */
function remember(row: SiteRow, registered: Registered): void {
  const former = registered.forgotten
    .filter((record) => record.role === 'Disk')
    .map((record) => ({
      imageID: record.id,
      digest: record.sourceDigest,
      artifacts: [
        {
          role: record.role,
          id: record.id,
          digest: record.sourceDigest,
          ...(record.sentSha256 === undefined ? {} : { sentDigest: `sha256:${record.sentSha256}` }),
        },
      ],
    }));
  if (former.length > 0) row.previous = [...(row.previous ?? []), ...former];
}

function settleFailure(work: SiteWork, failure: Failure, view: OperationView | undefined): void {
  const { round, row } = work;
  if (failure.reason === 'Aborted') return;
  round.deps.log.info(
    { image: round.key, site: row.name, operation: view?.kind, reason: failure.reason, err: failure.cause },
    failure.message,
  );
  const attempt = row.operation?.attempt ?? 0;
  if (failure.reason === 'IdTaken' && row.operation !== undefined && attempt < MAX_ATTEMPTS) {
    // The next attempt is written down before it is made: the id derives from it.
    row.operation = { ...row.operation, attempt: attempt + 1 };
    delete row.operation.id;
    return;
  }
  // The download fell behind its upload: what comes next is sent from the complete file, and nothing is wrong with the site.
  if (failure.reason === 'UploadCut' && view?.follows === true) return;
  if (view?.kind === 'Reactivate' && failure.failureClass === 'VerificationFailed') {
    forgetDamaged(row);
    delete row.operation;
    note(round, 'Warning', failure.reason, failure.message);
    return;
  }
  recordSiteFailure(round, row, failure, work.inputsHash);
  note(round, 'Warning', failure.reason, failure.message);
  if (row.nextAttemptTime === undefined) delete row.operation;
  // The site itself may be in trouble: it is asked, so that this is told once, there.
  if (failure.failureClass === 'Unauthorized' || ['NetworkError', 'SiteNotReady'].includes(failure.reason)) {
    round.deps.sites.suspect(row.name);
    round.deps.wake('ImageSite', row.name);
  }
}

/** A retired registration whose bytes are not what they were cannot come back; it is registered anew. */
function forgetDamaged(row: SiteRow): void {
  const id = row.operation?.id;
  if (id === row.imageID) clearImage(row);
  row.previous = (row.previous ?? []).filter((each) => each.imageID !== id);
  if (row.previous.length === 0) delete row.previous;
}

export function showProgress(row: SiteRow, view: OperationView | undefined): void {
  const progress = view?.progress;
  if (progress === undefined) return;
  row.progress = {
    step: 'Upload',
    bytes: progress.bytes,
    totalBytes: progress.totalBytes,
    percent: percentOf(progress.bytes, progress.totalBytes),
    bytesPerSecond: progress.bytesPerSecond,
  };
}

export function percentOf(bytes: number, totalBytes: number): number {
  return totalBytes > 0 ? Math.min(100, Math.floor((100 * bytes) / totalBytes)) : 0;
}

export function inWords(kind: string): { phase: string; message: string } {
  const words: Record<string, { phase: string; message: string }> = {
    Register: { phase: 'Registering', message: 'being registered' },
    Reactivate: { phase: 'Registering', message: 'a former registration comes back into service' },
    Update: { phase: 'Updating', message: 'the registration is being brought up to date' },
    Retire: { phase: 'Ready', message: 'the former registration is being retired' },
    Withdraw: { phase: 'Deactivating', message: 'being taken out of service' },
    Trim: { phase: 'Ready', message: 'registrations beyond spec.history are being removed' },
    Tidy: { phase: 'Pending', message: 'what an interrupted upload left is being removed' },
    Delete: { phase: 'Deleting', message: 'its registrations are being removed' },
  };
  return words[kind] ?? { phase: 'Pending', message: kind };
}
