import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { loadSchemas } from '../../../src/api/schema.ts';
import {
  type DirectoryStore,
  holderOf,
  openDirectoryStore,
  readState,
  requestState,
} from '../../../src/stores/directory/index.ts';
import type { Timers } from '../../../src/stores/directory/seams.ts';
import type { Resource } from '../../../src/stores/store.ts';

interface Image extends Resource {
  spec: Record<string, unknown>;
  status: { observedGeneration: number; sites?: { attempts: number }[] };
}

/** Of manifests, when no notice comes before. */
const LOOK_MS = 5_000;
const WRITER = new URL('./writer.ts', import.meta.url).pathname;
const schemas = loadSchemas();
const warnings: string[] = [];
let root: string;
let children: ChildProcess[] = [];
let stores: DirectoryStore[] = [];

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'directory-store-'));
  await mkdir(join(root, 'manifests'));
  warnings.length = 0;
});
afterEach(async () => {
  for (const child of children) if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
  for (const store of stores) await store.close();
  [children, stores] = [[], []];
  await rm(root, { recursive: true, force: true });
});

async function open(timers: Timers = globalThis): Promise<DirectoryStore> {
  const quiet = (): void => undefined;
  const store = await openDirectoryStore({
    manifests: join(root, 'manifests'),
    state: join(root, 'state'),
    validate: (kind, input, old) => schemas.validate(kind, input, old),
    now: Date.now,
    timers,
    log: { debug: quiet, info: quiet, warn: (_, message) => warnings.push(message), error: quiet },
  });
  stores.push(store);
  await store.start(new AbortController().signal);
  return store;
}

function image(name: string): string {
  return `apiVersion: imageproxy.dev/v1beta1
kind: VMImage
metadata: { name: ${name} }
spec:
  source: { http: { urls: ["https://images.example.org/${name}.qcow2"] } }
  checksums: { sha256: "${'ab'.repeat(32)}" }
  sites: [{ name: a }]
`;
}

interface Line {
  ready?: boolean;
  warning?: string;
  name: string;
  uid: string;
  attempts: number;
}

