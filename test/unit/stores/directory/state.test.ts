import { mkdir, readdir, readFile, stat, truncate, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { basename, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Disk } from '../../../../src/stores/directory/disk.ts';
import { holderOf, parseManifest, readState } from '../../../../src/stores/directory/index.ts';
import { recordFile } from '../../../../src/stores/directory/records.ts';
import type { Draft, Resource } from '../../../../src/stores/store.ts';
import { Bench, imageYaml, type TestObject, validateSmall } from '../support.ts';

let bench: Bench;
beforeEach(async () => {
  bench = await Bench.make();
  await mkdir(bench.manifests);
});
afterEach(() => bench.dispose());

const key = { namespace: 'default', name: 'a' };
const draft = (name = 'a', more: Partial<Draft['metadata']> = {}): Draft => ({
  apiVersion: 'imageproxy.dev/v1beta1',
  kind: 'VMImage',
  metadata: { name, ...more },
  spec: { url: 'https://example.org/a' },
});
const recordPath = (name = 'a'): string =>
  join(bench.state, 'objects', recordFile('VMImage', { namespace: 'default', name }));

describe('The state directory', () => {
  it('has one writer; the second is told who it is, and the first gives it free when it ends', async () => {
    const store = await bench.open();
    await expect(bench.open()).rejects.toMatchObject({
      reason: 'ClaimedByOther',
      message: expect.stringContaining(
        `process ${process.pid} on ${hostname()}, which has it since ${new Date(bench.clock.now()).toISOString()}`,
      ),
    });
    expect(await holderOf(bench.state)).toMatchObject({ pid: process.pid });
    await store.close();
    expect(await holderOf(bench.state)).toBeUndefined();
    await (await bench.open()).close();
    expect(await holderOf(join(bench.root, 'nowhere'))).toBeUndefined();
  });

  it('is given free when the signal fires', async () => {
    const store = await bench.open();
    const abort = new AbortController();
    await store.start(abort.signal);
    abort.abort();
    await store.close();
    expect(await holderOf(bench.state)).toBeUndefined();
  });

  it('watches nothing any more when it was ended while it started, so that the process can end', async () => {
    const watches = () => process.getActiveResourcesInfo().filter((name) => name === 'FSEventWrap').length;
    const before = watches();
    const store = await bench.open();
    const abort = new AbortController();
    const starting = store.start(abort.signal);
    abort.abort();
    await starting.catch(() => undefined);
    await store.close();
    expect(watches()).toBe(before);
  });

  it("keeps the instance's name, and refuses another with the cure", async () => {
    const first = await bench.open();
    expect(first.instance).toMatch(new RegExp(`^${hostname()}-[0-9a-f]{8}$`));
    await first.close();
    await expect(bench.open({ instance: 'other' })).rejects.toMatchObject({
      reason: 'Rejected',
      message: expect.stringContaining('leave --instance out'),
    });
    const again = await bench.open({ instance: first.instance });
    expect(again.instance).toBe(first.instance);
  });

  it('takes the name it is given, and forgets it not', async () => {
    await (await bench.open({ instance: 'site-a' })).close();
    expect((await bench.open()).instance).toBe('site-a');
  });

  it('of a newer format is refused', async () => {
    await (await bench.open()).close();
    await writeFile(join(bench.state, 'format.json'), '{"format":2}');
    await expect(bench.open()).rejects.toMatchObject({ reason: 'NotSupported' });
    expect(await holderOf(bench.state)).toBeUndefined();
  });

  it('is closed to others', async () => {
    const store = await bench.started();
    await store.apply(draft());
    expect((await stat(bench.state)).mode & 0o777).toBe(0o700);
    expect((await stat(recordPath())).mode & 0o777).toBe(0o600);
  });

  it('holds no Secret and no ConfigMap, in no file', async () => {
    const secret = 'apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\nstringData:\n  password: hunter2\n';
    const map = 'apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: m\ndata:\n  text: hunter2\n';
    await writeFile(join(bench.manifests, 's.yaml'), `${secret}---\n${map}`, { mode: 0o600 });
    await writeFile(join(bench.manifests, 'a.yaml'), imageYaml('a'));
    const store = await bench.started();
    const held = store.get('Secret', { namespace: 'default', name: 's' }) as Resource;
    store.event(held, { type: 'Normal', reason: 'Used', message: 'used' });
    await store.close();
    const files = (await readdir(bench.state, { recursive: true, withFileTypes: true })).filter((entry) =>
      entry.isFile(),
    );
    expect(files.length).toBeGreaterThan(3);
    for (const { parentPath, name } of files) {
      expect(name).not.toContain('Secret');
      expect(await readFile(join(parentPath, name), 'latin1')).not.toContain('hunter2');
    }
  });

  it('holds no Secret that the store was given, and is rid of those that older versions left there', async () => {
    const left = join(bench.state, 'credentials-a1B2c3');
    const own = join(bench.state, 'credentials-of-mine');
    for (const folder of [left, own]) {
      await mkdir(folder, { recursive: true });
      await writeFile(join(folder, '0.json'), 'hunter1');
    }
    const text = 'apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\nstringData:\n  password: hunter2\n';
    const { objects } = await parseManifest('given.yaml', text, validateSmall);
    const store = await bench.started({ credentials: objects, manifests: null });
    const held = await store.secret({ namespace: 'default', name: 's' });
    expect(Buffer.from(held?.data['password'] ?? []).toString()).toBe('hunter2');
    await store.close();
    expect(await readdir(bench.state)).not.toContain(basename(left));
    expect(await readdir(own), 'what only looks like it is left alone').toEqual(['0.json']);
    for (const entry of await readdir(bench.state, { recursive: true, withFileTypes: true })) {
      if (entry.isFile()) expect(await readFile(join(entry.parentPath, entry.name), 'latin1')).not.toContain('hunter2');
    }
  });

  it.each([
    ['empty', (path: string) => truncate(path, 0)],
    ['torn', (path: string) => truncate(path, 100)],
    ['garbage', (path: string) => writeFile(path, '\0\0\0\0')],
    ['of another object', async (path: string) => writeFile(path, await readFile(recordPath('b'), 'utf8'))],
    ['of no known shape', (path: string) => writeFile(path, '{"format":1,"object":{}}')],
  ])('with a file that is %s sets it aside, takes the object as new, and keeps the others', async (_, spoil) => {
    await writeFile(join(bench.manifests, 'a.yaml'), imageYaml('a'));
    let store = await bench.started();
    const b = await store.apply<TestObject>(draft('b'));
    const { uid } = store.get('VMImage', key)?.metadata ?? {};
    await store.close();
    await spoil(recordPath());
    store = await bench.started();
    expect(store.get('VMImage', key)?.metadata).toMatchObject({ generation: 1 });
    expect(store.get('VMImage', key)?.metadata.uid).not.toBe(uid);
    expect(store.get('VMImage', { ...key, name: 'b' })?.metadata.uid).toBe(b.metadata.uid);
    expect(bench.log.messages('warn')).toEqual([expect.stringContaining('set aside')]);
    await stat(`${recordPath()}.corrupt`);
  });

  it('takes names as long as names may be', async () => {
    const name = `${'a'.repeat(62)}.`.repeat(4).slice(0, 252) + 'b';
    let store = await bench.started();
    const { uid } = (await store.apply<TestObject>(draft(name, { namespace: 'n'.repeat(63) }))).metadata;
    await store.close();
    store = await bench.started();
    expect(store.get('VMImage', { namespace: 'n'.repeat(63), name })?.metadata.uid).toBe(uid);
  });

  it('gives resourceVersions that only grow, across restarts and without the counter, too', async () => {
    let largest = 0;
    for (let run = 0; run < 4; run++) {
      const store = await bench.started();
      const object = await store.apply<TestObject>({ ...draft(), spec: { url: `u${run}` } });
      const version = Number(object.metadata.resourceVersion);
      expect(version).toBeGreaterThan(largest);
      largest = Number((await store.applyStatus(object, { observedGeneration: run }))?.metadata.resourceVersion);
      await store.close();
      if (run === 1) await writeFile(join(bench.state, 'counter.json'), '');
      if (run === 2) await writeFile(recordPath(), '');
    }
  });
});

describe('A change of status', () => {
  const steps: string[] = [];
  const disk = new Disk((step) => steps.push(step));

  it('is synced to the disk, except where nothing but progress changed', async () => {
    const store = await bench.started({ disk });
    const object = await store.apply<TestObject>(draft());
    const written = async (status: object): Promise<string[]> => {
      steps.length = 0;
      await store.applyStatus(object, status);
      return steps.filter((step) => step.startsWith('sync'));
    };
    const rows = (percent: number, phase: string): object => ({
      observedGeneration: 1,
      progress: { percent },
      summary: { progress: `${percent}%` },
      sites: [{ name: 'a', phase, progress: { percent } }],
    });
    expect(await written(rows(1, 'Fetching'))).toEqual(['sync', 'syncFolder']);
    expect(await written(rows(2, 'Fetching'))).toEqual([]);
    expect(await written(rows(3, 'Fetching'))).toEqual([]);
    expect(await readState(bench.state).get('VMImage', key)).toEqual(store.get('VMImage', key));
    expect(await written(rows(3, 'Ready'))).toEqual(['sync', 'syncFolder']);
    expect(await readState(bench.state).get('VMImage', key)).toEqual(store.get('VMImage', key));
    expect(await readdir(join(bench.state, 'progress'))).toEqual([]);
  });

  it('that is progress is there after a restart, and gone without harm when its file is torn', async () => {
    let store = await bench.started();
    const object = await store.apply<TestObject>(draft());
    await store.applyStatus(object, { observedGeneration: 1, phase: 'Fetching' });
    await store.applyStatus(object, { observedGeneration: 1, phase: 'Fetching', progress: { percent: 7 } });
    await store.close();
    store = await bench.started();
    expect(store.get<TestObject>('VMImage', key)?.status).toMatchObject({
      phase: 'Fetching',
      progress: { percent: 7 },
    });
    await store.applyStatus(object, { observedGeneration: 1, phase: 'Fetching', progress: { percent: 8 } });
    expect((await readState(bench.state).get('VMImage', key))?.status).toMatchObject({ progress: { percent: 8 } });
    await store.close();
    await truncate(join(bench.state, 'progress', recordFile('VMImage', key)), 20);
    store = await bench.started();
    expect(store.get<TestObject>('VMImage', key)?.status).toEqual({ observedGeneration: 1, phase: 'Fetching' });
  });

  it('that the schema does not admit is refused by the name of the field, and nothing is written', async () => {
    const store = await bench.started();
    const object = await store.apply<TestObject>(draft());
    await expect(store.applyStatus(object, { phase: 'Ready' })).rejects.toMatchObject({
      message: expect.stringContaining('status.observedGeneration'),
    });
    expect(store.get('VMImage', key)).toEqual(object);
  });
});

describe('An object that owns others', () => {
  const owner = ({
    kind,
    apiVersion,
    metadata: { name, uid },
  }: Resource): NonNullable<Draft['metadata']['ownerReferences']>[number] => ({
    apiVersion,
    kind,
    name,
    uid,
    controller: true,
  });

  it('takes those with it that nobody else owns, after its own end', async () => {
    const store = await bench.started();
    const list = await store.apply<TestObject>({ ...draft('list'), kind: 'ImageSubscription' });
    const second = await store.apply<TestObject>({ ...draft('second'), kind: 'ImageSubscription' });
    await store.apply(draft('one', { ownerReferences: [owner(list)] }));
    await store.apply(draft('both', { ownerReferences: [owner(list), owner(second)] }));
    await store.apply(draft('free'));
    await store.addFinalizer(list, 'x/y');
    await store.delete('ImageSubscription', { ...key, name: 'list' });
    expect(store.list('VMImage')).toHaveLength(3);
    await store.removeFinalizer(list, 'x/y');
    expect(
      store
        .list('VMImage')
        .map(({ metadata }) => metadata.name)
        .sort(),
    ).toEqual(['both', 'free']);
  });

  it('in a circle goes with the others, and nobody waits for ever', async () => {
    const store = await bench.started();
    const a = await store.apply<TestObject>(draft('a'));
    const b = await store.apply<TestObject>(draft('b', { ownerReferences: [owner(a)] }));
    await store.apply(draft('a', { ownerReferences: [owner(b)] }));
    await Promise.all([store.delete('VMImage', key), store.delete('VMImage', { ...key, name: 'b' })]);
    expect(store.list('VMImage')).toEqual([]);
  });

  it('and whose state file was damaged takes nothing with it', async () => {
    let store = await bench.started();
    const a = await store.apply<TestObject>(draft('a'));
    await store.apply(draft('b', { ownerReferences: [owner(a)] }));
    await store.close();
    await writeFile(recordPath(), '');
    store = await bench.started();
    expect(store.list('VMImage').map(({ metadata }) => metadata.name)).toEqual(['b']);
  });

  it('is not robbed of one by a manifest of the same name', async () => {
    const store = await bench.started();
    const list = await store.apply<TestObject>({ ...draft('list'), kind: 'ImageSubscription' });
    const object = await store.apply<TestObject>(draft('a', { ownerReferences: [owner(list)] }));
    await writeFile(join(bench.manifests, 'a.yaml'), imageYaml('a', { url: 'mine' }));
    await store.scan();
    expect(store.get('VMImage', key)).toEqual(object);
    expect(store.problems()).toMatchObject([
      { field: 'metadata.name', line: 4, message: expect.stringContaining('ImageSubscription list') },
    ]);
  });
});

describe('Annotations set by others', () => {
  it('stay when the manifest changes elsewhere, and give way where its author changes them', async () => {
    const manifest = (policy: string, value: string): string =>
      imageYaml('a', { policy }).replace('spec:', `  annotations:\n    own: ${value}\n    other: "1"\nspec:`);
    await writeFile(join(bench.manifests, 'a.yaml'), manifest('Delete', 'one'));
    let store = await bench.started();
    await store.annotate('VMImage', key, { own: 'set', other: null, more: 'x' });
    await writeFile(join(bench.manifests, 'a.yaml'), manifest('Retain', 'one'));
    await store.scan();
    expect(store.get('VMImage', key)?.metadata).toMatchObject({
      generation: 2,
      annotations: { own: 'set', more: 'x' },
    });
    expect(store.get('VMImage', key)?.metadata.annotations).not.toHaveProperty('other');
    await store.close();
    await writeFile(join(bench.manifests, 'a.yaml'), manifest('Retain', 'two'));
    store = await bench.started();
    expect(store.get('VMImage', key)?.metadata.annotations).toEqual({ own: 'two', more: 'x' });
    expect(store.get('VMImage', key)?.metadata.generation).toBe(2);
  });
});

describe('Events', () => {
  const note = (message: string): { type: 'Warning'; reason: string; message: string } => ({
    type: 'Warning',
    reason: 'Failed',
    message,
  });
  const read = () => readState(bench.state).events('VMImage', key);

  it('are counted when they are the same, and kept across a restart', async () => {
    let store = await bench.started();
    const object = await store.apply<TestObject>(draft());
    store.event(object, note('again'));
    bench.clock.advance(60_000);
    store.event(object, note('again'));
    await store.close();
    store = await bench.started();
    store.event(object, note('again'));
    await store.close();
    const [event, ...more] = await read();
    expect(more).toEqual([]);
    expect(event).toMatchObject({ count: 3, message: 'again' });
    expect(Date.parse(event?.lastSeen ?? '') - Date.parse(event?.firstSeen ?? '')).toBe(60_000);
  });

  it('are at most 25 different ones at once, then one in five minutes, and the last 50 are kept', async () => {
    const store = await bench.started();
    const object = await store.apply<TestObject>(draft());
    for (let index = 0; index < 40; index++) store.event(object, note(`burst ${index}`));
    for (let index = 0; index < 40; index++) {
      bench.clock.advance(300_000);
      store.event(object, note(`slow ${index}`));
    }
    await store.close();
    const events = await read();
    expect(events.length).toBeLessThanOrEqual(50);
    expect(events.at(-1)?.message).toBe('slow 39');
    expect(bench.log.messages('warn').filter((message) => message.startsWith('burst'))).toHaveLength(25);
  });

  it('go with their object', async () => {
    const store = await bench.started();
    const object = await store.apply<TestObject>(draft());
    store.event(object, note('one'));
    await store.delete('VMImage', key);
    store.event(object, note('two'));
    await store.close();
    expect(await readdir(join(bench.state, 'events'))).toEqual([]);
    expect(bench.log.messages('warn')).toContain('two');
  });
});
