import { Failure } from '../../api/failure.ts';
import type { ImageSite, RegisteredArtifact, SiteRow } from '../../api/types.ts';
import type { CloudRecord, Look, PublishImage, Registration } from '../../clouds/cloud.ts';
import { LEASE_MARGIN_MS } from '../deps.ts';
import type { Connection } from '../imagesite/connections.ts';
import { hashOf } from './identity.ts';
import { damaged } from './intact.ts';
import { register, type Registered, type RegisterJob, type SitePart } from './register.ts';
import { awaitedAt, jobKey, type Round, stamp } from './round.ts';
import { knownIds, refsOf } from './named.ts';
import { tell } from './rows.ts';

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
