import { chmod, rm, stat } from 'node:fs/promises';
import { Failure } from '../../api/failure.ts';
import type { Transfers } from '../../transfers/transfers.ts';
import type { CloudRecord, StagePart } from '../cloud.ts';
import { fileFailure } from './durable.ts';
import { cloudRecordOf, fileName, locate, type PartRecord, placeOf, untouched } from './record.ts';
import type { PartRecords } from './records.ts';
import type { Site } from './site.ts';

export interface StagingContext {
  site: Site;
  records: PartRecords;
  transfers: Transfers;
  now(): number;
}

/**
 * Copies one part into `.staging`, reads it back and compares. The record is written before the first byte, and says `staged` only
 * after the comparison; a failure leaves neither file nor record.
 */
export async function stage(context: StagingContext, part: StagePart, signal: AbortSignal): Promise<CloudRecord> {
  const { site, records } = context;
  const existing = await records.read(part.id);
  if (existing !== undefined) {
    assertOurs(existing, part);
    const located = await locate(site, existing);
    if (existing.phase !== 'staging' && located !== undefined) {
      await part.bytes.mayFinish();
      const { sha256 } = untouched(existing, located)
        ? existing
        : await context.transfers.digest(located.path, ['sha256'], signal);
      if (sha256 !== existing.sha256) throw mismatch(existing, located.path);
      // A conversion that is made again does not give the same bytes in every format; this one may be in service.
      if (sha256 !== (await part.bytes.digest('sha256')))
        throw new Failure('IdTaken', `id ${part.id} is that of an image with sha256 ${sha256} at this site`);
      return cloudRecordOf(existing, located);
    }
  }
  const record: PartRecord = {
    id: part.id,
    role: part.role,
    phase: 'staging',
    file: fileName(part.id, part.role, part.format),
    format: part.format,
    size: part.bytes.size,
    ...(part.virtualSize === undefined ? {} : { virtualSize: part.virtualSize }),
    ownership: { ...part.ownership },
    registration: part.registration,
    boot: {},
    createdAt: new Date(context.now()).toISOString(),
  };
  const to = placeOf(site, record);
  await records.write(record);
  try {
    await fill(context, record, to, part, signal);
  } catch (error) {
    await rm(to, { force: true });
    await records.delete(part.id);
    const failure = signal.aborted ? new Failure('Aborted', 'stopped', { cause: error }) : fileFailure(error, to);
    if (failure.reason !== 'DiskFull') throw failure;
    throw new Failure(
      'DiskFull',
      `${site.path} has no room for ${part.bytes.size} bytes: free space on its volume, or give it more`,
      { cause: error },
    );
  }
  return cloudRecordOf((await records.read(part.id)) ?? record, await locate(site, record));
}

async function fill(
  context: StagingContext,
  record: PartRecord,
  to: string,
  part: StagePart,
  signal: AbortSignal,
): Promise<void> {
  await part.bytes.mayFinish();
  // What a killed process left half copied.
  await rm(to, { force: true });
  const onProgress = (bytes: number): void => part.onProgress?.(bytes, part.bytes.size);
  await context.transfers.copy({ from: part.bytes.path, to }, { onProgress }, signal);
  const sha256 = await assertSame(context, record, to, part, signal);
  await chmod(to, 0o444);
  const { mtimeMs } = await stat(to);
  await context.records.write({ ...record, phase: 'staged', sha256, modified: mtimeMs });
}

/** A folder computes no hash: the file is read back. @throws Failure CloudDigestMismatch */
async function assertSame(
  context: StagingContext,
  record: PartRecord,
  path: string,
  part: StagePart,
  signal: AbortSignal,
): Promise<string> {
  const { size } = await stat(path);
  const ours = await part.bytes.digest('sha256');
  const { sha256 } = await context.transfers.digest(path, ['sha256'], signal);
  if (size !== part.bytes.size || sha256 !== ours) throw mismatch(record, path);
  return sha256;
}

function mismatch(record: PartRecord, path: string): Failure {
  return new Failure(
    'CloudDigestMismatch',
    `${path} (image ${record.id}) does not hold what was written: check the volume for errors, and who else writes there`,
  );
}

function assertOurs(existing: PartRecord, part: StagePart): void {
  const { owner, guid, claim } = existing.ownership;
  if (owner !== part.ownership.owner || guid !== part.ownership.guid || existing.role !== part.role) {
    throw new Failure('IdTaken', `id ${part.id} is another image's at this site`);
  }
  // Whoever calls has seen to it that no living VMImage has this claim, and may take another id.
  if (claim !== part.ownership.claim) {
    throw new Failure('IdTaken', `id ${part.id} is that of another VMImage with the same guid (uid ${claim})`);
  }
}
