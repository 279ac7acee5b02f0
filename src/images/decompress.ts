import { open, rename, rm } from 'node:fs/promises';
import type { Algorithm } from '../api/digest.ts';
import { runBulk } from './bulk.ts';
import type { Compression } from './format.ts';
import type { Produced, Progress } from './images.ts';
import { isTarHeader } from './tar.ts';
import type { Toolbox } from '../programs/toolbox.ts';
import { fileWindow } from './window.ts';

export interface DecompressJob {
  from: string;
  to: string;
  compression: Compression;
  maxOutputBytes: number;
  digests: readonly Algorithm[];
  member?: string;
  progress?: Progress;
}

/** Decompresses into a new sparse file, and takes one member out if it was a tar archive and one was asked for. */
export async function decompress(toolbox: Toolbox, job: DecompressJob, signal: AbortSignal): Promise<Produced> {
  const { from, compression, maxOutputBytes, progress } = job;
  const digests = withSha256(job.digests);
  await createNew(job.to);
  if (job.member === undefined) {
    return runBulk(toolbox, { from, to: job.to, read: { compression }, maxOutputBytes, digests }, signal, progress);
  }
  const archive = `${job.to}.tar`;
  try {
    await createNew(archive);
    const whole = await runBulk(
      toolbox,
      { from, to: archive, read: { compression }, maxOutputBytes, digests },
      signal,
      progress,
    );
    if (!(await isTar(archive))) {
      await rename(archive, job.to);
      return whole;
    }
    const read = { tarMember: job.member };
    return await runBulk(toolbox, { from: archive, to: job.to, read, maxOutputBytes, digests }, signal);
  } catch (error) {
    await rm(job.to, { force: true });
    throw error;
  } finally {
    await rm(archive, { force: true });
  }
}

/** sha256 is our own name for bytes, so it is always computed. */
export function withSha256(algorithms: readonly Algorithm[]): Algorithm[] {
  return [...new Set<Algorithm>(['sha256', ...algorithms])];
}

/** Fails when the file is there: whatever it is, it is not ours to overwrite or, later, to remove. */
export async function createNew(path: string): Promise<void> {
  await (await open(path, 'wx', 0o600)).close();
}

async function isTar(path: string): Promise<boolean> {
  const handle = await open(path, 'r');
  try {
    const { size } = await handle.stat();
    return size >= 512 && isTarHeader(await fileWindow(handle, size).read(0, 512));
  } finally {
    await handle.close();
  }
}
