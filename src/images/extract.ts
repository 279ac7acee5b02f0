import { open } from 'node:fs/promises';
import type { Toolbox } from '../programs/toolbox.ts';
import { runBulk } from './bulk.ts';
import type { Produced } from './images.ts';
import { isTarHeader } from './tar.ts';
import type { ExtractJob } from './tools.ts';
import { fileWindow } from './window.ts';

/** Takes one member out of a tar archive. */
export async function extract(toolbox: Toolbox, job: ExtractJob, signal: AbortSignal): Promise<Produced | undefined> {
  if (!(await isTar(job.from))) return undefined;
  const { member, ...rest } = job;
  return runBulk(toolbox, { ...rest, read: { tarMember: member } }, signal);
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
