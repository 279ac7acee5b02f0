import { randomUUID } from 'node:crypto';
import { mkdir, readdir, readFile, stat } from 'node:fs/promises';
import { isAbsolute, join, normalize } from 'node:path';
import { z } from 'zod';
import { Failure } from '../../api/failure.ts';
import { writeAtomically } from './durable.ts';

/** Names at the top of a site's folder. What begins with a dot is ours alone; `libvirt` and web servers pass over it. */
export const LAYOUT = {
  marker: '.imageproxy-site.json',
  lock: '.imageproxy-lock',
  writer: '.imageproxy-writer',
  records: '.records',
  staging: '.staging',
  retired: '.retired',
  index: 'index.json',
} as const;

const Marker = z.object({ identity: z.uuid() });

/**
 * The folder of one directory site, and the proof that it is still the same one. An unmounted volume leaves an empty folder
 * behind: without the marker it would be taken for a site whose images are all gone.
 */
export class Site {
  readonly path: string;
  #known: string | undefined;

  constructor(path: string, knownIdentity: string | undefined) {
    if (!isAbsolute(path) || normalize(path) === '/') {
      throw new Failure('InvalidSpec', `spec.directory.path: ${path} is not an absolute path of a folder`);
    }
    this.path = normalize(path);
    this.#known = knownIdentity;
  }

  in(...names: string[]): string {
    return join(this.path, ...names);
  }

  /**
   * The site's identity. The first time a folder is used its marker is made; `create` runs that under the site's lock.
   * @throws Failure SiteNotReady when the folder is not there, may not be written, or is not the one that we knew
   */
  async identify(create: <T>(work: () => Promise<T>) => Promise<T>): Promise<string> {
    await this.#assertFolder();
    let found = await this.#marker();
    if (found === undefined) {
      // Before the lock is made: nothing of ours is to be left in the folder beneath an unmounted volume.
      await this.#assertNew();
      found = await create(async () => (await this.#marker()) ?? (await this.#mark()));
    }
    this.#known ??= found;
    await this.#prepare();
    return found;
  }

  /** Before every look and every step. @throws Failure SiteNotReady | IdentityChanged */
  async assertSame(): Promise<void> {
    const found = await this.#marker();
    if (found === undefined) throw this.#unmarked();
    this.#known ??= found;
    if (found !== this.#known) {
      throw new Failure(
        'IdentityChanged',
        `${this.path} is another folder than before (${found}, it was ${this.#known}): mount the right volume, ` +
          'or make a new ImageSite for this one',
      );
    }
  }

  async #assertFolder(): Promise<void> {
    const info = await stat(this.path).catch((error: NodeJS.ErrnoException) => {
      throw new Failure(
        'SiteNotReady',
        `spec.directory.path: ${this.path} cannot be read (${error.code}): create the folder or mount its volume`,
        { cause: error },
      );
    });
    if (!info.isDirectory()) throw new Failure('SiteNotReady', `spec.directory.path: ${this.path} is not a folder`);
  }

  async #marker(): Promise<string | undefined> {
    let text: string;
    try {
      text = await readFile(this.in(LAYOUT.marker), 'utf8');
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
      throw new Failure('SiteNotReady', `${this.in(LAYOUT.marker)} cannot be read (${code})`, { cause: error });
    }
    try {
      return identityOf(Marker.parse(JSON.parse(text)).identity);
    } catch (error) {
      throw new Failure('SiteNotReady', `${this.in(LAYOUT.marker)} is damaged: restore it from a backup`, {
        cause: error,
      });
    }
  }

  /** A folder that was known, or that has our records, and lost its marker is not a new one. */
  async #assertNew(): Promise<void> {
    const hasRecords = (await readdir(this.path)).includes(LAYOUT.records);
    if (this.#known !== undefined || hasRecords) throw this.#unmarked();
  }

  async #mark(): Promise<string> {
    const identity = randomUUID();
    await writeAtomically(this.in(LAYOUT.marker), `${JSON.stringify({ identity }, undefined, 2)}\n`);
    return identityOf(identity);
  }

  async #prepare(): Promise<void> {
    try {
      for (const name of [LAYOUT.records, LAYOUT.staging, LAYOUT.retired])
        await mkdir(this.in(name), { recursive: true });
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      throw new Failure('SiteNotReady', `${this.path} cannot be written (${code}): give it to the controller's user`, {
        cause: error,
      });
    }
  }

  #unmarked(): Failure {
    return new Failure(
      'SiteNotReady',
      `${this.in(LAYOUT.marker)} is missing: is the volume mounted? (Nothing there is taken as gone. If the marker was deleted, ` +
        'put it back from a backup.)',
    );
  }
}

function identityOf(uuid: string): string {
  return `directory ${uuid}`;
}
