import { readFile, stat } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { Failure } from '../../api/failure.ts';
import type { Disk } from './disk.ts';
import { isAbsence, isMapping, type Now } from './seams.ts';

/** Who writes a state directory. */
export interface Holder {
  pid: number;
  host: string;
  since: string;
  /** It has the state for as long as one command takes; others may go on after it. */
  passing?: true;
}

export interface Lock {
  release(): void;
}

// A probe (holderOf) or a process that is just ending may have the file for a moment.
const PATIENCE_MS = 500;
const SQLITE_BUSY = 5;

/**
 * The one writer's lock. Node has no flock and a pid means nothing between containers, but SQLite takes a POSIX lock that the
 * kernel drops with the process, however that ends.
 * @throws Failure ClaimedByOther, naming who holds it.
 */
export async function takeLock(state: string, passing: boolean, disk: Disk, now: Now): Promise<Lock> {
  const database = new DatabaseSync(join(state, 'lock.db'), { timeout: PATIENCE_MS });
  try {
    database.exec('PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE');
  } catch (error) {
    database.close();
    if (!isBusy(error)) throw error;
    const holder = await readHolder(state);
    const who =
      holder === undefined
        ? 'another process'
        : `process ${holder.pid} on ${holder.host}, which has it since ${holder.since}`;
    throw new Failure(
      'ClaimedByOther',
      `the state directory ${state} is in use by ${who}: stop it, or give another --state`,
      { cause: error },
    );
  }
  const info: Holder = {
    pid: process.pid,
    host: hostname(),
    since: new Date(now()).toISOString(),
    ...(passing ? { passing } : {}),
  };
  try {
    await disk.replace(join(state, 'lock.json'), `${JSON.stringify(info)}\n`, false);
  } catch (error) {
    database.close();
    throw error;
  }
  return { release: () => database.isOpen && database.close() };
}

/** Who holds the lock now; undefined when nobody does. Takes no lock that outlasts the call. */
export async function holderOf(state: string): Promise<Holder | undefined> {
  let database: DatabaseSync;
  try {
    database = new DatabaseSync(join(state, 'lock.db'), { readOnly: true });
  } catch (error) {
    if (await absent(join(state, 'lock.db'))) return undefined;
    throw error;
  }
  try {
    database.prepare('SELECT count(*) FROM sqlite_schema').get();
    return undefined;
  } catch (error) {
    if (!isBusy(error)) throw error;
    return (await readHolder(state)) ?? { pid: 0, host: 'unknown', since: 'unknown' };
  } finally {
    database.close();
  }
}

function isBusy(error: unknown): boolean {
  return error instanceof Error && 'errcode' in error && error.errcode === SQLITE_BUSY;
}

// By stat: closing any descriptor of a file drops the POSIX locks that this process has on it.
async function absent(path: string): Promise<boolean> {
  try {
    await stat(path);
    return false;
  } catch (error) {
    return isAbsence(error);
  }
}

async function readHolder(state: string): Promise<Holder | undefined> {
  try {
    const info: unknown = JSON.parse(await readFile(join(state, 'lock.json'), 'utf8'));
    if (!isMapping(info)) return undefined;
    const { pid, host, since, passing } = info;
    if (typeof pid !== 'number' || typeof host !== 'string' || typeof since !== 'string') return undefined;
    return { pid, host, since, ...(passing === true ? { passing } : {}) };
  } catch {
    return undefined;
  }
}