/** The writing child; its lines are read as they come. */
function write(onLine: (line: Line) => void): { child: ChildProcess; ready: Promise<void> } {
  const child = spawn(process.execPath, [WRITER, join(root, 'manifests'), join(root, 'state')], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  const ready = Promise.withResolvers<void>();
  createInterface({ input: child.stdout as NodeJS.ReadableStream }).on('line', (text) => {
    const line = JSON.parse(text) as Line;
    if (line.ready === true) ready.resolve();
    else onLine(line);
  });
  child.once('close', () => ready.reject(new Error('the writer ended before it was ready')));
  return { child, ready: ready.promise };
}

describe('A directory store with the schemas of the CRDs', () => {
  it('defaults, prunes with a warning, and refuses by CEL rule with the line', async () => {
    const bad = image('bad').replace('  checksums: { sha256: "', '  checksums: { sha256: "zz');
    await writeFile(
      join(root, 'manifests', 'a.yaml'),
      `${image('good')}  colour: red\n---\n${bad}---\n${image('late')}`,
    );
    const store = await open();
    const good = store.get<Image>('VMImage', { namespace: 'default', name: 'good' });
    expect(good?.status).toEqual({ observedGeneration: -1 });
    expect(good?.spec).toMatchObject({ deletionPolicy: 'Delete', state: 'Active', format: 'Auto' });
    expect(good?.spec).not.toHaveProperty('colour');
    expect(
      store
        .list('VMImage')
        .map(({ metadata }) => metadata.name)
        .sort(),
    ).toEqual(['good', 'late']);
    const problems = store
      .problems()
      .map(({ document, line, field, severity }) => ({ document, line, field, severity }));
    expect(problems).toContainEqual({ document: 1, line: 8, field: 'spec.colour', severity: 'warning' });
    expect(problems).toContainEqual({ document: 2, line: 15, field: 'spec.checksums.sha256', severity: 'error' });
  });

  it('has the same generation, uid and resourceVersion after a restart, so nothing looks changed', async () => {
    await writeFile(join(root, 'manifests', 'a.yaml'), image('a'));
    const first = await open();
    const before = first.get<Image>('VMImage', { namespace: 'default', name: 'a' });
    await first.close();
    const after = (await open()).get<Image>('VMImage', { namespace: 'default', name: 'a' });
    expect(after).toEqual(before);
    expect(after?.metadata.generation).toBe(1);
  });

  it('holds immutable fields against the object as it is', async () => {
    const withGuid = (guid: string): string => image('a').replace('spec:', `spec:\n  guid: ${guid}`);
    await writeFile(join(root, 'manifests', 'a.yaml'), withGuid('one'));
    const store = await open();
    await writeFile(join(root, 'manifests', 'a.yaml'), withGuid('two'));
    await store.scan();
    expect(store.get<Image>('VMImage', { namespace: 'default', name: 'a' })?.spec.guid).toBe('one');
    expect(store.problems()).toMatchObject([{ document: 1, severity: 'error' }]);
    expect(store.problems()[0]?.line).toBeGreaterThan(3);
  });
});

describe('A process that writes statuses', () => {
  it('and is killed at any moment has lost nothing that it had acknowledged', async () => {
    await writeFile(join(root, 'manifests', 'a.yaml'), ['a', 'b', 'c', 'd'].map(image).join('---\n'));
    const acknowledged = new Map<string, Line>();
    for (let round = 0; round < 6; round++) {
      let lines = 0;
      const enough = Promise.withResolvers<void>();
      const { child, ready } = write((line) => {
        if (line.warning !== undefined) warnings.push(line.warning);
        else acknowledged.set(line.name, line);
        if (++lines === 5) enough.resolve();
      });
      await ready;
      await enough.promise;
      // Not to synchronise: the moment of death is to be a different one each time.
      await sleep(Math.random() * 60);
      const closed = once(child, 'close');
      child.kill('SIGKILL');
      await closed;
      expect(await holderOf(join(root, 'state'))).toBeUndefined();
      const store = await open();
      for (const { name, uid, attempts } of acknowledged.values()) {
        const object = store.get<Image>('VMImage', { namespace: 'default', name });
        expect(object?.metadata.uid).toBe(uid);
        expect(object?.status.sites?.[0]?.attempts).toBeGreaterThanOrEqual(attempts);
      }
      await store.close();
    }
    expect(acknowledged.size).toBe(4);
    expect(warnings).toEqual([]);
  });

  it('keeps others out, is read and watched beside, and does what they ask', async () => {
    await writeFile(join(root, 'manifests', 'a.yaml'), image('a'));
    const { child, ready } = write(() => undefined);
    await ready;
    await expect(open()).rejects.toMatchObject({
      reason: 'ClaimedByOther',
      message: expect.stringContaining(`process ${child.pid} on `),
    });
    const reader = readState(join(root, 'state'));
    expect(await reader.holder()).toMatchObject({ pid: child.pid });
    const grown = Promise.withResolvers<void>();
    const abort = new AbortController();
    const versions: number[] = [];
    const listen = ({ object }: { object: Resource }): void => {
      versions.push(Number(object.metadata.resourceVersion));
      if (versions.length === 5) grown.resolve();
    };
    await reader.watch('VMImage', listen, abort.signal);
    await grown.promise;
    abort.abort();
    expect(versions.toSorted((a, b) => a - b)).toEqual(versions);

    const key = { namespace: 'default', name: 'a' };
    const options = { timeoutMs: 60_000 };
    await requestState(
      join(root, 'state'),
      { type: 'annotate', kind: 'VMImage', key, annotations: { 'imageproxy.dev/requestedAt': 'now' } },
      options,
    );
    expect((await reader.get('VMImage', key))?.metadata.annotations).toEqual({ 'imageproxy.dev/requestedAt': 'now' });
    const closed = once(child, 'close');
    child.kill('SIGKILL');
    await closed;
    expect(await requestState(join(root, 'state'), { type: 'confirm-deletions' }, options)).toBeUndefined();
  });
});

describe('Notices of the file system', () => {
  it('bring a changed manifest into the store without a look that is due', async () => {
    const neverDue: Timers = {
      setTimeout: (work, ms) => (ms < LOOK_MS ? setTimeout(work, ms) : undefined),
      clearTimeout: (timer) => clearTimeout(timer as NodeJS.Timeout | undefined),
    };
    const store = await open(neverDue);
    const seen = Promise.withResolvers<string>();
    store.subscribe('VMImage', ({ object }) => seen.resolve(object.metadata.name));
    await writeFile(join(root, 'manifests', 'a.yaml'), image('a'));
    expect(await seen.promise).toBe('a');
  });
});
