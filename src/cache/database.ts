import { DatabaseSync, type SQLInputValue, type SQLOutputValue, type StatementSync } from 'node:sqlite';
import { Failure } from '../api/failure.ts';
import type { FileOps } from './files.ts';

/** `IPCa`: tells our file from any other SQLite file that may lie there. */
const APPLICATION_ID = 0x49504361;
const SCHEMA_VERSION = 1;

// Types are exact: a column of SQLite's own default affinity would turn an all-digit digest into a float.
const SCHEMA = `
create table blobs (
  sha256 text primary key,
  size integer not null,
  allocated integer not null,
  stamp text not null,
  compression text,
  format text,
  virtual_size integer,
  source text,
  fetched_at text not null,
  used_at integer not null,
  proven_at integer not null
) strict, without rowid;

create table digests (
  algorithm text not null,
  hex text not null,
  sha256 text not null references blobs on delete cascade,
  primary key (algorithm, hex, sha256)
) strict, without rowid;
create index digests_of_blob on digests (sha256);

-- '' and '' is everybody.
create table scopes (
  sha256 text not null references blobs on delete cascade,
  namespace text not null,
  credentials text not null,
  primary key (sha256, namespace, credentials)
) strict, without rowid;

-- The source may leave the cache and come again; the result stays its result.
create table transforms (
  source text not null,
  transform text not null,
  result text not null references blobs on delete cascade,
  primary key (source, transform)
) strict, without rowid;
create index transforms_to_blob on transforms (result);

create table partials (
  key text primary key,
  generation integer not null,
  source text not null,
  validators text not null,
  watermark integer not null,
  used_at integer not null
) strict, without rowid;

create table counters (name text primary key, value integer not null) strict, without rowid;
`;

export type Row = Record<string, SQLOutputValue>;

/** The database is not one that we can go on with; `open` says why. */
export class DamagedDatabase extends Error {}

/**
 * The index file, opened in SQLite's exclusive locking mode: a second process is refused, and the lock ends with this process
 * however it dies (Node has no flock, and a pid file means nothing in a container, where every pid is 1).
 *
 * Never open `cache.db` by any other way in this process: closing any descriptor of a file drops the process's POSIX locks on it
 * (https://www.sqlite.org/howtocorrupt.html, 2.2). The write-ahead log beside it carries no lock.
 */
export class Database {
  readonly #db: DatabaseSync;
  readonly #log: string;
  readonly #files: FileOps;
  readonly #statements = new Map<string, StatementSync>();

  private constructor(db: DatabaseSync, path: string, files: FileOps) {
    this.#db = db;
    this.#log = `${path}-wal`;
    this.#files = files;
  }

  /** @throws Failure CacheInUse when another process has it, without its name; DamagedDatabase; Failure DiskFull. */
  static open(path: string, files: FileOps): Database {
    let db: DatabaseSync | undefined;
    try {
      db = new DatabaseSync(path);
      db.exec('pragma locking_mode = exclusive; pragma journal_mode = wal; pragma synchronous = normal');
      db.exec('begin immediate');
      prepareSchema(db, path);
      db.exec('commit');
      return new Database(db, path, files);
    } catch (error) {
      if (db?.isOpen === true) db.close();
      const code = resultCode(error);
      if (code === SQLITE_BUSY) {
        throw new Failure('CacheInUse', `${path} is locked by another process`, { cause: error });
      }
      if (code === SQLITE_CORRUPT || code === SQLITE_NOTADB) {
        throw new DamagedDatabase(`${path}: ${(error as Error).message}`, { cause: error });
      }
      throw databaseFailure(error, path);
    }
  }

  all(sql: string, ...parameters: SQLInputValue[]): Row[] {
    return this.#statement(sql).all(...parameters);
  }

  get(sql: string, ...parameters: SQLInputValue[]): Row | undefined {
    return this.#statement(sql).get(...parameters);
  }

  run(sql: string, ...parameters: SQLInputValue[]): void {
    this.#statement(sql).run(...parameters);
  }

  /**
   * All or nothing, also after a power cut, but perhaps nothing until {@link durable} resolves.
   * @throws Failure DiskFull
   */
  transaction<T>(write: () => T): T {
    try {
      this.#db.exec('begin immediate');
      try {
        const result = write();
        this.#db.exec('commit');
        return result;
      } catch (error) {
        // SQLite ends a transaction by itself when the disk is full.
        if (this.#db.isTransaction) this.#db.exec('rollback');
        throw error;
      }
    } catch (error) {
      throw databaseFailure(error, this.#log);
    }
  }

  /**
   * What has been written is on the disk when this resolves. SQLite's own `synchronous = full` would fsync in the main thread,
   * behind gigabytes of image data on their way to the same disk; this does the same sync of the write-ahead log in the pool.
   */
  async durable(): Promise<void> {
    await this.#files.syncData(this.#log);
  }

  close(): void {
    if (!this.#db.isOpen) return;
    this.#statements.clear();
    this.#db.close();
  }

  #statement(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (statement === undefined) {
      statement = this.#db.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }
}

function prepareSchema(db: DatabaseSync, path: string): void {
  const application = pragma(db, 'application_id');
  const version = pragma(db, 'user_version');
  const tables = Number(db.prepare('select count(*) as count from sqlite_schema').get()?.['count']);
  if (tables === 0) {
    db.exec(SCHEMA);
    db.exec(`pragma application_id = ${APPLICATION_ID}; pragma user_version = ${SCHEMA_VERSION}`);
    return;
  }
  if (application !== APPLICATION_ID) {
    throw new Failure('Conflict', `${path} is a database of another program: give the cache a folder of its own`);
  }
  if (version !== SCHEMA_VERSION) {
    throw new Failure(
      'NotSupported',
      `${path} was written by another version of ImageProxy (schema ${version}, this one reads ${SCHEMA_VERSION}): run that version, or empty the folder`,
    );
  }
  const verdict = db.prepare('pragma quick_check(1)').get()?.['quick_check'];
  if (verdict !== 'ok') throw new DamagedDatabase(`${path}: ${String(verdict)}`);
}

function pragma(db: DatabaseSync, name: string): number {
  return Number(db.prepare(`pragma ${name}`).get()?.[name]);
}

// https://www.sqlite.org/rescode.html
const SQLITE_BUSY = 5;
const SQLITE_CORRUPT = 11;
const SQLITE_FULL = 13;
const SQLITE_CANTOPEN = 14;
const SQLITE_NOTADB = 26;

/** The primary result code: extended codes carry it in their low byte. */
function resultCode(error: unknown): number | undefined {
  const code = (error as { errcode?: unknown }).errcode;
  return typeof code === 'number' ? code & 0xff : undefined;
}

function databaseFailure(error: unknown, path: string): Error {
  if (error instanceof DamagedDatabase) return error;
  const code = resultCode(error);
  if (code === SQLITE_FULL) {
    return new Failure('DiskFull', 'the disk is full: free space on the volume of the cache, or give it more', {
      cause: error,
    });
  }
  if (code === SQLITE_CANTOPEN) {
    return new Failure('InternalError', `${path} cannot be opened: the folder must be writable for ImageProxy`, {
      cause: error,
    });
  }
  return Failure.from(error);
}
