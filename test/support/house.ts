import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { kstatus } from '../../src/api/conditions.ts';
import type { ImageSite, ImageSubscription, SiteRow, VMImage } from '../../src/api/types.ts';
import { type ControllerOptions, type RunningController, startController } from '../../src/cli/controller.ts';
import { createLogger, type Logger } from '../../src/telemetry/log.ts';

export interface Manifest {
  kind: string;
  metadata: { name: string; namespace?: string; annotations?: Record<string, string>; labels?: Record<string, string> };
  spec?: unknown;
  stringData?: Record<string, string>;
  data?: Record<string, string>;
}

/** What a loaded machine needs longer for has not failed; less than what a test has. */
const PATIENCE_MS = 120_000;

/**
 * The whole program in this process, on folders of its own: manifests, state, and a folder for a directory site. What a user
 * would do with an editor is `write`; what a user would see is `image` and `until`.
 */
export class House {
  readonly root: string;
  readonly manifests: string;
  readonly state: string;
  readonly shelf: string;
  readonly log: Logger;
  /** Every log line, to look for what must not be there. */
  readonly lines: string[] = [];
  /** What stands in the manifests, by file. */
  readonly #written = new Map<string, Manifest[]>();
  readonly #options: Partial<ControllerOptions>;
  #running: { controller: RunningController; stop: AbortController } | undefined;

  constructor(options: Partial<ControllerOptions> = {}) {
    this.root = mkdtempSync(join(tmpdir(), 'imageproxy-house-'));
    this.manifests = join(this.root, 'manifests');
    this.state = join(this.root, 'state');
    this.shelf = join(this.root, 'shelf');
    mkdirSync(this.manifests);
    mkdirSync(this.shelf);
    this.#options = options;
    this.log = createLogger({
      level: 'debug',
      pretty: false,
      destination: { write: (line: string) => void this.lines.push(line) },
    });
  }

  async start(more: Partial<ControllerOptions> = {}): Promise<this> {
    const stop = new AbortController();
    const controller = await startController(
      {
        manifests: this.manifests,
        state: this.state,
        allowNetworks: ['127.0.0.0/8'],
        fileRoots: new Map(),
        maxParallelDownloads: 4,
        cacheQuotaBytes: 2 ** 30,
        cacheReserveFreeBytes: 0,
        lossConfirmMs: 100,
        log: this.log,
        ...this.#options,
        ...more,
      },
      stop.signal,
    );
    this.#running = { controller, stop };
    return this;
  }

