import { Failure } from '../../api/failure.ts';
import type { ImageSite, PreviousRegistration, RegisteredArtifact, SiteRow } from '../../api/types.ts';
import type { CloudRecord, Look, PublishImage, Registration } from '../../clouds/cloud.ts';
import { LEASE_MARGIN_MS } from '../deps.ts';
import type { Connection } from '../imagesite/connections.ts';
import { hashOf } from './identity.ts';
import { damaged } from './intact.ts';
import { isHalfMade, register, type Registered, type RegisterJob, type SitePart } from './register.ts';
import { awaitedAt, jobKey, type Round, stamp } from './round.ts';
import { knownIds, refsOf } from './named.ts';
import { isRefusal, tell } from './rows.ts';

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
  /** The request that a look answers. */
  asked?: string;
}

export type OperationResult =
  | { kind: 'Register'; registered: Registered; registrationHash: string; digest: string }
  | { kind: 'Reactivate'; registrationHash: string; digest: string; artifacts: RegisteredArtifact[] }
  | { kind: 'Update'; registrationHash: string }
  | { kind: 'Retire' | 'Delete'; ids: readonly string[] }
  | { kind: 'Withdraw'; ids: readonly string[]; forgotten: readonly CloudRecord[] }
  /** What the cloud did not let go of is told beside what has gone. */
  | {
      kind: 'Tidy';
      ids: readonly string[];
      forgotten: readonly CloudRecord[];
      active: readonly string[];
      failed?: Failure;
    }
  | { kind: 'Trim'; ids: readonly string[]; failed?: Failure }
  | { kind: 'Check'; look: Look; census: ReadonlySet<string> | undefined; asked: string | undefined };

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
  // How much of it has come to the cloud nobody knows before it has ended well: it is drift until then, looked at before each other
  // try, and also where the edit is taken back.
  if (operation.kind === 'Update') delete row.registrationHash;
  // A row that held nothing may have been of the place that the site was before.
  row.siteIdentity = work.connection.identity;
  const { phase, message } = inWords(operation.kind);
  // What serves goes on serving while former versions and left-overs are looked after.
  const isAside = operation.kind === 'Tidy' && row.imageID !== undefined;
  // And what the cloud holds is held whatever is written to it: told as anything else it would be Ready after it.
  const staysHeld = operation.kind === 'Update' && row.phase === 'Held';
  if (phase !== 'Ready' && !isAside && !staysHeld) tell(row, phase, operation.kind, message);
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
        if (!deps.authority.goodForMs(LEASE_MARGIN_MS))
          throw new Failure('Aborted', 'this controller does not hold the Lease');
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
        isAlive: (uid) => deps.siblings.isLiving(namespace, uid),
        onProgress: shown,
      },
      signal,
    ).catch(async (error: unknown) => {
      throw await judged(error, job.parts, signal);
    });
    return { kind: 'Register', registered, registrationHash, digest };
  });
}

/** Where the cloud holds other bytes than were proven, it may have been sent others: the cache's disk may have rotted since. */
async function judged(error: unknown, parts: readonly SitePart[], signal: AbortSignal): Promise<unknown> {
  if (!(error instanceof Failure) || error.reason !== 'CloudDigestMismatch') return error;
  for (const { role, recheck } of parts) {
    if ((await recheck?.(signal)) !== false) continue;
    return damaged(`the ${role.toLowerCase()}`, error);
  }
  return error;
}

/** Asked before what is at the site becomes visible. @throws Failure when it is not wanted so any more */
type LastLook = () => Promise<void>;

/**
 * Brings a retired registration (a former digest, or the current one) back into service. It may be seen from the first request on, so that
 * what was decided is looked at again before that, and again before it is published.
 */
export function startReactivate(
  work: SiteWork,
  artifacts: readonly RegisteredArtifact[],
  digest: string,
  mayServe: LastLook,
): void {
  const { connection, registration } = work;
  const registrationHash = registrationHashOf(registration);
  startAfterWrite(work, { kind: 'Reactivate' }, async (signal) => {
    await mayServe();
    await connection.cloud.reactivate(refsOf(artifacts), signal);
    await mayServe();
    await connection.cloud.publish(publishOf(work, artifacts), signal);
    return { kind: 'Reactivate', registrationHash, digest, artifacts: [...artifacts] };
  });
}

export function startUpdate(work: SiteWork, mayServe: LastLook): void {
  const { connection, registration, row } = work;
  const registrationHash = registrationHashOf(registration);
  startAfterWrite(work, { kind: 'Update' }, async (signal) => {
    await mayServe();
    await connection.cloud.publish(publishOf(work, row.artifacts ?? []), signal);
    return { kind: 'Update', registrationHash };
  });
}

export function startRetire(work: SiteWork, artifacts: readonly RegisteredArtifact[]): void {
  startAfterWrite(work, { kind: 'Retire' }, async (signal) => {
    await work.connection.cloud.retire(refsOf(artifacts), signal);
    return { kind: 'Retire', ids: artifacts.map((part) => part.id) };
  });
}

/**
 * Takes everything of this image at the site out of service: what serves, what it replaced, and what a lost state or a hand-over kept
 * from being named. The cloud is asked even where the row knows of nothing: an image with a hole in it must not go on serving unseen.
 */
