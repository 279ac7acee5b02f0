import type { CacheLog } from './log.ts';
import type { DigestFile } from './scrub.ts';

/** What statfs(2) says of the volume, in blocks. */
export interface VolumeSpace {
  bsize: number;
  blocks: number;
  bavail: number;
}

export interface CacheOptions {
  /** A folder of its own on the volume; made with mode 0700 where it is missing. */
  directory: string;
  /** Default: 80 % of the volume. */
  quotaBytes?: number;
  /** Bytes of the volume that the cache leaves free, for state. Default: 2 GiB. */
  reserveFreeBytes?: number;
  /** Milliseconds since the epoch. */
  now(): number;
  log: CacheLog;
  /** Calls back once; returns the way to take it back. Default: a timer that keeps no process alive. */
  after?(ms: number, callback: () => void): () => void;
  statfs?(path: string): VolumeSpace;
  /** Hashes for the scrub. Default: here, at `scrubBytesPerSecond` (32 MiB/s). */
  digest?: DigestFile;
  scrubBytesPerSecond?: number;
}
