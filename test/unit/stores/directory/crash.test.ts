import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Disk, type Step } from '../../../../src/stores/directory/disk.ts';
import type { DirectoryStore } from '../../../../src/stores/directory/index.ts';
import { Bench, imageYaml, type TestObject } from '../support.ts';

interface Pending {
  /** undefined: removed. */
  text: string | undefined;
  synced: boolean;
}

/**
 * A disk that dies after some steps, and forgets at a power cut what had not been synced: each name may be at any of its states
 * since the last sync of its folder, and a file whose data was not synced may be whole, torn or empty.
 */
class FailingDisk {
  readonly disk = new Disk((step, path) => this.#before(step, path));
  dead = false;
  #stepsLeft: number;
  readonly #synced = new Set<string>();
  readonly #pending = new Map<string, Pending[]>();
  readonly #former = new Map<string, string | undefined>();

  constructor(steps: number) {
    this.#stepsLeft = steps;
  }

  kill(): void {
    this.dead = true;
  }

  #before(step: Step, path: string): void {
    if (this.dead || this.#stepsLeft-- <= 0) {
      this.dead = true;
      throw new Error('the machine is dead');
    }
    if (step === 'sync') this.#synced.add(path);
    if (step === 'rename') {
      const prefix = `.${basename(path)}.`;
      const temporary = readdirSync(dirname(path)).filter((name) => name.startsWith(prefix) && name.endsWith('.tmp'));
      expect(temporary).toHaveLength(1);
      const from = join(dirname(path), temporary[0] as string);
      this.#record(path, { text: readFileSync(from, 'utf8'), synced: this.#synced.delete(from) });
    }
    if (step === 'unlink') this.#record(path, { text: undefined, synced: true });
    if (step === 'syncFolder') this.#settle(path);
  }

  #record(path: string, change: Pending): void {
    if (!this.#pending.has(path)) this.#former.set(path, existsSync(path) ? readFileSync(path, 'utf8') : undefined);
    this.#pending.set(path, [...(this.#pending.get(path) ?? []), change]);
  }

  /** What can be seen in the folder now survives; a rename that is only about to happen does not. */
  #settle(folder: string): void {
    for (const [path, changes] of this.#pending) {
      if (dirname(path) !== folder) continue;
      const visible = existsSync(path) ? readFileSync(path, 'utf8') : undefined;
      const last = changes.findLastIndex(({ text, synced }) => text === visible && synced);
      if (last < 0) continue;
      const left = changes.slice(last + 1);
      if (left.length === 0) this.#pending.delete(path);
      else this.#pending.set(path, left);
      this.#former.set(path, visible);
    }
  }

  cutPower(random: () => number): void {
    for (const [path, changes] of this.#pending) {
      const states: (string | undefined)[] = [this.#former.get(path)];
      for (const { text, synced } of changes) {
        states.push(text);
        if (!synced && text !== undefined) states.push('', text.slice(0, text.length >> 1), '\0'.repeat(64));
      }
      const text = states[Math.floor(random() * states.length)];
      if (text === undefined) rmSync(path, { force: true });
      else writeFileSync(path, text);
    }
  }
}

const MANIFESTS = ['a', 'b', 'c'];
const APPLIED = ['x', 'y'];
const FINALIZER = 'imageproxy.dev/registrations';

type Action =
  | { do: 'write'; name: string; version: number }
  | { do: 'spoil'; name: string }
  | { do: 'unlink'; name: string }
  | { do: 'look' }
  | { do: 'apply'; name: string; version: number }
  | { do: 'status' | 'progress' | 'finalize' | 'release' | 'delete' | 'annotate'; name: string }
  | { do: 'restart' }
  | { do: 'kill' }
  | { do: 'arm'; steps: number };