  get controller(): RunningController {
    if (this.#running === undefined) throw new Error('the house is not running');
    return this.#running.controller;
  }

  get store() {
    return this.controller.store;
  }

  async stop(): Promise<void> {
    this.#running?.stop.abort();
    await this.#running?.controller.done;
    this.#running = undefined;
  }

  /** Stops the program, as for an upgrade, and removes all that the test made. */
  async close(): Promise<void> {
    await this.stop();
    rmSync(this.root, { recursive: true, force: true });
  }

  /** Writes a manifest file and has it read. */
  async write(file: string, ...objects: Manifest[]): Promise<void> {
    this.#written.set(file, objects);
    await this.writeText(file, textOf(objects));
  }

  /** The same with any text, which may be no manifest at all. */
  async writeText(file: string, text: string, mode = 0o600): Promise<void> {
    this.#put(file, text, mode);
    if (this.#running !== undefined) await this.store.scan();
  }

  /** In one step, or a look that is under way may find half of it: an empty file, which has no Secret any more. */
  #put(file: string, text: string, mode = 0o600): void {
    const edited = join(this.root, 'edited.yaml');
    writeFileSync(edited, text);
    chmodSync(edited, mode);
    renameSync(edited, join(this.manifests, file));
  }

  /** Takes the file away and deletes the image, as a user does who wants it gone now. */
  async remove(file: string, name: string): Promise<void> {
    rmSync(join(this.manifests, file), { force: true });
    await this.delete(name);
    await this.gone(name);
  }

  /** Files under these folders of the cache (`partial`, `scratch`): what unfinished work has left. */
  leftIn(...folders: ('partial' | 'scratch')[]): string[] {
    return folders.flatMap((folder) => {
      const path = join(this.state, 'cache', folder);
      if (!existsSync(path)) return [];
      return readdirSync(path, { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => join(entry.parentPath, entry.name));
    });
  }

  /** Asks for a fresh look, as `imageproxy reconcile` does. */
  async ask(name: string, at: string): Promise<void> {
    await this.store.annotate('VMImage', { namespace: 'default', name }, { 'imageproxy.dev/requestedAt': at });
  }

  image(name: string, namespace = 'default'): VMImage | undefined {
    return this.store.get<VMImage>('VMImage', { namespace, name });
  }

  row(name: string, site: string): SiteRow | undefined {
    return this.image(name)?.status.sites?.find((row) => row.name === site);
  }

  site(name: string): ImageSite | undefined {
    return this.store.get<ImageSite>('ImageSite', { name });
  }

  subscription(name: string): ImageSubscription | undefined {
    return this.store.get<ImageSubscription>('ImageSubscription', { namespace: 'default', name });
  }

  untilSubscription(
    name: string,
    wanted: (subscription: ImageSubscription) => boolean,
    what = 'what the test waits for',
    patienceMs = PATIENCE_MS,
  ): Promise<ImageSubscription> {
    return this.#until('ImageSubscription', name, wanted, what, patienceMs);
  }

  /** Resolves once the image is as wanted; fails with what it is instead. */
  until(
    name: string,
    wanted: (image: VMImage) => boolean,
    what = 'what the test waits for',
    patienceMs = PATIENCE_MS,
  ): Promise<VMImage> {
    return this.#until('VMImage', name, wanted, what, patienceMs);
  }

  untilSite(name: string, wanted: (site: ImageSite) => boolean, what = 'what the test waits for'): Promise<ImageSite> {
    return this.#until('ImageSite', name, wanted, what, PATIENCE_MS);
  }

  ready(name: string): Promise<VMImage> {
    return this.until(name, (image) => kstatus(image).status === 'Current' && isTrue(image, 'Ready'), 'Ready');
  }

  stalled(name: string): Promise<VMImage> {
    return this.until(name, (image) => kstatus(image).status === 'Failed', 'Stalled');
  }

  gone(name: string, namespace = 'default'): Promise<void> {
    return this.untilGone('VMImage', name, namespace);
  }

  async untilGone(kind: 'VMImage' | 'ImageSubscription', name: string, namespace = 'default'): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const there = () => this.store.get<VMImage | ImageSubscription>(kind, { namespace, name });
    if (there() === undefined) return;
    const timer = setTimeout(() => reject(new Error(`${name} is still there: ${describe(there())}`)), PATIENCE_MS);
    const end = this.store.subscribe(kind, ({ type, object }) => {
      if (type === 'Deleted' && object.metadata.name === name) resolve();
    });
    if (there() === undefined) resolve();
    await promise.finally(() => {
      end();
      clearTimeout(timer);
    });
  }

  /** Takes the object out of its manifest and deletes it: what a manifest still names is made anew by the next look at the folder. */
  async delete(name: string, kind: 'VMImage' | 'ImageSubscription' = 'VMImage'): Promise<void> {
    for (const [file, objects] of this.#written) {
      const others = objects.filter((each) => each.kind !== kind || each.metadata.name !== name);
      if (others.length === objects.length) continue;
      this.#written.set(file, others);
      if (others.length === 0) rmSync(join(this.manifests, file), { force: true });
      else this.#put(file, textOf(others));
    }
    await this.store.delete(kind, { namespace: 'default', name });
  }

  async #until<T extends VMImage | ImageSite | ImageSubscription>(
    kind: T['kind'],
    name: string,
    wanted: (object: T) => boolean,
    what: string,
    patienceMs: number,
  ): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    let last: T | undefined;
    const timer = setTimeout(() => reject(new Error(`${name} did not come to ${what}: ${describe(last)}`)), patienceMs);
    const end = this.store.subscribe<T>(kind, ({ object }) => {
      if (object.metadata.name !== name) return;
      last = object;
      if (wanted(object)) resolve(object);
    });
    try {
      return await promise;
    } finally {
      end();
      clearTimeout(timer);
    }
  }
}

export function condition(object: VMImage | ImageSite | ImageSubscription, type: string) {
  return object.status.conditions?.find((each) => each.type === type);
}

export function isTrue(object: VMImage | ImageSite | ImageSubscription, type: string): boolean {
  return condition(object, type)?.status === 'True';
}

function describe(object: VMImage | ImageSite | ImageSubscription | undefined): string {
  return object === undefined
    ? 'not there'
    : JSON.stringify({ metadata: object.metadata, status: object.status }, undefined, 1);
}

function textOf(objects: readonly Manifest[]): string {
  return objects.map(yamlOf).join('---\n');
}

/** One document of a manifest, as a user would write it. */
export function yamlOf(object: Manifest): string {
  return stringify({ apiVersion: versionOf(object.kind), ...object });
}

function versionOf(kind: string): string {
  return kind === 'Secret' || kind === 'ConfigMap' ? 'v1' : 'imageproxy.dev/v1beta1';
}

/** A VMImage from one URL. */
export function vmimage(name: string, spec: Record<string, unknown>): Manifest {
  return { kind: 'VMImage', metadata: { name }, spec };
}

/** A subscription `egi` to the unsigned HEPiX list at this URL, for the site `shelf`. */
export function unsignedSubscription(url: string, more: Record<string, unknown> = {}): Manifest & { spec: object } {
  const template = { spec: { sites: [{ name: 'shelf' }] } };
  const spec = { url, format: 'HEPiX', trust: { unsigned: {} }, template, ...more };
  return { kind: 'ImageSubscription', metadata: { name: 'egi' }, spec };
}

export function directorySite(name: string, path: string, more: Record<string, unknown> = {}): Manifest {
  return { kind: 'ImageSite', metadata: { name }, spec: { directory: { path }, ...more } };
}

/** An OpenStack site with its Secret. */
export function openstackSite(
  name: string,
  clouds: string,
  cloud: string,
  more: Record<string, unknown> = {},
): Manifest[] {
  return [
    { kind: 'Secret', metadata: { name, namespace: 'imageproxy' }, stringData: { 'clouds.yaml': clouds } },
    {
      kind: 'ImageSite',
      metadata: { name },
      spec: { openstack: { secretRef: { name }, cloud, region: 'RegionOne' }, ...more },
    },
  ];
}
