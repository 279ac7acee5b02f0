import { readFile } from 'node:fs/promises';
import { parseAllDocuments } from 'yaml';
import { Failure } from '../api/failure.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Draft, Store } from '../stores/store.ts';
import { CommandError, EXIT } from './exit.ts';
import { manifestFiles, readManifest } from './manifest-files.ts';

/**
 * The ImageSites in a folder, as they are written: what they leave to defaults is left to them, and to whoever sets it by hand.
 * @throws CommandError that names file, line and field of all that is wrong
 */
export async function readSites(folder: string): Promise<Draft[]> {
  const sites: Draft[] = [];
  const { files, problems: unlisted } = await manifestFiles(folder);
  const faults = unlisted.map(({ file, message }) => `${file}: ${message}`);
  for (const file of files) {
    const { problems } = await readManifest(file);
    faults.push(...problems.map(({ line, field, message }) => `${file}:${line}: ${field} ${message}`));
    if (problems.length > 0) continue;
    for (const document of parseAllDocuments(await readFile(file, 'utf8'), { merge: true })) {
      const draft = document.toJS() as Draft | null;
      if (draft === null) continue;
      if (draft.kind === 'ImageSite') sites.push(draft);
      else faults.push(`${file}: it holds a ${draft.kind}, and only ImageSites are made from here: move it`);
    }
  }
  if (faults.length > 0) throw new CommandError(EXIT.usage, `--sites: ${faults.join('; ')}`);
  return sites;
}

/** How often a site that was refused is tried again: a webhook comes back, a person mends the ImageSite. */
const AGAIN_MS = 60_000;

export interface OwnSitesOptions {
  sites: readonly Draft[];
  store: Pick<Store, 'apply' | 'get' | 'event'>;
  log: Record<'info' | 'error', (fields: object, message: string) => void>;
  clock: Pick<Clock, 'after'>;
  signal: AbortSignal;
}

/**
 * Makes the ImageSites, or brings them up to date. None is ever deleted: one that has left the folder may be serving images. One that is
 * refused stays as it is on the cluster and is tried again; it does not keep the others from their work.
 */
export class OwnSites {
  readonly #options: OwnSitesOptions;
  /** What was said of each that was refused, by name. */
  readonly #refused = new Map<string, string>();

  constructor(options: OwnSitesOptions) {
    this.#options = options;
  }

  /** Why the sites are not as the folder has them; undefined when they are. */
  get fault(): string | undefined {
    return this.#refused.size === 0 ? undefined : [...this.#refused.values()].join('; ');
  }

  /** @throws Failure Forbidden, for that is true of all and does not pass by itself; the signal's reason when that fires */
  async apply(): Promise<void> {
    const { sites, signal } = this.#options;
    for (const site of sites) {
      const failure = await this.#apply(site);
      if (failure?.reason === 'Forbidden') throw failure;
      signal.throwIfAborted();
    }
    this.#tryAgainLater();
  }

  #tryAgainLater(): void {
    const { sites, clock, signal } = this.#options;
    if (this.#refused.size === 0) return;
    clock.after(AGAIN_MS, () => {
      if (signal.aborted) return;
      const left = sites.filter(({ metadata }) => this.#refused.has(metadata.name));
      void Promise.all(left.map((site) => this.#apply(site))).then(() => this.#tryAgainLater());
    });
  }

  async #apply(site: Draft): Promise<Failure | undefined> {
    const { store, log } = this.#options;
    const { kind, metadata } = site;
    try {
      await store.apply(site);
    } catch (error) {
      const failure = Failure.from(error);
      if (this.#refused.get(metadata.name) !== failure.message) this.#tell(site, failure);
      return failure;
    }
    this.#refused.delete(metadata.name);
    log.info({ kind, name: metadata.name }, 'keeps this site as it is told at the start');
    return undefined;
  }

  #tell({ metadata: { name } }: Draft, failure: Failure): void {
    const { store, log, signal } = this.#options;
    if (signal.aborted) return;
    this.#refused.set(name, failure.message);
    log.error({ name, reason: failure.reason }, `${failure.message}; the site stays as it is, and is tried again`);
    const now = store.get('ImageSite', { name });
    if (now !== undefined) store.event(now, { type: 'Warning', reason: failure.reason, message: failure.message });
  }
}