const name = fc.constantFrom(...MANIFESTS, ...APPLIED);
const version = fc.integer({ min: 0, max: 2 });
const action: fc.Arbitrary<Action> = fc.oneof(
  fc.record({ do: fc.constant('write' as const), name: fc.constantFrom(...MANIFESTS), version }),
  fc.record({ do: fc.constant('spoil' as const), name: fc.constantFrom(...MANIFESTS) }),
  fc.record({ do: fc.constant('unlink' as const), name: fc.constantFrom(...MANIFESTS) }),
  fc.record({ do: fc.constant('look' as const) }),
  fc.record({ do: fc.constant('apply' as const), name: fc.constantFrom(...APPLIED), version }),
  { weight: 4, arbitrary: fc.record({ do: fc.constantFrom('status' as const, 'progress' as const), name }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constantFrom('finalize' as const, 'release' as const, 'delete' as const, 'annotate' as const),
      name,
    }),
  },
  fc.record({ do: fc.constant('restart' as const) }),
  fc.record({ do: fc.constant('kill' as const) }),
  { weight: 2, arbitrary: fc.record({ do: fc.constant('arm' as const), steps: fc.integer({ min: 0, max: 12 }) }) },
);

/** Carries out actions, dies now and then, and knows what must have survived. */
class Trial {
  readonly bench: Bench;
  readonly #random: () => number;
  readonly #files = new Map<string, string>();
  /** Per uid: the last status whose writing was acknowledged. */
  readonly #acknowledged = new Map<string, number>();
  /** Uids of which the store itself has said that they are gone. */
  readonly #gone = new Set<string>();
  /** Uids whose deletion somebody has asked for. */
  readonly #condemned = new Set<string>();
  #count = 0;
  #disk = new FailingDisk(Infinity);
  #store!: DirectoryStore;
  crashes = 0;
  acknowledgedWrites = 0;

  constructor(bench: Bench, random: () => number) {
    this.bench = bench;
    this.#random = random;
  }

  async run(actions: Action[]): Promise<void> {
    await mkdir(this.bench.manifests);
    await this.#open(Infinity);
    for (const step of actions) {
      await this.#perform(step).catch((error: unknown) => {
        if (!this.#disk.dead) throw error;
      });
      if (this.#disk.dead) await this.#recover(Infinity);
    }
    await this.#recover(Infinity);
    for (const [file, text] of this.#files) expect(await readFile(join(this.bench.manifests, file), 'utf8')).toBe(text);
    expect((await readdir(this.bench.manifests)).sort()).toEqual([...this.#files.keys()].sort());
  }

  async #perform(step: Action): Promise<void> {
    if (step.do === 'write') return this.#edit(step.name, imageYaml(step.name, { url: `v${step.version}` }));
    if (step.do === 'spoil') return this.#edit(step.name, 'kind: [');
    if (step.do === 'unlink') return this.#edit(step.name, undefined);
    if (step.do === 'look') return this.#look();
    if (step.do === 'restart') return this.#reopen(Infinity);
    if (step.do === 'kill') return this.#disk.kill();
    if (step.do === 'arm') return this.#reopen(step.steps + 8);
    if (step.do === 'apply') {
      const draft = {
        apiVersion: 'imageproxy.dev/v1beta1',
        kind: 'VMImage',
        metadata: { name: step.name },
        spec: { url: `v${step.version}` },
      };
      return void (await this.#store.apply(draft));
    }
    const object = this.#store.get<TestObject>('VMImage', { namespace: 'default', name: step.name });
    if (object === undefined) return;
    const { uid, deletionTimestamp } = object.metadata;
    const key = { namespace: 'default', name: step.name };
    if (step.do === 'status') {
      const observedGeneration = ++this.#count;
      await this.#store.applyStatus(object, { observedGeneration });
      this.#acknowledged.set(uid, observedGeneration);
      this.acknowledgedWrites++;
    } else if (step.do === 'progress') {
      await this.#store.applyStatus(object, { ...object.status, progress: { percent: ++this.#count } });
    } else if (step.do === 'finalize') await this.#store.addFinalizer(object, FINALIZER);
    else if (step.do === 'annotate') await this.#store.annotate('VMImage', key, { count: String(++this.#count) });
    else {
      if (step.do === 'delete' || deletionTimestamp !== undefined) this.#condemned.add(uid);
      if (step.do === 'delete') await this.#store.delete('VMImage', key);
      else await this.#store.removeFinalizer(object, FINALIZER);
    }
  }

  async #edit(file: string, text: string | undefined): Promise<void> {
    const path = join(this.bench.manifests, `${file}.yaml`);
    if (text === undefined) {
      this.#files.delete(`${file}.yaml`);
      await rm(path, { force: true });
    } else {
      this.#files.set(`${file}.yaml`, text);
      await writeFile(path, text);
    }
  }

  async #look(): Promise<void> {
    for (const { metadata } of this.#store.list('VMImage')) {
      if (MANIFESTS.includes(metadata.name) && !this.#files.has(`${metadata.name}.yaml`))
        this.#condemned.add(metadata.uid);
    }
    await this.bench.lookTwice(this.#store);
  }

  async #open(steps: number): Promise<void> {
    this.#disk = new FailingDisk(steps);
    this.#store = await this.bench.open({ disk: this.#disk.disk });
    this.#store.subscribe('VMImage', ({ type, object }) => type === 'Deleted' && this.#gone.add(object.metadata.uid));
    await this.#store.start(new AbortController().signal);
  }

  async #reopen(steps: number): Promise<void> {
    await this.#store.close();
    await this.#open(steps).catch((error: unknown) => {
      if (!this.#disk.dead) throw error;
    });
  }

