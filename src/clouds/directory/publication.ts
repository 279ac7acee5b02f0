import { rm } from 'node:fs/promises';
import { isDeepStrictEqual } from 'node:util';
import { ALGORITHMS, type Digests, sameBytes, STRONG } from '../../api/digest.ts';
import { Failure } from '../../api/failure.ts';
import type { Role } from '../../images/format.ts';
import type { Transfers } from '../../transfers/transfers.ts';
import type { Look, PartRef, PublishImage, Registration } from '../cloud.ts';
import type { IndexFile } from './catalog.ts';
import { move } from './durable.ts';
import { type Located, locate, type PartRecord, type Phase, placeOf, untouched } from './record.ts';
import type { PartRecords } from './records.ts';
import type { Site } from './site.ts';

/** A disk is never in place before what it boots from. */
const ORDER: readonly Role[] = ['Kernel', 'Ramdisk', 'Disk'];

export interface PublicationContext {
  site: Site;
  records: PartRecords;
  index: IndexFile;
  transfers: Transfers;
  now(): number;
}

/** Files come into place first, the index that names them last. */
export async function publish({ site, records, index, now }: PublicationContext, image: PublishImage): Promise<void> {
  for (const part of inOrder(image.parts)) {
    const { record, located } = await present({ site, records }, part.id);
    assertPublishable(record, part, image);
    const to = placeOf(site, record, 'published');
    if (located.path !== to) await move(located.path, to);
    const wanted: PartRecord = {
      ...record,
      phase: 'published',
      registration: image.registration,
      boot: part.role === 'Disk' ? bootOf(image.parts) : {},
      registeredAt: record.registeredAt ?? new Date(now()).toISOString(),
    };
    if (!isDeepStrictEqual(wanted, record)) await records.write(wanted);
  }
  await index.refresh();
}

export async function look(
  { site, records, index, transfers }: PublicationContext,
  image: PublishImage,
  signal: AbortSignal,
): Promise<Look> {
  const result: Look = { gone: [], changed: [] };
  const changed = new Set<string>();
  for (const part of inOrder(image.parts)) {
    const record = await records.read(part.id);
    const located = record === undefined ? undefined : await locate(site, record);
    if (record === undefined || located === undefined) {
      result.gone.push(part.id);
      continue;
    }
    const difference = await differenceOf(record, located, part.digests, transfers, signal);
    if (difference !== undefined) result.tampered ??= difference;
    if (record.phase !== 'published' || located.path !== placeOf(site, record, 'published')) changed.add('published');
    if (record.ownership.claim !== image.ownership.claim) changed.add('claim');
    if (part.role === 'Disk') {
      for (const field of fieldsThatDiffer(record.registration, image.registration)) changed.add(field);
      const boot = bootOf(image.parts);
      if (record.boot.Kernel !== boot.Kernel || record.boot.Ramdisk !== boot.Ramdisk) changed.add('boot');
    }
  }
  if (!(await index.isCurrent())) changed.add('index.json');
  result.changed = [...changed].sort();
  return result;
}

/** Out of the index, then out of sight; machines that have the file open keep it. */
export async function retire({ site, records, index }: PublicationContext, parts: readonly PartRef[]): Promise<void> {
  const found = await note({ site, records }, parts, 'retired');
  await index.refresh();
  for (const { record, located } of found) {
    const to = placeOf(site, record, 'retired');
    if (located !== undefined && located.path !== to) await move(located.path, to);
  }
}

export async function reactivate(
  { site, records, transfers }: PublicationContext,
  parts: readonly PartRef[],
  signal: AbortSignal,
): Promise<void> {
  for (const part of parts) {
    const { record, located } = await present({ site, records }, part.id);
    const wanted = STRONG.filter((name) => part.digests?.[name] !== undefined);
    // The file has been out of our sight: its hash is taken anew, not believed.
    const is = wanted.length === 0 ? {} : await transfers.digest(located.path, wanted, signal);
    if (!sameBytes(part.digests ?? {}, is)) {
      throw new Failure(
        'CloudDigestMismatch',
        `${located.path} is not reactivated: it is not the image that was retired`,
      );
    }
    if (record.phase !== 'retired') continue;
    const to = placeOf(site, record, 'staged');
    if (located.path !== to) await move(located.path, to);
    await records.write({ ...record, phase: 'staged', modified: located.modified });
  }
}

