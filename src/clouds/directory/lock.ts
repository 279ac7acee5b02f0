import { DatabaseSync } from 'node:sqlite';
import { setTimeout as pause } from 'node:timers/promises';
import { Failure } from '../../api/failure.ts';

/**
 * One process writes a site at a time; its own jobs share the lock. It is the kernel's lock beneath a SQLite transaction, because a
 * file with a process id in it says nothing in a container (all are 1) and outlives a SIGKILL. It is held while there is
 * work, so that a standby takes over at once.
 */
const held = new Map<string, { users: number; database: Promise<DatabaseSync> }>();

const TRY_EVERY_MS = 100;
const SQLITE_BUSY = 5;

/** @throws Failure Conflict when another process still writes after `withinMs` */
export async function whileLocked<T>(file: string, withinMs: number, work: () => Promise<T>): Promise<T> {
  const lock = held.get(file) ?? { users: 0, database: acquire(file, withinMs) };
  held.set(file, lock);
  lock.users += 1;
  try {
    await lock.database;
    return await work();
  } finally {
    lock.users -= 1;
    if (lock.users === 0) {
      held.delete(file);
      // Closing ends the transaction and the lock. A lock that was not got has nothing to close.
      await lock.database.then(
        (database) => database.close(),
        () => undefined,
      );
    }
  }
}

async function acquire(file: string, withinMs: number): Promise<DatabaseSync> {
  for (let waited = 0; ; waited += TRY_EVERY_MS) {
    // Waiting inside SQLite would stop every other job of the process.
    const database = openDatabase(file);
    try {
      database.exec('begin exclusive');
      return database;
    } catch (error) {
      database.close();
      if ((error as { errcode?: number }).errcode !== SQLITE_BUSY) throw error;
      if (waited >= withinMs) {
        throw new Failure(
          'Conflict',
          `another process is writing to this site (${file} is locked): tried again later`,
          {
            cause: error,
          },
        );
      }
    }
    await pause(TRY_EVERY_MS);
  }
}

function openDatabase(file: string): DatabaseSync {
  try {
    return new DatabaseSync(file, { timeout: 0 });
  } catch (error) {
    throw new Failure('SiteNotReady', `${file} cannot be written: give the folder to the controller's user`, {
      cause: error,
    });
  }
}
