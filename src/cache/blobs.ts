import type { Digests } from '../api/digest.ts';
import { Failure } from '../api/failure.ts';
import type { BlobIndex } from './blob-index.ts';
import type { Blob, BlobFacts, Scope } from './cache.ts';
import type { Database } from './database.ts';
import type { FileOps, FileState } from './files.ts';
import type { Layout } from './layout.ts';
import type { KeyedLock } from './locks.ts';
import type { CacheLog } from './log.ts';
import type { Resident, Residents } from './residents.ts';

/** Uses are written to the index this coarsely: a write for each find would wear a disk for nothing. */
const USE_PERSISTED_EVERY_MS = 60_000;

export interface BlobsDependencies {
  db: Database;
  index: BlobIndex;
  residents: Residents;
  files: FileOps;
  layout: Layout;
  locks: KeyedLock;
  log: CacheLog;
  now(): number;
  /** Asked before a file is taken in: what else knows of it. */
  claim(path: string): Claim;
  /** A blob has gone. */
  onGone(): void;
}

export interface Claim {
  /** In the transaction that makes the file a blob. */
  forget(): void;
  /** The file's bytes are a blob's now (0: the blob was there already, and the file is gone). */
  settle(allocated: number): void;
}

/** Files and rows of blobs, kept in step: whatever step is the last one before a crash, the next start can put it right. */
export class Blobs {
  readonly #deps: BlobsDependencies;
  #beingUnlinked = 0;
  #admissions = 0;

  constructor(deps: BlobsDependencies) {
    this.#deps = deps;
  }

  /** Bytes of evicted blobs whose files are still to be unlinked. */
  get beingUnlinked(): number {
    return this.#beingUnlinked;
  }

  async find(digests: Digests, scope: Scope): Promise<Blob | undefined> {
    const sha256 = this.#deps.index.find(digests, scope);
    return sha256 === undefined ? undefined : this.get(sha256);
  }

  async get(sha256: string): Promise<Blob | undefined> {
    const { files, layout, log, residents, now } = this.#deps;
    const resident = residents.get(sha256);
    if (resident === undefined) return undefined;
    const state = await files.state(layout.blob(sha256));
    // It may have been evicted, and even admitted again, meanwhile.
    if (residents.get(sha256) !== resident) return this.get(sha256);
    if (state?.stamp !== resident.stamp) {
      log.warn(
        { sha256, path: layout.blob(sha256) },
        state === undefined
          ? 'a blob has vanished from the cache; it is fetched again when it is needed'
          : 'a blob was changed by somebody else (size, mtime or inode); it is dropped, and fetched again when it is needed',
      );
      await this.#dropThis(resident);
      return undefined;
    }
    residents.touch(resident, now());
    this.#persistUse(resident);
    return this.#blob(sha256);
  }

  /** `register` adds rows to the same transaction. */
  async admit(
    path: string,
    sha256: string,
    facts: BlobFacts,
    scopes: () => readonly Scope[],
    register: () => void = () => undefined,
  ): Promise<Blob> {
    if (!/^[0-9a-f]{64}$/.test(sha256)) throw new Failure('InternalError', `not a sha256 in lower-case hex: ${sha256}`);
    const { locks, residents } = this.#deps;
    return locks.run(sha256, async () => {
      // Or an eviction could take it between two steps of its own admission.
      this.#admissions += 1;
      const holder = `admission ${this.#admissions}`;
      residents.pin(sha256, holder);
      try {
        return await this.#admit(path, sha256, facts, scopes, register);
      } finally {
        residents.unpinAll(holder);
      }
    });
  }

  async annotate(sha256: string, facts: Partial<BlobFacts>): Promise<void> {
    this.#expectResident(sha256);
    this.#deps.db.transaction(() => this.#deps.index.annotate(sha256, facts));
    await this.#deps.db.durable();
  }

  async grant(sha256: string, scope: Scope): Promise<void> {
    this.#expectResident(sha256);
    this.#deps.db.transaction(() => this.#deps.index.grant(sha256, scope));
    await this.#deps.db.durable();
  }

  async drop(sha256: string): Promise<void> {
    const resident = this.#deps.residents.get(sha256);
    if (resident !== undefined) await this.#dropThis(resident);
  }

