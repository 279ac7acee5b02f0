import { rename } from 'node:fs/promises';
import { Failure } from '../api/failure.ts';
import { DamagedDatabase, Database } from './database.ts';
import type { FileOps } from './files.ts';
import { inUse } from './holder.ts';
import type { Layout } from './layout.ts';
import type { CacheLog } from './log.ts';

/**
 * Makes the folder where need be and takes the lock. A damaged index is put aside, and with it goes the knowledge of what its files
 * are: the cache starts empty, and everything can be fetched again.
 * @throws Failure CacheInUse, with the name of who holds it; Conflict when the folder is not a cache's; NotSupported for an index
 * of another version
 */
export async function openDatabase(layout: Layout, files: FileOps, log: CacheLog, nowMs: number): Promise<Database> {
  await files.makeFolder(layout.root).catch(async (error: unknown) => {
    // The root of a mounted volume may belong to somebody else, and is as open as its owner wants it.
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') throw error;
  });
  await expectOwnFolder(layout, files);
  try {
    return Database.open(layout.database, files);
  } catch (error) {
    if (error instanceof Failure && error.reason === 'CacheInUse') throw await inUse(layout, error);
    if (!(error instanceof DamagedDatabase)) throw error;
    const aside = `${layout.database}.damaged-${nowMs}`;
    log.error({ err: error, aside }, 'the index of the cache is damaged: it is put aside, and the cache starts empty');
    // The write-ahead log of the damaged file must not be replayed into the new one.
    for (const suffix of ['-wal', '-shm', '']) {
      await rename(`${layout.database}${suffix}`, `${aside}${suffix}`).catch((missing: unknown) => {
        if ((missing as NodeJS.ErrnoException).code !== 'ENOENT') throw missing;
      });
    }
    return Database.open(layout.database, files);
  }
}

/** An OCI layout has `blobs/sha256` too. What lies there without our index would be removed as not belonging. */
async function expectOwnFolder(layout: Layout, files: FileOps): Promise<void> {
  const names = await files.names(layout.root);
  if (names.some((name) => name.startsWith('cache.db'))) return;
  for (const folder of [layout.blobs, layout.partials, layout.scratch]) {
    if ((await files.names(folder)).length === 0) continue;
    throw new Failure(
      'Conflict',
      `${layout.root} holds files in ${folder} and no cache.db, so they are not this cache's: name an empty folder, or empty this one`,
    );
  }
}
