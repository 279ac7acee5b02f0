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

/** How many entries are written at a time: ten thousand images are 10 MB, which nobody needs in one piece. */
const ENTRIES_A_PIECE = 64;

/** The index of one site, as its records make it. Staged, retired and hidden images are not in it. */
export class IndexFile {
  readonly #path: string;
  readonly #records: PartRecords;
  /** The text of each entry, with the records that it was made of: an image's publication writes all the others again. */
  readonly #entries = new WeakMap<PartRecord, { parts: readonly PartRecord[]; text: string }>();
  #next: Promise<void> | undefined;
  #last: Promise<void> = Promise.resolve();
  #comparison: Promise<boolean> | undefined;
  /** The records and the file that agree. */
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
      await this.#write();
    };
    this.#next ??= this.#last = this.#last.then(write, write);
    return this.#next;
  }

  /** Whether the file is what the records make. Made anew only where one of them has changed since the last look. */
  async isCurrent(): Promise<boolean> {
    // Between a record and the index stands the work of other images: who changes a record writes the index, and nobody else did.
    if (this.#records.isWriting) return true;
    const file = await this.#stamp();
    // The table may turn out to be another's by now, which changes the revision.
    await this.#records.all();
    const { revision } = this.#records;
    if (this.#agreed !== undefined && this.#agreed.revision === revision && this.#agreed.file === file) return true;
    // A thousand images that are looked at in the same second share one comparison, and the memory for it.
    this.#comparison ??= this.#compare(file).finally(() => {
      this.#comparison = undefined;
    });
    return (await this.#comparison) || this.#records.isWriting || this.#records.revision !== revision;
  }

  async #compare(file: string | undefined): Promise<boolean> {
    const { pieces, revision } = await this.#made();
    const agrees = await this.#holds(pieces);
    this.#agree(agrees ? revision : undefined, file);
    return agrees;
  }

  async #write(): Promise<void> {
    const { pieces, revision } = await this.#made();
    const before = await this.#stamp();
    const known = this.#agreed !== undefined && this.#agreed.file === before ? this.#agreed.revision : undefined;
    // What nobody has touched since it agreed with other records need not be read to know that it is to be written.
    const holds = known === undefined ? await this.#holds(pieces) : known === revision;
    if (!holds) await writeAtomically(this.#path, pieces);
    this.#agree(revision, await this.#stamp());
  }

  #agree(revision: number | undefined, file: string | undefined): void {
    this.#agreed = revision === undefined || file === undefined ? undefined : { revision, file };
  }

  /** The text in pieces, and the revision of the records that it tells of; undefined where one changed meanwhile. */
  async #made(): Promise<{ pieces: string[]; revision: number | undefined }> {
    const { revision } = this.#records;
    const published = new Map<string, PartRecord>();
    for (const record of await this.#records.all()) if (record.phase === 'published') published.set(record.id, record);
    const settled = this.#records.revision === revision ? revision : undefined;
    const disks = [...published.values()]
      .filter(({ role, registration }) => role === 'Disk' && !registration.hidden)
      .sort(byName);
    const pieces: string[] = [];
    for (let at = 0; at < disks.length; at += ENTRIES_A_PIECE) {
      const texts = disks.slice(at, at + ENTRIES_A_PIECE).map((disk) => this.#entry(disk, published));
      pieces.push(`${at === 0 ? '\n' : ',\n'}${texts.join(',\n')}`);
    }
    // As JSON.stringify(index, undefined, 2) has it.
    const head = `{\n  "version": ${1 satisfies Index['version']},\n  "images": [`;
    return { pieces: [head, ...pieces, disks.length === 0 ? ']\n}\n' : '\n  ]\n}\n'], revision: settled };
  }

  #entry(disk: PartRecord, published: ReadonlyMap<string, PartRecord>): string {
    const parts = [disk, ...beside(disk, published)];
    const known = this.#entries.get(disk);
    if (known?.parts.every((part, index) => part === parts[index]) && known.parts.length === parts.length)
      return known.text;
    const text = `    ${JSON.stringify(entryOf(disk, parts), undefined, 2).replaceAll('\n', '\n    ')}`;
    this.#entries.set(disk, { parts, text });
    return text;
  }

  async #holds(pieces: readonly string[]): Promise<boolean> {
    return (await readFile(this.#path, 'utf8').catch(() => undefined)) === pieces.join('');
  }

  /** Another one when somebody wrote to the file, or put another in its place. */
  async #stamp(): Promise<string | undefined> {
    const info = await stat(this.#path, { bigint: true }).catch(() => undefined);
    return info === undefined ? undefined : `${info.ino} ${info.size} ${info.mtimeNs} ${info.ctimeNs}`;
  }
}

function byName({ registration: a, id }: PartRecord, { registration: b, id: other }: PartRecord): number {
  if (a.name !== b.name) return a.name < b.name ? -1 : 1;
  return id < other ? -1 : 1;
}

/** What the disk is booted with. */
function beside(disk: PartRecord, published: ReadonlyMap<string, PartRecord>): PartRecord[] {
  return [disk.boot.Kernel, disk.boot.Ramdisk]
    .map((id) => (id === undefined ? undefined : published.get(id)))
    .filter((part) => part !== undefined);
}

function entryOf(disk: PartRecord, parts: readonly PartRecord[]): IndexEntry {
  const { ownership, registration } = disk;
  return {
    id: disk.id,
    ...registration,
    guid: ownership.guid,
    owner: ownership.owner,
    claim: ownership.claim,
    sourceDigest: ownership.sourceDigest,
    registeredAt: disk.registeredAt ?? disk.createdAt,
    published: true,
    files: parts.map((part) => ({
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
