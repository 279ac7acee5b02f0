import { readFile, rm, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { Failure } from '../api/failure.ts';
import type { Layout } from './layout.ts';

/**
 * Who holds the lock, for the message that the second process gets. It locks nothing: the database does, and this file may be
 * that of a process that was killed.
 */
interface Holder {
  pid: number;
  host: string;
  since: string;
}

export async function writeHolder(layout: Layout, nowMs: number): Promise<void> {
  const holder: Holder = { pid: process.pid, host: hostname(), since: new Date(nowMs).toISOString() };
  await writeFile(layout.holder, `${JSON.stringify(holder)}\n`, { mode: 0o600 });
}

export async function removeHolder(layout: Layout): Promise<void> {
  await rm(layout.holder, { force: true });
}

export async function inUse(layout: Layout, cause: unknown): Promise<Failure> {
  const holder = await readHolder(layout);
  const who = holder
    ? `process ${holder.pid} on host ${holder.host} since ${holder.since}`
    : 'another process (it has not left its name yet)';
  return new Failure(
    'CacheInUse',
    `the cache ${layout.root} is in use by ${who}: stop that one, or give this one a folder of its own`,
    { cause },
  );
}

async function readHolder(layout: Layout): Promise<Holder | undefined> {
  try {
    const { pid, host, since } = JSON.parse(await readFile(layout.holder, 'utf8')) as Partial<Holder>;
    if (typeof pid !== 'number' || typeof host !== 'string' || typeof since !== 'string') return undefined;
    return { pid, host, since };
  } catch {
    return undefined;
  }
}
