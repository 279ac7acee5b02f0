import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  type DirectoryStore,
  type ManifestObject,
  openDirectoryStore,
  type Validate,
} from '../../../src/stores/directory/index.ts';
import type { Disk } from '../../../src/stores/directory/disk.ts';
import type { Resource } from '../../../src/stores/store.ts';

/** Time that passes only when the test says so. */
export class TestClock {
  #now = Math.floor(Date.now() / 1000) * 1000;
  #count = 0;
  readonly #timers = new Map<number, { at: number; callback: () => void }>();

  readonly now = (): number => this.#now;

  setTimeout(callback: () => void, ms: number): number {
    this.#timers.set(++this.#count, { at: this.#now + ms, callback });
    return this.#count;
  }

  clearTimeout(handle: unknown): void {
    this.#timers.delete(handle as number);
  }

  advance(ms: number): void {
    const end = this.#now + ms;
    for (;;) {
      const due = [...this.#timers].filter(([, { at }]) => at <= end).sort(([, a], [, b]) => a.at - b.at)[0];
      if (due === undefined) break;
      const [handle, { at, callback }] = due;
      this.#timers.delete(handle);
      this.#now = Math.max(this.#now, at);
      callback();
    }
    this.#now = end;
  }

  get pending(): number {
    return this.#timers.size;
  }
}

export class TestLog {
  readonly lines: { level: string; message: string; fields: object }[] = [];
  readonly debug = this.#at('debug');
  readonly info = this.#at('info');
  readonly warn = this.#at('warn');
  readonly error = this.#at('error');

  #at(level: string): (fields: object, message: string) => void {
    return (fields, message) => this.lines.push({ level, message, fields });
  }

  messages(level: string): string[] {
    return this.lines.filter((line) => line.level === level).map(({ message }) => message);
  }
}

export interface TestObject extends Resource {
  spec: { url: string; state?: string; guid?: string; policy?: string };
  status: Record<string, unknown> & { observedGeneration: number };
}

const FIELDS = new Set(['url', 'state', 'guid', 'policy']);

/** A small schema: `url` is required, `state` has a default, `guid` is immutable, the rest is pruned. */
export const validateSmall: Validate = (_kind, input, old) => {
  const spec = (input.spec ?? {}) as Record<string, unknown>;
  const errors = [];
  if (typeof spec.url !== 'string') errors.push({ path: 'spec.url', message: 'is required: name the image' });
  const former = (old?.spec ?? {}) as Record<string, unknown>;
  if (old !== undefined && former.guid !== spec.guid) errors.push({ path: 'spec.guid', message: 'is immutable' });
  const status = input.status as Record<string, unknown> | undefined;
  if (status !== undefined && typeof status.observedGeneration !== 'number') {
    errors.push({ path: 'status.observedGeneration', message: 'must be a number' });
  }
  const unknown = Object.keys(spec).filter((key) => !FIELDS.has(key));
  const warnings = unknown.map((key) => ({ path: `spec.${key}`, message: 'is not known and was left out' }));
  const kept = Object.fromEntries(Object.entries(spec).filter(([key]) => FIELDS.has(key)));
  if (errors.length > 0) return { errors, warnings };
  return { errors, warnings, object: { ...input, spec: { state: 'Active', ...kept } } };
};

/** A store on folders of its own, and what a test does to it. */
export class Bench {
  readonly clock = new TestClock();
  readonly log = new TestLog();
  readonly root: string;
  readonly manifests: string;
  readonly state: string;
  readonly #stores: DirectoryStore[] = [];

  constructor(root: string) {
    this.root = root;
    this.manifests = join(root, 'manifests');
    this.state = join(root, 'state');
  }

  static async make(): Promise<Bench> {
    // In memory where the machine has such a place: these tests sync a lot, and what they show does not depend on the disk.
    const folder = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();
    return new Bench(await mkdtemp(join(folder, 'directory-store-')));
  }

  async open(
    options: {
      disk?: Disk;
      instance?: string;
      manifests?: string | null;
      credentials?: readonly ManifestObject[];
      validate?: Validate;
    } = {},
  ): Promise<DirectoryStore> {
    const { manifests = this.manifests, ...rest } = options;
    const store = await openDirectoryStore({
      state: this.state,
      validate: validateSmall,
      now: this.clock.now,
      timers: this.clock,
      log: this.log,
      ...(manifests === null ? {} : { manifests }),
      ...rest,
    });
    this.#stores.push(store);
    return store;
  }

  async started(options: Parameters<Bench['open']>[0] = {}): Promise<DirectoryStore> {
    const store = await this.open(options);
    await store.start(new AbortController().signal);
    return store;
  }

  /** Two looks at the manifests, far enough apart for what is absent to be taken as gone. */
  async lookTwice(store: DirectoryStore): Promise<void> {
    await store.scan();
    this.clock.advance(5_000);
    await store.scan();
  }

  async dispose(): Promise<void> {
    for (const store of this.#stores) await store.close().catch(() => undefined);
    await rm(this.root, { recursive: true, force: true });
  }
}

export function imageYaml(name: string, spec: Record<string, unknown> = {}, namespace?: string): string {
  const fields = Object.entries({ url: `https://example.org/${name}`, ...spec }).map(
    ([key, value]) => `  ${key}: ${JSON.stringify(value)}\n`,
  );
  const home = namespace === undefined ? '' : `\n  namespace: ${namespace}`;
  return `apiVersion: imageproxy.dev/v1beta1\nkind: VMImage\nmetadata:\n  name: ${name}${home}\nspec:\n${fields.join('')}`;
}
