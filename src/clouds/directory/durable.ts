import { open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { Failure } from '../../api/failure.ts';

/**
 * Readers see the old text or the new one, also after a power cut: temporary file, fsync, rename, fsync of the folder.
 * One writer per path at a time is the caller's to see to.
 */
export async function writeAtomically(path: string, text: string | readonly string[]): Promise<void> {
  // One name, so that what a SIGKILL left is overwritten by the next try and never adds up.
  const temporary = `${path}.tmp`;
  try {
    const file = await open(temporary, 'w', 0o644);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw fileFailure(error, path);
  }
  await syncFolder(dirname(path));
}

/** Moves a file within the site, durably. False when there is nothing at `from`. */
export async function move(from: string, to: string): Promise<boolean> {
  try {
    await rename(from, to);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw fileFailure(error, to);
  }
  await syncFolder(dirname(from));
  await syncFolder(dirname(to));
  return true;
}

/** A rename is on the disk only when the folder that holds the name is. */
export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/** A file system's error, with the place and the cure. */
export function fileFailure(error: unknown, path: string): Failure {
  if (error instanceof Failure) return error;
  const code = (error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined) ?? '';
  if (['ENOSPC', 'EDQUOT'].includes(code)) {
    return new Failure(
      'DiskFull',
      `the site's volume is full (${code} at ${path}): free space there, or give it more`,
      {
        cause: error,
      },
    );
  }
  if (code === 'ENOENT') {
    // A folder of ours was removed, or the volume is not there: the next probe tells, and makes what can be made.
    return new Failure('SiteNotReady', `${path} has gone from the site: is the volume mounted?`, { cause: error });
  }
  if (['EACCES', 'EPERM', 'EROFS'].includes(code)) {
    return new Failure(
      'SiteNotReady',
      `${path} cannot be written (${code}): give the folder to the controller's user`,
      {
        cause: error,
      },
    );
  }
  return Failure.from(error);
}