export async function remove({ site, records, index }: PublicationContext, parts: readonly PartRef[]): Promise<void> {
  const found = await note({ site, records }, parts, 'retired');
  await index.refresh();
  for (const { record } of found) {
    for (const phase of ['published', 'staged', 'retired'] as const)
      await rm(placeOf(site, record, phase), { force: true });
    // Last: as long as the record is there, a removal that was cut can be done again.
    await records.delete(record.id);
  }
}

/** Notes a phase on the records that are there; the disk first, so that the index never names a disk without its kernel. */
async function note(
  { site, records }: Pick<PublicationContext, 'site' | 'records'>,
  parts: readonly PartRef[],
  phase: Phase,
): Promise<{ record: PartRecord; located: Located | undefined }[]> {
  const found = [];
  for (const part of inOrder(parts).toReversed()) {
    const record = await records.read(part.id);
    if (record === undefined) continue;
    const located = await locate(site, record);
    const unfinished = record.phase === 'staging';
    if (record.phase !== phase && !unfinished) await records.write({ ...record, phase });
    found.push({ record: unfinished ? record : { ...record, phase }, located });
  }
  return found;
}

/** @throws Failure Gone where a look would not find it either. */
async function present(
  { site, records }: Pick<PublicationContext, 'site' | 'records'>,
  id: string,
): Promise<{ record: PartRecord; located: Located }> {
  const record = await records.read(id);
  const located = record === undefined ? undefined : await locate(site, record);
  if (record === undefined || located === undefined) {
    throw new Failure('Gone', `image ${id} is not in ${site.path} any more`);
  }
  return { record, located };
}

function assertPublishable(record: PartRecord, part: PartRef, { ownership }: PublishImage): void {
  if (record.ownership.owner !== ownership.owner || record.ownership.guid !== ownership.guid) {
    throw new Failure('ClaimedByOther', `image ${part.id} has another owner or guid: it is left alone`);
  }
  if (record.ownership.claim !== ownership.claim) {
    throw new Failure('ClaimedByOther', `image ${part.id} belongs to another VMImage (uid ${record.ownership.claim})`);
  }
  if (record.phase === 'staging' || record.phase === 'retired') {
    throw new Failure('Conflict', `image ${part.id} is ${record.phase}: it cannot be published`);
  }
  if (part.digests?.sha256 !== undefined && part.digests.sha256 !== record.sha256) {
    throw new Failure(
      'CloudDigestMismatch',
      `image ${part.id}: its sha256 is ${record.sha256}, not ${part.digests.sha256}`,
    );
  }
}

async function differenceOf(
  record: PartRecord,
  located: Located,
  digests: Digests | undefined,
  transfers: Transfers,
  signal: AbortSignal,
): Promise<string | undefined> {
  if (located.size !== record.size) return `${located.path} has ${located.size} bytes instead of ${record.size}`;
  const known = digests ?? {};
  const wrong = known.sha256 !== undefined && record.sha256 !== undefined && known.sha256 !== record.sha256;
  if (wrong) return `${located.path} holds ${record.sha256}, not ${known.sha256}`;
  if (untouched(record, located)) return undefined;
  // Written to since: only its bytes can say whether it is still the image.
  const expected: Digests = { ...known, ...(record.sha256 === undefined ? {} : { sha256: record.sha256 }) };
  const wanted = ALGORITHMS.filter((name) => STRONG.includes(name) && expected[name] !== undefined);
  const is = await transfers.digest(located.path, wanted, signal);
  return sameBytes(expected, is) ? undefined : `${located.path} was changed after it was published`;
}

/** Names of the registration's fields that differ; of properties each by its own name. */
function fieldsThatDiffer(is: Registration, shall: Registration): string[] {
  const names = new Set([...Object.keys(is), ...Object.keys(shall)]) as Set<keyof Registration>;
  return [...names].flatMap((name) => {
    if (name !== 'properties') return isDeepStrictEqual(is[name], shall[name]) ? [] : [name];
    const keys = new Set([...Object.keys(is.properties), ...Object.keys(shall.properties)]);
    return [...keys].filter((key) => is.properties[key] !== shall.properties[key]).map((key) => `properties.${key}`);
  });
}

function bootOf(parts: readonly PartRef[]): PartRecord['boot'] {
  const kernel = parts.find(({ role }) => role === 'Kernel')?.id;
  const ramdisk = parts.find(({ role }) => role === 'Ramdisk')?.id;
  return {
    ...(kernel === undefined ? {} : { Kernel: kernel }),
    ...(ramdisk === undefined ? {} : { Ramdisk: ramdisk }),
  };
}

function inOrder(parts: readonly PartRef[]): PartRef[] {
  return [...parts].sort((a, b) => ORDER.indexOf(a.role) - ORDER.indexOf(b.role));
}
