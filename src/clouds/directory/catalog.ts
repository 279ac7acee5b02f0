import { readFile } from 'node:fs/promises';
import type { Digests } from '../../api/digest.ts';
import type { Format, Role } from '../../images/format.ts';
import type { Registration } from '../cloud.ts';
import { writeAtomically } from './durable.ts';
import type { PartRecord, PartRecords } from './records.ts';
import { LAYOUT, type Site } from './site.ts';

/** `index.json`: what programs read. Fields are only ever added. */
export interface Index {
  version: 1;
  images: IndexEntry[];
}

export interface IndexEntry extends Registration {
  /** The image's id: its disk's. */
  id: string;
  guid: string;
  owner: string;
  claim: string;
  /** Strongest declared digest of the disk as its publisher named it. */
  sourceDigest: string;
  registeredAt: string;
  published: true;
  /** The disk first. */
  files: {
    role: Role;
    id: string;
    file: string;
    format: Format;
    size: number;
    virtualSize?: number;
    digests: Digests;
  }[];
}

/** The index as the records make it. Staged, retired and hidden images are not in it. */
export async function indexText(records: PartRecords): Promise<string> {
  const published = new Map<string, PartRecord>();
  for await (const record of records.all()) if (record.phase === 'published') published.set(record.id, record);
  const images = [...published.values()]
    .filter(({ role, registration }) => role === 'Disk' && !registration.hidden)
    .map((disk) => entryOf(disk, published))
    .sort((a, b) => (a.name === b.name ? (a.id < b.id ? -1 : 1) : a.name < b.name ? -1 : 1));
  return `${JSON.stringify({ version: 1, images } satisfies Index, undefined, 2)}\n`;
}

export async function readIndex(site: Site): Promise<string | undefined> {
  return await readFile(site.in(LAYOUT.index), 'utf8').catch(() => undefined);
}

/** Writes the index where it differs. */
export async function refreshIndex(site: Site, records: PartRecords): Promise<void> {
  const text = await indexText(records);
  if ((await readIndex(site)) !== text) await writeAtomically(site.in(LAYOUT.index), text);
}

function entryOf(disk: PartRecord, published: ReadonlyMap<string, PartRecord>): IndexEntry {
  const { ownership, registration } = disk;
  const beside = [disk.boot.Kernel, disk.boot.Ramdisk]
    .map((id) => (id === undefined ? undefined : published.get(id)))
    .filter((part) => part !== undefined);
  return {
    id: disk.id,
    ...registration,
    guid: ownership.guid,
    owner: ownership.owner,
    claim: ownership.claim,
    sourceDigest: ownership.sourceDigest,
    registeredAt: disk.registeredAt ?? disk.createdAt,
    published: true,
    files: [disk, ...beside].map((part) => ({
      role: part.role,
      id: part.id,
      file: part.file,
      format: part.format,
      size: part.size,
      ...(part.virtualSize === undefined ? {} : { virtualSize: part.virtualSize }),
      digests: part.sha256 === undefined ? {} : { sha256: part.sha256 },
    })),
  };
}
