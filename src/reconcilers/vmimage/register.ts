import { type Digests, STRONG, strongest } from '../../api/digest.ts';
import { Failure } from '../../api/failure.ts';
import type { Cloud, CloudRecord, PartBytes, Registration } from '../../clouds/cloud.ts';
import type { Format, Role } from '../../images/format.ts';
import { refsOf } from './named.ts';

/** A part that shall be on the site. */
export interface SitePart {
  role: Role;
  /** Id to register under where the client chooses it; derived from identity and attempt. */
  id: string;
  /** `alg:hex` as published. */
  sourceDigest: string;
  format: Format;
  virtualSize?: number;
  bytes: PartBytes;
  /** Whether the bytes in the cache are still what they were; those that are not are dropped. Asked when the cloud holds others. */
  recheck?(signal: AbortSignal): Promise<boolean>;
  /** What was done to the published bytes; part of the id. */
  transform: string;
}

export interface RegisterJob {
  cloud: Cloud;
  owner: string;
  guid: string;
  /** uid of the VMImage. */
  claim: string;
  attempt: number;
  registration: Registration;
  parts: readonly SitePart[];
  /** Records that the row already names: neither half-made nor unknown. */
  known: ReadonlySet<string>;
  /** Whether a VMImage of this uid exists. A record claimed by one that does is never taken. */
  isAlive(uid: string): boolean;
  onProgress(bytes: number, totalBytes: number): void;
  /** The last look before anybody can see it. @throws Failure when it is not wanted so any more */
  mayPublish(): Promise<void>;
}

export interface RegisteredPart {
  id: string;
  role: Role;
  digest: string;
  sentDigest: string;
  /** The cloud's own hash, which agreed with ours. */
  cloudDigest?: string;
  format: Format;
  size: number;
}

export interface Registered {
  parts: RegisteredPart[];
  /** Earlier registrations of this image that the row had forgotten (its state was lost): to be retired. */
  forgotten: CloudRecord[];
  /** Whether nothing had to be sent. */
  adopted: boolean;
}

/** The kernel and the ramdisk are complete before the disk that names them becomes visible. */
const ORDER: readonly Role[] = ['Kernel', 'Ramdisk', 'Disk'];

/**
 * Gets an image onto a site, exactly once. Looks first: what is ours and proven is adopted; only what is missing is sent. The
 * records become visible in the last step. Safe to call again after a crash at any point.
 */
export async function register(job: RegisterJob, signal: AbortSignal): Promise<Registered> {
  const { cloud } = job;
  const records = await cloud.find({ owner: job.owner, guid: job.guid }, signal);
  refuseForeignClaims(records, job);
  // What an image of this guid that is no more left half-made has the very ids that this one would take (they derive from the
  // guid, not from the uid), and the cloud would refuse them for its sake for ever.
  const strays = records.filter((record) => isHalfMade(record) && record.claim !== job.claim);
  if (strays.length > 0) await cloud.remove(strays, signal);

  const done: RegisteredPart[] = [];
  let adopted = true;
  for (const role of ORDER) {
    const part = job.parts.find((each) => each.role === role);
    if (part === undefined) continue;
    const own = await adopt(part, records, job, signal);
    if (own === undefined) adopted = false;
    const record = own ?? (await stage(part, job, signal));
    const told = strongest(record.cloudDigests);
    done.push({
      ...(told === undefined ? {} : { cloudDigest: told }),
      id: record.id,
      role,
      digest: part.sourceDigest,
      sentDigest: `sha256:${await part.bytes.digest('sha256')}`,
      format: part.format,
      size: part.bytes.size,
    });
  }
  const chosen = new Set(done.map((part) => part.id));
  const others = records.filter(
    (record) => !chosen.has(record.id) && !job.known.has(record.id) && !strays.includes(record),
  );
  const halfMade = others.filter(isHalfMade);
  if (halfMade.length > 0) await cloud.remove(halfMade, signal);
  for (const part of job.parts) await part.bytes.mayFinish();
  await job.mayPublish();
  await cloud.publish(
    {
      parts: refsOf(done),
      ownership: { owner: job.owner, guid: job.guid, claim: job.claim },
      registration: job.registration,
    },
    signal,
  );
  return { parts: done, forgotten: others.filter((record) => !isHalfMade(record)), adopted };
}

