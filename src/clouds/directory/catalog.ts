import { readFile, stat } from 'node:fs/promises';
import type { Digests } from '../../api/digest.ts';
import type { Format, Role } from '../../images/format.ts';
import type { Registration } from '../cloud.ts';
import { writeAtomically } from './durable.ts';
import type { PartRecord } from './record.ts';
import type { PartRecords } from './records.ts';
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

/** The index of one site, as its records make it. Staged, retired and hidden images are not in it. */
export class IndexFile {
  readonly #path: string;
  readonly #records: PartRecords;
  #next: Promise<void> | undefined;
  #last: Promise<void> = Promise.resolve();
  /** The records and the file that were seen to agree. */
  #agreed: { revision: number; file: string } | undefined;

  constructor(site: Site, records: PartRecords) {
    this.#path = site.in(LAYOUT.index);
    this.#records = records;
  }

  /**
   * Resolves when the index tells of everything that was recorded before the call. Whoever comes while one is being written shares
   * the next: twenty images published at a time write it twice.
   */
  refresh(): Promise<void> {
    const write = async (): Promise<void> => {
      this.#next = undefined;
      const text = await this.#text();
      if ((await this.#read()) !== text) await writeAtomically(this.#path, text);
    };
    this.#next ??= this.#last = this.#last.then(write, write);
    return this.#next;
  }

  /** Whether the file is what the records make. Made anew only where one of them has changed since the last look. */
  async isCurrent(): Promise<boolean> {
    const file = await this.#stamp();
    // The table may turn out to be another's by now, which changes the revision.
    await this.#records.all();
    const { revision } = this.#records;
    if (this.#agreed !== undefined && this.#agreed.revision === revision && this.#agreed.file === file) return true;
    const agrees = (await this.#read()) === (await this.#text());
    this.#agreed = agrees && file !== undefined ? { revision, file } : undefined;
    // Between a record and the index stands the work of other images: who changes a record writes the index, and nobody else did.
    return agrees || this.#records.isWriting || this.#records.revision !== revision;
  }

  async #text(): Promise<string> {
    const published = new Map<string, PartRecord>();
    for (const record of await this.#records.all()) if (record.phase === 'published') published.set(record.id, record);
    const images = [...published.values()]
      .filter(({ role, registration }) => role === 'Disk' && !registration.hidden)
      .map((disk) => entryOf(disk, published))
      .sort((a, b) => (a.name === b.name ? (a.id < b.id ? -1 : 1) : a.name < b.name ? -1 : 1));
    return `${JSON.stringify({ version: 1, images } satisfies Index, undefined, 2)}\n`;
  }

  async #read(): Promise<string | undefined> {
    return await readFile(this.#path, 'utf8').catch(() => undefined);
  }

  /** Another one when somebody wrote to the file, or put another in its place. */
  async #stamp(): Promise<string | undefined> {
    const info = await stat(this.#path, { bigint: true }).catch(() => undefined);
    return info === undefined ? undefined : `${info.ino} ${info.size} ${info.mtimeNs} ${info.ctimeNs}`;
  }
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