export function startWithdraw(work: SiteWork): void {
  const { row, connection } = work;
  const { cloud } = connection;
  const known = knownIds(row);
  // Also what is told to be retired: it may have been on its way back.
  const current = row.artifacts ?? [];
  const former = (row.previous ?? []).filter((each) => each.retiredAt === undefined);
  startAfterWrite(work, { kind: 'Withdraw' }, async (signal) => {
    await cloud.retire(refsOf(current), signal);
    const { ours } = await recordsOf(work, signal);
    const unnamed = ours.filter((record) => !known.has(record.id));
    const forgotten = unnamed.filter((record) => !isHalfMade(record));
    const named = former.flatMap((each) => refsOf(each.artifacts));
    const told = new Set([...current, ...named].map((part) => part.id));
    // An upload that was cut may have found one that was retired by its bytes, and brought it back.
    const returned = ours.filter(({ id, state }) => known.has(id) && state === 'Active' && !told.has(id));
    const others = [...named, ...returned, ...forgotten];
    await cloud.retire(others, signal);
    // Last: a removal that is refused keeps nothing in service.
    await cloud.remove(unnamed.filter(isHalfMade), signal);
    return { kind: 'Withdraw', ids: [...current, ...others].map((part) => part.id), forgotten };
  });
}

/** What the cloud has of this owner and guid: this image's, with what images that are no more have left it, and that of living others. */
async function recordsOf(
  { round, connection }: SiteWork,
  signal: AbortSignal,
): Promise<{ ours: CloudRecord[]; others: CloudRecord[] }> {
  const { image, namespace, deps, owner, guid } = round;
  const records = await connection.cloud.find({ owner, guid }, signal);
  const isOurs = ({ claim }: CloudRecord) => claim === image.metadata.uid || !deps.siblings.isLiving(namespace, claim);
  return { ours: records.filter(isOurs), others: records.filter((record) => !isOurs(record)) };
}

/** Removes former registrations one by one: one that machines still run from keeps none of the others. */
export function startTrim(work: SiteWork, excess: readonly PreviousRegistration[]): void {
  startAfterWrite(work, { kind: 'Trim' }, async (signal) => {
    const ids: string[] = [];
    let failed: Failure | undefined;
    for (const { artifacts } of excess) {
      const parts = refsOf(artifacts);
      try {
        await work.connection.cloud.remove(parts, signal);
        ids.push(...parts.map((part) => part.id));
      } catch (error) {
        signal.throwIfAborted();
        failed ??= Failure.from(error);
      }
    }
    return { kind: 'Trim', ids, ...(failed === undefined ? {} : { failed }) };
  });
}

/** What a cloud cannot remove in so many tries may never go, and would hold up every edit and each new version beside it. */
const TIDY_TRIES = 3;

/**
 * Removes what an upload that was given up has left: what is half-made, and what is complete (a kernel that waits for its disk, a disk
 * that waits to be published) and was seen by nobody. What was published in the moment of the kill may have machines by now: it comes
 * back as a former registration. And a former one that the upload has found by its bytes may be in service again: `active` tells.
 */
export function startTidy(work: SiteWork): void {
  const { round, row, connection } = work;
  const known = knownIds(row);
  const hasImage = row.imageID !== undefined;
  const isLastTry = (row.attempts ?? 0) >= TIDY_TRIES - 1;
  startAfterWrite(work, { kind: 'Tidy' }, async (signal) => {
    const records = await connection.cloud.find({ owner: round.owner, guid: round.guid }, signal);
    const ours = records.filter((record) => record.claim === round.image.metadata.uid);
    const active = ours.filter((record) => record.state === 'Active').map((record) => record.id);
    const unnamed = ours.filter((record) => !known.has(record.id));
    // (What is out of service is no upload's: it was retired so long ago that the row has forgotten it.)
    const left = unnamed.filter((record) => isHalfMade(record) || (record.state === 'Active' && !record.published));
    const forgotten = unnamed.filter((record) => record.published && !isHalfMade(record));
    try {
      await connection.cloud.remove(left, signal);
    } catch (error) {
      signal.throwIfAborted();
      const failed = Failure.from(error);
      // Beside an image that is there it keeps nothing from going on: its marks lead the next upload, and the deletion, to it.
      if (!hasImage || !(isLastTry || isRefusal(failed))) throw error;
      return { kind: 'Tidy', ids: [], forgotten, active, failed };
    }
    return { kind: 'Tidy', ids: left.map((record) => record.id), forgotten, active };
  });
}

/** Removes everything of this image from the site: what the row names, and what a crash kept from being named. */
export function startDelete(work: SiteWork): void {
  const { row, connection } = work;
  const refs = [...refsOf(row.artifacts), ...(row.previous ?? []).flatMap((each) => refsOf(each.artifacts))];
  startAfterWrite(work, { kind: 'Delete' }, async (signal) => {
    const { ours, others } = await recordsOf(work, signal);
    // What the row names but another image has taken over meanwhile (a hand-over) is not ours to remove.
    const taken = new Set(others.map((record) => record.id));
    const ids = new Map(
      [...refs, ...ours].filter((part) => !taken.has(part.id)).map((part) => [part.id, part] as const),
    );
    await connection.cloud.remove([...ids.values()], signal);
    return { kind: 'Delete', ids: [...ids.keys()] };
  });
}

/** Looks whether the cloud still has what the row says; `census` too, where something was missing the last time. */
export function startCheck(work: SiteWork): void {
  const { row, connection, round } = work;
  const suspicious = row.missingSince !== undefined;
  const asked = awaitedAt(round, row.name);
  startAfterWrite(work, { kind: 'Check', ...(asked === undefined ? {} : { asked }) }, async (signal) => {
    const look = await connection.cloud.look(publishOf(work, row.artifacts ?? []), signal);
    const census = suspicious && look.gone.length > 0 ? await connection.cloud.census(signal) : undefined;
    return { kind: 'Check', look, census, asked };
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
