import { createHash } from 'node:crypto';
import { join } from 'node:path';

/**
 * What lies where on the volume:
 *
 *     cache.db                         the index; its lock is the cache's lock
 *     holder.json                      who holds the lock, for people
 *     blobs/sha256/ab/abcd…            proven files, 0444
 *     partial/<hash of key>/7.part     generation 7 of a fetch
 *     scratch/                         temporary files, emptied at every start
 */
export class Layout {
  readonly root: string;
  readonly database: string;
  readonly holder: string;
  readonly blobs: string;
  readonly partials: string;
  readonly scratch: string;

  constructor(root: string) {
    this.root = root;
    this.database = join(root, 'cache.db');
    this.holder = join(root, 'holder.json');
    this.blobs = join(root, 'blobs', 'sha256');
    this.partials = join(root, 'partial');
    this.scratch = join(root, 'scratch');
  }

  /** 256 folders, so that none grows long. */
  blobFolder(sha256: string): string {
    return join(this.blobs, sha256.slice(0, 2));
  }

  blob(sha256: string): string {
    return join(this.blobFolder(sha256), sha256);
  }

  /** Keys hold URLs and are longer than file names may be, so the folder is named by their hash. */
  partialFolder(key: string): string {
    return join(this.partials, createHash('sha256').update(key).digest('hex').slice(0, 40));
  }

  partial(key: string, generation: number): string {
    return join(this.partialFolder(key), partialName(generation));
  }
}

export function partialName(generation: number): string {
  return `${generation}.part`;
}
