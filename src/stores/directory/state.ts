import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { access, mkdir, readdir, readFile, rename, rm } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { Failure } from '../../api/failure.ts';
import { type Disk, TEMPORARY } from './disk.ts';
import { FORMAT } from './records.ts';
import { briefly, codeOf, isMapping, type Log, type Now, timestamp } from './seams.ts';

/** The folders of a state directory, all made by {@link prepareState}. */
export const FOLDERS = ['objects', 'progress', 'events', 'inbox', 'answers'] as const;

/**
 * Only its owner may look into the state, or ask the running controller for anything through its inbox.
 * @throws Failure Rejected where this user may not write there
 */
export async function makeFolders(state: string): Promise<void> {
  try {
    await mkdir(state, { recursive: true, mode: 0o700 });
    for (const folder of FOLDERS) await mkdir(join(state, folder), { recursive: true, mode: 0o700 });
    await access(state, constants.R_OK | constants.W_OK | constants.X_OK);
  } catch (error) {
    throw new Failure(
      'Rejected',
      `the state directory ${state} cannot be written (${briefly(error)}): run it as its owner, or give another --state`,
      { cause: error },
    );
  }
}

/** Where older versions kept the Secrets that `register` was given, for as long as it ran: a kill left them there. */
const OLD_CREDENTIALS = /^credentials-[A-Za-z0-9]{6}$/;

/** To be called with the lock: checks the format, and removes what a crash left half-written. */
export async function prepareState(state: string, disk: Disk): Promise<void> {
  const format = await readJson(join(state, 'format.json'));
  if (isMapping(format) && typeof format.format === 'number' && format.format > FORMAT) {
    throw new Failure(
      'NotSupported',
      `the state directory ${state} was written by a newer imageproxy (format ${format.format}, this one knows ${FORMAT}): run that one, or give another --state`,
    );
  }
  for (const folder of [state, ...FOLDERS.map((name) => join(state, name))]) {
    for (const name of await readdir(folder)) {
      if (name.startsWith('.') && name.endsWith(TEMPORARY)) await disk.remove(join(folder, name), false);
    }
  }
  for (const name of await readdir(state)) {
    if (OLD_CREDENTIALS.test(name)) await rm(join(state, name), { recursive: true, force: true });
  }
  if (!isMapping(format) || format.format !== FORMAT) {
    await disk.replace(join(state, 'format.json'), `${JSON.stringify({ format: FORMAT })}\n`, true);
  }
}

/**
 * The name by which this installation knows its registrations in clouds. It must outlive the machine, so it is kept and never
 * changed silently: under another name every registration would be somebody else's.
 * @throws Failure Rejected when another name is asked for than the one kept.
 */
export async function keepInstance(
  state: string,
  wanted: string | undefined,
  disk: Disk,
  now: Now,
  log: Log,
): Promise<string> {
  const path = join(state, 'instance.json');
  const kept = await readJson(path);
  const name = isMapping(kept) && typeof kept.name === 'string' && kept.name !== '' ? kept.name : undefined;
  if (name !== undefined) {
    if (wanted === undefined || wanted === name) return name;
    throw new Failure(
      'Rejected',
      `the state directory ${state} belongs to the instance "${name}", not "${wanted}": leave --instance out, or give another --state`,
    );
  }
  if (kept !== undefined) {
    await setAside(path);
    log.warn({ path }, 'the file with the name of the instance was damaged and has been set aside');
  }
  const made = wanted ?? `${hostname()}-${randomBytes(4).toString('hex')}`;
  await disk.replace(path, `${JSON.stringify({ name: made, since: timestamp(now()) })}\n`, true);
  return made;
}

/** The name kept in a state directory, if one is. */
export async function readInstance(state: string): Promise<string | undefined> {
  const kept = await readJson(join(state, 'instance.json'));
  return isMapping(kept) && typeof kept.name === 'string' ? kept.name : undefined;
}

/** A damaged file is evidence, so it is kept, under another name. */
export async function setAside(path: string): Promise<string> {
  const aside = `${path}.corrupt`;
  await rename(path, aside);
  return aside;
}

const BLOCK = 10_000;

/**
 * resourceVersions only ever grow, across crashes too: they are taken from blocks that were set aside on disk before the first of
 * a block is used.
 */
export class VersionCounter {
  readonly #path: string;
  readonly #disk: Disk;
  #next = 0;
  #limit = 0;
  #reserving: Promise<void> | undefined;

  constructor(state: string, disk: Disk) {
    this.#path = join(state, 'counter.json');
    this.#disk = disk;
  }

  /** `floor` is the largest version found in the state, for the case that the counter itself was lost. */
  async open(floor: number): Promise<void> {
    const kept = await readJson(this.#path);
    const next = isMapping(kept) && Number.isSafeInteger(kept.next) ? (kept.next as number) : floor + BLOCK;
    this.#next = this.#limit = Math.max(next, floor + 1);
  }

  async next(): Promise<string> {
    while (this.#next >= this.#limit) {
      this.#reserving ??= this.#reserve().finally(() => {
        this.#reserving = undefined;
      });
      await this.#reserving;
    }
    return String(this.#next++);
  }

  async #reserve(): Promise<void> {
    const limit = this.#limit + BLOCK;
    await this.#disk.replace(this.#path, `${JSON.stringify({ next: limit })}\n`, true);
    this.#limit = limit;
  }
}

/** undefined when there is no such file; null when what is there is no JSON. */
export async function readJson(path: string): Promise<unknown> {
  const text = await readText(path);
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return null;
  }
}

export async function readText(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}
