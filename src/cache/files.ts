import { chmod, mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';

/** What is trusted of a file without reading it. */
export interface FileState {
  size: number;
  /** Bytes that it takes on the disk: a sparse file takes less than its size. */
  allocated: number;
  /** Size, mtime in nanoseconds and inode: another stamp is another file. Text, because an inode may pass 2^53 (XFS). */
  stamp: string;
}

/** The steps that the cache takes on the disk, one by one, so that a test can cut the power between any two. */
export interface FileOps {
  /** fsync, then read-only for everybody. */
  seal(path: string): Promise<FileState>;
  /** Undefined when there is no such file. */
  state(path: string): Promise<FileState | undefined>;
  rename(from: string, to: string): Promise<void>;
  /** Removes a file or a folder with all in it; nothing there is fine. */
  remove(path: string): Promise<void>;
  /** Mode 0700. True when it was not there. */
  makeFolder(path: string): Promise<boolean>;
  /** Makes renames into this folder durable. */
  syncFolder(path: string): Promise<void>;
  /** fdatasync; nothing there is fine. */
  syncData(path: string): Promise<void>;
  /** Names in a folder; none when it is not there. */
  names(path: string): Promise<string[]>;
}

export const diskFiles: FileOps = {
  async seal(path) {
    const file = await open(path, 'r');
    try {
      await file.chmod(0o444);
      await file.sync();
      return stateOf(await file.stat({ bigint: true }));
    } finally {
      await file.close();
    }
  },

  async state(path) {
    try {
      return stateOf(await stat(path, { bigint: true }));
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  },

  rename,

  remove: (path) => rm(path, { recursive: true, force: true }),

  async makeFolder(path) {
    const made = await mkdir(path, { recursive: true, mode: 0o700 });
    // The umask of mkdir takes bits away only, but an older folder may have been left open to others.
    if (made === undefined) await chmod(path, 0o700);
    return made !== undefined;
  },

  async syncFolder(path) {
    const folder = await open(path, 'r');
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  },

  async syncData(path) {
    try {
      const file = await open(path, 'r');
      try {
        await file.datasync();
      } finally {
        await file.close();
      }
    } catch (error) {
      if (!isMissing(error)) throw error;
    }
  },

  async names(path) {
    try {
      return await readdir(path);
    } catch (error) {
      if (isMissing(error)) return [];
      throw error;
    }
  },
};

interface BigStats {
  size: bigint;
  blocks: bigint;
  mtimeNs: bigint;
  ino: bigint;
}

function stateOf(stats: BigStats): FileState {
  return {
    size: Number(stats.size),
    // st_blocks is in units of 512 bytes whatever the file system's own block is (stat(2)).
    allocated: Number(stats.blocks) * 512,
    stamp: `${stats.size}:${stats.mtimeNs}:${stats.ino}`,
  };
}

export function isMissing(error: unknown): boolean {
  const code = (error as NodeJS.ErrnoException).code;
  return code === 'ENOENT' || code === 'ENOTDIR';
}