  async #recover(steps: number): Promise<void> {
    if (this.#disk.dead) this.crashes++;
    this.#disk.kill();
    await this.#store.close().catch(() => undefined);
    // Half of the deaths are the process's alone: then the system writes what it has.
    if (this.#random() < 0.5) this.#disk.cutPower(this.#random);
    await this.#open(steps);
    this.#check();
  }

  #check(): void {
    expect(this.bench.log.messages('warn').filter((message) => message.includes('set aside'))).toEqual([]);
    const alive = new Map(this.#store.list<TestObject>('VMImage').map((object) => [object.metadata.uid, object]));
    for (const uid of this.#gone) expect(alive.has(uid), 'an object that was deleted is back').toBe(false);
    for (const [uid, status] of this.#acknowledged) {
      const object = alive.get(uid);
      if (object === undefined) expect(this.#condemned.has(uid), 'an object is lost').toBe(true);
      else expect(object.status.observedGeneration, 'a status is lost').toBeGreaterThanOrEqual(status);
    }
  }
}

function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    // mulberry32
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Something is there to be lost. */
const prelude: Action[] = [
  { do: 'write', name: 'a', version: 0 },
  { do: 'write', name: 'b', version: 0 },
  { do: 'apply', name: 'x', version: 0 },
  { do: 'look' },
  { do: 'status', name: 'a' },
  { do: 'status', name: 'x' },
];

describe('Whatever dies and whenever', () => {
  it('no acknowledged status is lost, nothing deleted comes back, and no manifest is touched', async () => {
    let crashes = 0;
    let writes = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(action, { minLength: 10, maxLength: 60 }), fc.integer(), async (actions, seed) => {
        const bench = await Bench.make();
        try {
          const trial = new Trial(bench, randomFrom(seed));
          await trial.run([...prelude, ...actions]);
          crashes += trial.crashes;
          writes += trial.acknowledgedWrites;
        } finally {
          await bench.dispose();
        }
      }),
      { numRuns: 60 },
    );
    // The property says nothing if nothing ever died.
    expect(crashes).toBeGreaterThan(30);
    expect(writes).toBeGreaterThan(60);
  }, 300_000);

  it('and the same trial does find a store that forgets to sync', async () => {
    const disk = new FailingDisk(Infinity);
    const bench = await Bench.make();
    await mkdir(bench.manifests);
    const store = await bench.started({ disk: disk.disk });
    const { metadata } = await store.apply<TestObject>({
      apiVersion: 'imageproxy.dev/v1beta1',
      kind: 'VMImage',
      metadata: { name: 'x' },
      spec: { url: 'u' },
    });
    const path = join(bench.state, 'objects', 'VMImage_default_x.json');
    const text = await readFile(path, 'utf8');
    await disk.disk.replace(path, text, false);
    await store.close();
    disk.cutPower(() => 0.99);
    const again = await bench.started();
    expect(again.list('VMImage').map((object) => object.metadata.uid)).not.toContain(metadata.uid);
    await bench.dispose();
  });
});
