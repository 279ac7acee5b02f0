import { Failure } from '../../api/failure.ts';
import { FORMATS } from '../../images/format.ts';
import type {
  Cloud,
  CloudContext,
  CloudRecord,
  CloudTraits,
  Look,
  Ownership,
  PartRef,
  Probe,
  PublishImage,
  StagePart,
} from '../cloud.ts';
import { whileLocked } from './lock.ts';
import * as publication from './publication.ts';
import { cloudRecordOf, fileName, locate, untouched } from './record.ts';
import { type Books, openBooks } from './books.ts';
import { LAYOUT, Site } from './site.ts';
import { stage } from './staging.ts';

/** `spec.directory` of an ImageSite. */
export interface DirectorySpec {
  path: string;
}

/** How long another process's write is waited for. */
const LOCK_MS = 5_000;

/**
 * A folder of image files with an `index.json`, for libvirt or a web server:
 *
 * ```
 * index.json              every published image: name, files, formats, sizes, digests, properties
 * <id>.qcow2              a published disk; <id>.kernel and <id>.ramdisk beside it
 * .imageproxy-site.json   the site's identity
 * .records/<id>.json      what is known of each part
 * .staging/  .retired/    data that is not published yet, or no more
 * ```
 *
 * Visibility, members and protection are kept in the index for whoever reads it; a folder enforces none of them.
 */
export function openDirectory(spec: DirectorySpec, context: CloudContext): Cloud {
  return new DirectoryCloud(new Site(spec.path, context.knownIdentity), context);
}

class DirectoryCloud implements Cloud {
  readonly traits: CloudTraits = { formats: FORMATS, digest: 'sha256', mayFollow: false, clientChosenIds: true };
  readonly #site: Site;
  readonly #books: Books;
  readonly #context: CloudContext;
  readonly #running = new Set<string>();

  constructor(site: Site, context: CloudContext) {
    this.#site = site;
    this.#context = context;
    this.#books = openBooks(site, context.log);
  }

  async probe(_signal: AbortSignal): Promise<Probe> {
    const identity = await this.#site.identify(async (work) => await whileLocked(this.#lock, LOCK_MS, work));
    return { identity, details: { path: this.#site.path }, endpoints: [] };
  }

  async find(ownership: Pick<Ownership, 'owner' | 'guid'>, _signal: AbortSignal): Promise<CloudRecord[]> {
    await this.#site.assertSame();
    const found: CloudRecord[] = [];
    for (const record of await this.#books.records.all()) {
      if (record.ownership.owner !== ownership.owner || record.ownership.guid !== ownership.guid) continue;
      const located = await locate(this.#site, record);
      // Complete once, and its file is gone: there is nothing to adopt.
      if (located !== undefined || record.phase === 'staging') found.push(cloudRecordOf(record, located));
    }
    return found;
  }

  async get(id: string, signal: AbortSignal): Promise<CloudRecord | undefined> {
    await this.#site.assertSame();
    const record = await this.#books.records.read(id);
    if (record === undefined) return undefined;
    const located = await locate(this.#site, record);
    if (located === undefined || record.phase === 'staging')
      return record.phase === 'staging' ? cloudRecordOf(record, located) : undefined;
    const told = cloudRecordOf(record, located);
    if (untouched(record, located)) return told;
    // Touched since its hash was taken, as are all files of a folder that was copied without their times: only its bytes can tell.
    return { ...told, cloudDigests: await this.#context.transfers.digest(located.path, ['sha256'], signal) };
  }

  async census(_signal: AbortSignal): Promise<Set<string>> {
    await this.#site.assertSame();
    const ids = new Set<string>();
    for (const record of await this.#books.records.all()) {
      if ((await locate(this.#site, record)) !== undefined) ids.add(record.id);
    }
    return ids;
  }

  async stage(part: StagePart, signal: AbortSignal): Promise<CloudRecord> {
    fileName(part.id, part.role, part.format);
    if (this.#running.has(part.id)) throw new Failure('Conflict', `image ${part.id} is being copied already`);
    this.#running.add(part.id);
    try {
      return await this.#writing(async () => await stage(this.#parts, part, signal));
    } finally {
      this.#running.delete(part.id);
    }
  }

  async claim(id: string, ownership: Ownership, _signal: AbortSignal): Promise<void> {
    await this.#writing(async () => {
      const record = await this.#books.records.read(id);
      if (record === undefined)
        throw new Failure('Conflict', `image ${id} is not at this site any more: looking again`);
      if (record.ownership.owner !== ownership.owner || record.ownership.guid !== ownership.guid) {
        throw new Failure('ClaimedByOther', `image ${id} has another owner or guid: it is left alone`);
      }
      if (record.ownership.claim === ownership.claim) return;
      await this.#books.records.write({ ...record, ownership: { ...record.ownership, claim: ownership.claim } });
    });
  }

  async publish(image: PublishImage, _signal: AbortSignal): Promise<void> {
    await this.#writing(async () => await publication.publish(this.#parts, image));
  }

  async look(image: PublishImage, signal: AbortSignal): Promise<Look> {
    await this.#site.assertSame();
    return await publication.look(this.#parts, image, signal);
  }

  async retire(parts: readonly PartRef[], _signal: AbortSignal): Promise<void> {
    await this.#writing(async () => await publication.retire(this.#parts, parts));
  }

  async reactivate(parts: readonly PartRef[], signal: AbortSignal): Promise<void> {
    await this.#writing(async () => await publication.reactivate(this.#parts, parts, signal));
  }

  async remove(parts: readonly PartRef[], _signal: AbortSignal): Promise<void> {
    await this.#writing(async () => await publication.remove(this.#parts, parts));
  }

  async close(): Promise<void> {
    this.#books.close();
  }

  get #lock(): string {
    return this.#site.in(LAYOUT.lock);
  }

  get #parts(): publication.PublicationContext {
    const { records, index } = this.#books;
    const { transfers } = this.#context;
    return { site: this.#site, records, index, transfers, now: () => this.#context.now() };
  }

  /** With the site's lock, beside other jobs of this process; on no other folder than the one we know. */
  async #writing<T>(work: () => Promise<T>): Promise<T> {
    await this.#site.assertSame();
    return await whileLocked(this.#lock, LOCK_MS, async () => {
      await this.#site.assertSame();
      return await this.#books.records.whileWriting(work);
    });
  }
}