  /** They are out of the memory, so nobody is given them any more, when this returns; resolves when their files are gone. */
  async evict(victims: readonly Resident[]): Promise<void> {
    await Promise.all(victims.map((victim) => this.#dropThis(victim)));
  }

  /** Drops this very blob, not one of the same name that came after it. */
  async #dropThis(resident: Resident): Promise<void> {
    const { db, files, index, layout, locks, log, residents, onGone } = this.#deps;
    const { sha256, allocated } = resident;
    if (residents.get(sha256) !== resident) return;
    residents.remove(sha256);
    this.#beingUnlinked += allocated;
    try {
      await locks.run(sha256, async () => {
        // Admitted again by somebody who was before us in the line: the file and the row are the new one's.
        if (residents.get(sha256) !== undefined) return;
        // The file first: on a full disk the index can be written only after something has gone.
        await files.remove(layout.blob(sha256));
        db.transaction(() => index.remove(sha256));
      });
    } catch (error) {
      log.warn({ err: error, sha256 }, 'what is left of a dropped blob is removed at the next start');
    } finally {
      this.#beingUnlinked -= allocated;
      onGone();
    }
  }

  /** Writes down the uses that were not yet, for the order of evictions after a restart. */
  flushUses(): void {
    const { db, index, residents } = this.#deps;
    const due = [...residents.all()].filter((resident) => resident.usedAt !== resident.persistedUse);
    if (due.length === 0) return;
    db.transaction(() => {
      for (const resident of due) index.recordUse(resident.sha256, resident.usedAt);
    });
    for (const resident of due) resident.persistedUse = resident.usedAt;
  }

  async #admit(
    path: string,
    sha256: string,
    facts: BlobFacts,
    scopes: () => readonly Scope[],
    register: () => void,
  ): Promise<Blob> {
    const { db, files, index, layout, residents, now } = this.#deps;
    const claimed = facts.digests.sha256?.toLowerCase();
    if (claimed !== undefined && claimed !== sha256) {
      throw new Failure('InternalError', `a file with sha256 ${claimed} was to be admitted as ${sha256}`);
    }
    const claim = this.#deps.claim(path);
    const widen = (): void => {
      claim.forget();
      register();
      for (const scope of scopes()) index.grant(sha256, scope);
    };
    if (await this.#isIntact(sha256)) {
      db.transaction(() => {
        index.annotate(sha256, facts);
        widen();
      });
      await files.remove(path);
      claim.settle(0);
      await db.durable();
      return this.#blob(sha256);
    }

    // A damaged one is written over.
    residents.remove(sha256);
    const state = await this.#seal(path, facts.size);
    const to = layout.blob(sha256);
    if (await files.makeFolder(layout.blobFolder(sha256))) await files.syncFolder(layout.blobs);
    await files.rename(path, to);
    const usedAt = residents.nextUse(now());
    try {
      await files.syncFolder(layout.blobFolder(sha256));
      db.transaction(() => {
        index.insert(sha256, facts, state, usedAt, now());
        widen();
      });
    } catch (error) {
      // Proven bytes are worth a second try; a start in between would remove them, for want of a row.
      await files.rename(to, path).catch(() => undefined);
      throw error;
    }
    residents.add({ sha256, allocated: state.allocated, stamp: state.stamp, usedAt, persistedUse: usedAt });
    claim.settle(state.allocated);
    await db.durable();
    return this.#blob(sha256);
  }

  async #isIntact(sha256: string): Promise<boolean> {
    const { files, layout, residents, now } = this.#deps;
    const resident = residents.get(sha256);
    if (resident === undefined) return false;
    const state = await files.state(layout.blob(sha256));
    if (state?.stamp !== resident.stamp || residents.get(sha256) !== resident) return false;
    residents.touch(resident, now());
    return true;
  }

  async #seal(path: string, size: number): Promise<FileState> {
    const state = await this.#deps.files.seal(path);
    if (state.size === size) return state;
    throw new Failure('InternalError', `a file of ${size} B was proven, and ${state.size} B were to be admitted`);
  }

  #expectResident(sha256: string): void {
    if (this.#deps.residents.get(sha256) === undefined) {
      throw new Failure('Conflict', `blob ${sha256} has left the cache: it is fetched again`);
    }
  }

  #blob(sha256: string): Blob {
    const facts = this.#deps.index.facts(sha256);
    if (facts === undefined) throw new Failure('InternalError', `blob ${sha256} has no row in the index`);
    return { ...facts, sha256, path: this.#deps.layout.blob(sha256) };
  }

  #persistUse(resident: Resident): void {
    if (resident.usedAt - resident.persistedUse < USE_PERSISTED_EVERY_MS) return;
    const { db, index, log } = this.#deps;
    try {
      db.transaction(() => index.recordUse(resident.sha256, resident.usedAt));
      resident.persistedUse = resident.usedAt;
    } catch (error) {
      // A full disk must not keep anybody from using what is there.
      log.warn({ err: error }, 'the use of a blob could not be written down');
    }
  }
}