/** Two images never share a registration: what belongs to one that lives is named, never taken. */
function refuseForeignClaims(records: readonly CloudRecord[], job: RegisterJob): void {
  const taken = records.find((record) => record.claim !== job.claim && job.isAlive(record.claim));
  if (taken === undefined) return;
  throw new Failure(
    'ClaimedByOther',
    `the registration ${taken.id} with guid ${job.guid} belongs to another VMImage (uid ${taken.claim}); delete that one, or give this one a guid of its own`,
  );
}

/**
 * A record of ours that holds, by the cloud's own hash, exactly the bytes that would be sent. Look-alikes (same properties,
 * other bytes) are left alone: they are not this image.
 */
async function adopt(
  part: SitePart,
  records: readonly CloudRecord[],
  job: RegisterJob,
  signal: AbortSignal,
): Promise<CloudRecord | undefined> {
  const candidates = records
    .filter((record) => record.role === part.role && (record.state === 'Active' || record.state === 'Deactivated'))
    .filter((record) => record.sourceDigest === part.sourceDigest || record.sentSha256 !== undefined)
    .sort((a, b) => rank(a) - rank(b));
  for (const candidate of candidates) {
    const record = await proven(candidate, part, job, signal);
    if (record === undefined) continue;
    if (record.claim !== job.claim) await job.cloud.claim(record.id, ownershipOf(part, job, record.attempt), signal);
    if (record.state === 'Deactivated') {
      const digests: Digests = { sha256: await part.bytes.digest('sha256') };
      for (const name of toldBy(record)) digests[name] = await part.bytes.digest(name);
      await job.cloud.reactivate([{ id: record.id, role: record.role, digests }], signal);
    }
    return record;
  }
  return undefined;
}

/**
 * The record, where the cloud's own word on it agrees with what would be sent. By whichever strong hash it tells: a cloud may compute
 * another than is usual. Waits for the proof where the bytes are still arriving: only when there is something to compare.
 */
async function proven(
  record: CloudRecord,
  part: SitePart,
  { cloud }: RegisterJob,
  signal: AbortSignal,
): Promise<CloudRecord | undefined> {
  if (record.size !== undefined && record.size !== part.bytes.size) return undefined;
  // Where the cloud computes none there is only our own note of what was sent.
  if (cloud.traits.digest === undefined)
    return record.sentSha256 === (await part.bytes.digest('sha256')) ? record : undefined;
  const told = toldBy(record).length > 0 ? record : await cloud.get(record.id, signal);
  const [algorithm] = told === undefined ? [] : toldBy(told);
  if (told === undefined || algorithm === undefined) return undefined;
  return told.cloudDigests[algorithm]?.toLowerCase() === (await part.bytes.digest(algorithm)) ? told : undefined;
}

function toldBy({ cloudDigests }: CloudRecord) {
  return STRONG.filter((name) => cloudDigests[name] !== undefined);
}

/** In service before out of service, the newest first. */
function rank(record: CloudRecord): number {
  return (record.state === 'Active' ? 0 : 2) + (record.published ? 0 : 1);
}

function stage(part: SitePart, job: RegisterJob, signal: AbortSignal): Promise<CloudRecord> {
  return job.cloud.stage(
    {
      id: part.id,
      role: part.role,
      ownership: ownershipOf(part, job, job.attempt),
      registration: job.registration,
      format: part.format,
      ...(part.virtualSize === undefined ? {} : { virtualSize: part.virtualSize }),
      bytes: part.bytes,
      onProgress: (bytes, totalBytes) => job.onProgress(bytes, totalBytes),
    },
    signal,
  );
}

function ownershipOf(part: SitePart, job: RegisterJob, attempt: number) {
  return { owner: job.owner, guid: job.guid, claim: job.claim, sourceDigest: part.sourceDigest, attempt };
}

/** No machine can boot it and nothing but us knows of it: left by a process that died. */
export function isHalfMade(record: CloudRecord): boolean {
  return record.state === 'Empty' || record.state === 'Uploading' || record.state === 'Broken';
}
