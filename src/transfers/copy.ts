import { constants } from 'node:fs';
import { copyFile, type FileHandle, open, rm } from 'node:fs/promises';
import { Failure } from '../api/failure.ts';

const BLOCK_BYTES = 1024 * 1024;
/** Holes are made at this grain; file systems have blocks of 4 to 64 KiB. */
const GRAIN_BYTES = 64 * 1024;
const ZEROS = Buffer.alloc(GRAIN_BYTES);
const MODE = 0o644;

/** What a file system says that cannot share blocks between files, or not between these two. */
const NO_REFLINK = new Set(['ENOTSUP', 'EOPNOTSUPP', 'EXDEV', 'EINVAL', 'ENOTTY', 'ENOSYS']);

/**
 * Copies a file to a new name, as a reflink where possible; otherwise runs of zeros become holes. Durable when it resolves, except
 * for the directory's entry, which is the caller's to sync after its rename.
 * @throws Failure DiskFull | Conflict (something is at `to`) | Aborted; nothing is left at `to`
 */
export async function copy(
  from: string,
  to: string,
  progress: (bytes: number) => void,
  signal: AbortSignal,
): Promise<void> {
  if (signal.aborted) throw new Failure('Aborted', 'stopped');
  let mine = false;
  let target: FileHandle | undefined;
  try {
    if (await reflink(from, to)) {
      mine = true;
      target = await open(to, 'r');
    } else {
      target = await open(to, 'wx', MODE);
      mine = true;
      await copyBlocks(from, target, progress, signal);
    }
    await target.chmod(MODE); // a blob is read-only, and a reflink takes that over
    await target.sync();
    progress((await target.stat()).size);
    await target.close();
  } catch (error) {
    await target?.close().catch(() => {});
    if (mine) await rm(to, { force: true });
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') {
      throw new Failure('Conflict', `${to} exists already`, { cause: error });
    }
    throw Failure.from(error);
  }
}

async function reflink(from: string, to: string): Promise<boolean> {
  try {
    await copyFile(from, to, constants.COPYFILE_FICLONE_FORCE | constants.COPYFILE_EXCL);
    return true;
  } catch (error) {
    if (NO_REFLINK.has((error as NodeJS.ErrnoException).code ?? '')) return false;
    throw error;
  }
}

async function copyBlocks(
  from: string,
  target: FileHandle,
  progress: (bytes: number) => void,
  signal: AbortSignal,
): Promise<void> {
  const source = await open(from, 'r');
  try {
    const block = Buffer.allocUnsafeSlow(BLOCK_BYTES);
    let position = 0;
    for (;;) {
      if (signal.aborted) throw new Failure('Aborted', 'stopped');
      const { bytesRead } = await source.read(block, 0, BLOCK_BYTES, position);
      if (bytesRead === 0) break;
      for (const { start, end } of dataIn(block.subarray(0, bytesRead))) {
        await writeAll(target, block.subarray(start, end), position + start);
      }
      position += bytesRead;
      progress(position);
    }
    await target.truncate(position); // a hole at the end
  } finally {
    await source.close();
  }
}

/** The parts of a block that are not zeros, in whole grains, neighbours joined. */
function dataIn(block: Uint8Array): { start: number; end: number }[] {
  const parts: { start: number; end: number }[] = [];
  for (let start = 0; start < block.length; start += GRAIN_BYTES) {
    const end = Math.min(start + GRAIN_BYTES, block.length);
    if (Buffer.compare(block.subarray(start, end), ZEROS.subarray(0, end - start)) === 0) continue;
    const last = parts.at(-1);
    if (last?.end === start) last.end = end;
    else parts.push({ start, end });
  }
  return parts;
}

async function writeAll(target: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await target.write(bytes, done, bytes.length - done, position + done);
    done += bytesWritten;
  }
}
