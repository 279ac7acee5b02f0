import { randomUUID } from 'node:crypto';
import { readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { isDeepStrictEqual } from 'node:util';
import type { Logger } from 'pino';
import { Failure } from '../../api/failure.ts';
import { fileFailure, writeAtomically } from './durable.ts';
import { type PartRecord, parseRecord } from './record.ts';
import { LAYOUT, type Site } from './site.ts';

/** How many records are read at a time. */
const PARALLEL = 32;

type Table = Map<string, PartRecord>;

/**
 * All records of a site. They are kept in memory, because most steps look at all of them, and a site with ten thousand images would
 * otherwise be read from its disk at every registration. Other processes may write the same folder, one at a time under the site's
 * lock, so `.imageproxy-writer` says who wrote last, and whether he is still at it: the table holds as long as that is unchanged.
 */
export class PartRecords {
  /** Another one whenever a record may have changed. */
  revision = 0;
  readonly #site: Site;
  readonly #log: Logger;
  readonly #name = randomUUID();
  #table: Table | undefined;
  /** What it said when the table was read, or when we wrote to it last. */
  #writer: string | undefined;
  #writing = 0;
  #turns = 0;
  /** Entering and leaving, one after the other. */
  #door: Promise<void> = Promise.resolve();
  /** What we change while the table is being read. */
  #changes: Map<string, PartRecord | undefined> | undefined;
  #loading: Promise<Table> | undefined;

  constructor(site: Site, log: Logger) {
    this.#site = site;
    this.#log = log;
  }

  /** Whether something of this process is at work on the records, and on what is made from them. */
  get isWriting(): boolean {
    return this.#writing > 0;
  }

  /** Runs what may write. The caller holds the site's lock until it ends, so nobody else writes meanwhile. */
  async whileWriting<T>(work: () => Promise<T>): Promise<T> {
    this.#writing += 1;
    const enter = () => this.#enter();
    if (this.#writing === 1) this.#door = this.#door.then(enter, enter);
    try {
      await this.#door;
      return await work();
    } finally {
      this.#writing -= 1;
      const leave = () => this.#leave();
      if (this.#writing === 0) await (this.#door = this.#door.then(leave, leave));
    }
  }

  /** From the disk: what a person took away or put back shows here first. */
  async read(id: string): Promise<PartRecord | undefined> {
    const record = await this.#parsed(id);
    if (this.#table !== undefined && !isDeepStrictEqual(this.#table.get(id), record)) this.#forget();
    return record;
  }

  async write(record: PartRecord): Promise<void> {
    await writeAtomically(this.#path(record.id), `${JSON.stringify(record, undefined, 2)}\n`);
    this.#note(record.id, record);
  }

  async delete(id: string): Promise<void> {
    await rm(this.#path(id), { force: true });
    await rm(`${this.#path(id)}.tmp`, { force: true });
    this.#note(id, undefined);
  }

  /** As they are now, in no order. */
  async all(): Promise<PartRecord[]> {
    const table = (await this.#isCurrent()) ? this.#table : undefined;
    if (table !== undefined) return [...table.values()];
    this.#loading ??= this.#load().finally(() => {
      this.#loading = undefined;
      this.#changes = undefined;
    });
    return [...(await this.#loading).values()];
  }

  async #isCurrent(): Promise<boolean> {
    if (this.#table === undefined) return false;
    if (this.#writing > 0) await this.#door;
    return this.#writing > 0 || (await this.#said()) === this.#writer;
  }

  async #load(): Promise<Table> {
    const changes = new Map<string, PartRecord | undefined>();
    this.#changes = changes;
    const [turn, before] = [this.#turns, await this.#said()];
    const table: Table = new Map();
    const ids = await this.#ids();
    const reader = async (): Promise<void> => {
      for (let id = ids.pop(); id !== undefined; id = ids.pop()) {
        const record = await this.#parsed(id);
        if (record !== undefined) table.set(id, record);
      }
    };
    await Promise.all(Array.from({ length: PARALLEL }, reader));
    const after = await this.#said();
    // From here to the end without a pause: a change in between would be in neither.
    for (const [id, record] of changes) put(table, id, record);
    this.#changes = undefined;
    this.revision += 1;
    // Who is writing at this moment may have changed what we read first, and does not say so before he has done.
    const ours = this.#writing > 0 && this.#turns === turn && turn > 0;
    if (before === after && (ours || after?.endsWith(DONE) === true)) {
      this.#table = table;
      this.#writer = after;
    }
    return table;
  }

  #note(id: string, record: PartRecord | undefined): void {
    this.revision += 1;
    this.#changes?.set(id, record);
    if (this.#table !== undefined) put(this.#table, id, record);
  }

  #forget(): void {
    this.revision += 1;
    this.#table = undefined;
  }

  async #enter(): Promise<void> {
    if ((await this.#said()) !== this.#writer) this.#forget();
    this.#turns += 1;
    await this.#say(`${this.#name} ${this.#turns} is writing`);
  }

  async #leave(): Promise<void> {
    // If it cannot be said, everybody reads the disk until somebody else writes: slow, and right.
    await this.#say(`${this.#name} ${this.#turns} ${DONE}`).catch(() => undefined);
  }

  async #said(): Promise<string | undefined> {
    return await readFile(this.#site.in(LAYOUT.writer), 'utf8').catch(() => undefined);
  }

  /** Not synced: after a power cut there is no table in any memory that it could speak of. */
  async #say(what: string): Promise<void> {
    const path = this.#site.in(LAYOUT.writer);
    try {
      await writeFile(`${path}.tmp`, what);
      await rename(`${path}.tmp`, path);
      this.#writer = what;
    } catch (error) {
      // On a full disk images must still be removable; where nothing is said, nothing is believed.
      this.#forget();
      await rm(path, { force: true }).catch(() => {
        throw fileFailure(error, path);
      });
    }
  }

  async #ids(): Promise<string[]> {
    const folder = this.#site.in(LAYOUT.records);
    const names = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return [];
      throw new Failure('SiteNotReady', `${folder} cannot be read (${error.code})`, { cause: error });
    });
    return names.filter((name) => name.endsWith('.json')).map((name) => name.slice(0, -'.json'.length));
  }

  async #parsed(id: string): Promise<PartRecord | undefined> {
    let text: string;
    try {
      text = await readFile(this.#path(id), 'utf8');
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ENOENT') return undefined;
      throw new Failure('SiteNotReady', `${this.#path(id)} cannot be read (${code})`, { cause: error });
    }
    try {
      return parseRecord(text);
    } catch (error) {
      this.#log.warn({ path: this.#path(id), err: error }, 'a damaged record is passed over');
      return undefined;
    }
  }

  #path(id: string): string {
    return this.#site.in(LAYOUT.records, `${id}.json`);
  }
}

const DONE = 'has done';

function put(table: Table, id: string, record: PartRecord | undefined): void {
  if (record === undefined) table.delete(id);
  else table.set(id, record);
}
