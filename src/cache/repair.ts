import { join } from 'node:path';
import type { BlobIndex } from './blob-index.ts';
import type { Database } from './database.ts';
import type { FileOps } from './files.ts';
import type { Layout } from './layout.ts';
import type { CacheLog } from './log.ts';
import type { Residents } from './residents.ts';

/**
 * At start: what a crash left between two steps is put right. A row without its file is dropped; a file without a row is not known
 * to be proven, and is removed. Files are not looked into, nor even asked for their size: that is done when one is first used.
 */
export async function repairBlobs(parts: {
  db: Database;
  index: BlobIndex;
  residents: Residents;
  files: FileOps;
  layout: Layout;
  log: CacheLog;
}): Promise<void> {
  const { db, index, residents, files, layout, log } = parts;
  const onDisk = new Set<string>();
  const known = new Map(index.residents().map((resident) => [resident.sha256, resident]));
  let removed = 0;
  for (const folder of await files.names(layout.blobs)) {
    for (const name of await files.names(join(layout.blobs, folder))) {
      if (known.has(name) && layout.blobFolder(name) === join(layout.blobs, folder)) {
        onDisk.add(name);
        continue;
      }
      await files.remove(join(layout.blobs, folder, name));
      removed += 1;
    }
    if (!/^[0-9a-f]{2}$/.test(folder)) await files.remove(join(layout.blobs, folder));
  }
  const lost: string[] = [];
  // In the order of use.
  for (const resident of known.values()) {
    if (onDisk.has(resident.sha256)) residents.add(resident);
    else lost.push(resident.sha256);
  }
  if (lost.length > 0) {
    db.transaction(() => {
      for (const sha256 of lost) index.remove(sha256);
    });
  }
  if (removed > 0 || lost.length > 0) {
    log.info({ files: removed, rows: lost.length }, 'removed from the cache what an unfinished step had left');
  }
}
