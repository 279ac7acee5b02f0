import { rmSync } from 'node:fs';
import { mkdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { AbsenceLedger } from '../../../../src/stores/directory/absence.ts';
import { Disk } from '../../../../src/stores/directory/disk.ts';
import type { DirectoryStore, Validate } from '../../../../src/stores/directory/index.ts';
import { Bench, imageYaml, type TestObject, validateSmall } from '../support.ts';

let bench: Bench;
beforeEach(async () => {
  bench = await Bench.make();
  await mkdir(bench.manifests);
});
afterEach(() => bench.dispose());

const file = (name: string): string => join(bench.manifests, `${name}.yaml`);
const write = (name: string, spec = {}): Promise<void> => writeFile(file(name), imageYaml(name, spec));
const writeMany = async (count: number): Promise<void> => {
  for (let index = 0; index < count; index++) await write(`image-${index}`);
};
const count = (store: DirectoryStore): number => store.list('VMImage').length;
const key = (name: string): { namespace: string; name: string } => ({ namespace: 'default', name });

describe('An object whose manifest is gone', () => {
  it('is deleted at the second clean look, five seconds after the first, and not before', async () => {
    await write('a');
    await write('b');
    const store = await bench.started();
    await rm(file('a'));
    await store.scan();
    await store.scan();
    bench.clock.advance(4_999);
    await store.scan();
    expect(count(store)).toBe(2);
    bench.clock.advance(1);
    await store.scan();
    expect(store.list<TestObject>('VMImage').map(({ metadata }) => metadata.name)).toEqual(['b']);
  });

  it('and that was deleted is not made anew by a look that had read the manifest before', async () => {
    const { promise: mayWrite, resolve: letWrite } = Promise.withResolvers<void>();
    /** The disk takes its time over a status, so that the deletion waits for that. */
    class SlowDisk extends Disk {
      isSlow = false;
      override async replace(path: string, text: string, durable: boolean): Promise<void> {
        if (this.isSlow && path.includes('VMImage_default_a')) await mayWrite;
        return super.replace(path, text, durable);
      }
    }
    const disk = new SlowDisk();
    let whileReading = (): void => undefined;
    const validate: Validate = (...asked) => {
      whileReading();
      return validateSmall(...asked);
    };
    await write('a');
    const store = await bench.started({ disk, validate });
    const object = store.get<TestObject>('VMImage', key('a')) as TestObject;
    await write('a', { state: 'Deactivated' });
    let deleted: Promise<void> | undefined;
    whileReading = () => {
      // What a person does who edits it and then thinks better of it: out of the manifests, then away.
      if (deleted !== undefined) return;
      disk.isSlow = true;
      const told = store.applyStatus(object, { observedGeneration: 1 });
      rmSync(file('a'));
      deleted = Promise.all([told, store.delete('VMImage', key('a'))]).then(() => undefined);
    };
    const applied: string[] = [];
    store.subscribe<TestObject>('VMImage', ({ type, object }) => void applied.push(`${type} ${object.metadata.uid}`));
    const looked = store.scan();
    await expect.poll(() => deleted !== undefined).toBe(true);
    letWrite();
    await Promise.all([looked, deleted]);
    expect(store.get('VMImage', key('a'))).toBeUndefined();
    expect(applied.at(-1)).toBe(`Deleted ${object.metadata.uid}`);
  });

  it('is let go by the clock alone, without anybody asking', async () => {
    await write('a');
    const store = await bench.started();
    const gone = Promise.withResolvers<void>();
    store.subscribe('VMImage', ({ type }) => type === 'Deleted' && gone.resolve());
    await rm(file('a'));
    await store.scan();
    bench.clock.advance(5_000);
    await gone.promise;
  });

  it('stays when the manifest comes back between the looks', async () => {
    await write('a');
    const store = await bench.started();
    const { uid } = store.get('VMImage', key('a'))?.metadata ?? {};
    await rm(file('a'));
    await store.scan();
    await write('a');
    bench.clock.advance(5_000);
    await store.scan();
    await rm(file('a'));
    await store.scan();
    expect(store.get('VMImage', key('a'))?.metadata.uid).toBe(uid);
  });

  it('is deleted after a restart, too, by two looks of the new process', async () => {
    await write('a');
    await (await bench.started()).close();
    await rm(file('a'));
    bench.clock.advance(60_000);
    const store = await bench.started();
    expect(count(store)).toBe(1);
    await bench.lookTwice(store);
    expect(count(store)).toBe(0);
  });

  it('with a finalizer is terminating; coming back changes its spec and does not save it; then a new object is made', async () => {
    await write('a');
    const store = await bench.started();
    const before = store.get<TestObject>('VMImage', key('a')) as TestObject;
    await store.addFinalizer(before, 'x/y');
    await rm(file('a'));
    await bench.lookTwice(store);
    expect(store.get('VMImage', key('a'))?.metadata.deletionTimestamp).toBeDefined();
    await write('a', { policy: 'Retain' });
    await store.scan();
    const terminating = store.get<TestObject>('VMImage', key('a'));
    expect(terminating).toMatchObject({ metadata: { uid: before.metadata.uid }, spec: { policy: 'Retain' } });
    expect(terminating?.metadata.deletionTimestamp).toBeDefined();
    await store.removeFinalizer(before, 'x/y');
    await store.scan();
    const after = store.get<TestObject>('VMImage', key('a'));
    expect(after?.metadata).toMatchObject({ generation: 1 });
    expect(after?.metadata.uid).not.toBe(before.metadata.uid);
    expect(after?.metadata.deletionTimestamp).toBeUndefined();
  });

  it('can be changed by a request while it is terminating or about to be', async () => {
    await write('a');
    const store = await bench.started();
    const draft = {
      apiVersion: 'imageproxy.dev/v1beta1',
      kind: 'VMImage',
      metadata: key('a'),
      spec: { url: 'u', policy: 'Retain' },
    };
    await expect(store.apply(draft)).rejects.toMatchObject({
      reason: 'Rejected',
      message: expect.stringContaining(file('a')),
    });
    await store.addFinalizer(store.get('VMImage', key('a')) as TestObject, 'x/y');
    await rm(file('a'));
    await bench.lookTwice(store);
    expect(await store.apply<TestObject>(draft)).toMatchObject({ spec: { policy: 'Retain' } });
    expect(store.get('VMImage', key('a'))?.metadata.deletionTimestamp).toBeDefined();
  });

  it.each([
    ['cannot be parsed', (path: string) => writeFile(path, 'a: [')],
    ['has a misspelled kind', (path: string) => writeFile(path, imageYaml('a').replace('VMImage', 'VMImagee'))],
    [
      'is a link to nowhere',
      async (path: string) => {
        await rm(path);
        await symlink('nowhere.yaml', path);
      },
    ],
  ])('stays while the file %s, which holds up no other file; after a restart, too', async (_, spoil) => {
    await write('a');
    await write('b');
    let store = await bench.started();
    await spoil(file('a'));
    await rm(file('b'));
    await bench.lookTwice(store);
    expect(store.list('VMImage').map(({ metadata }) => metadata.name)).toEqual(['a']);
    expect(store.problems()).toHaveLength(1);
    await store.close();
    store = await bench.started();
    await bench.lookTwice(store);
    expect(count(store)).toBe(1);
  });

  it('stays while the folders are nested too deep to be read', async () => {
    await write('a');
    const store = await bench.started();
    await mkdir(join(bench.manifests, ...Array<string>(40).fill('d')), { recursive: true });
    await rm(file('a'));
    await bench.lookTwice(store);
    expect(count(store)).toBe(1);
    expect(store.problems()).toMatchObject([{ message: expect.stringContaining('nothing below it is taken as gone') }]);
    await rm(join(bench.manifests, 'd'), { recursive: true });
    await bench.lookTwice(store);
    expect(count(store)).toBe(0);
  });
});

describe('A folder of manifests that', () => {
  it('is missing deletes nothing, not even when a person confirms', async () => {
    await write('a');
    const store = await bench.started();
    await rename(bench.manifests, `${bench.manifests}.away`);
    await bench.lookTwice(store);
    await store.confirmDeletions();
    await bench.lookTwice(store);
    expect(count(store)).toBe(1);
    expect(store.problems()).toMatchObject([{ file: bench.manifests, severity: 'error' }]);
    await rename(`${bench.manifests}.away`, bench.manifests);
    await store.scan();
    expect(store.problems()).toEqual([]);
  });

  it('is another one, empty (a volume that is not mounted), deletes nothing until a person confirms', async () => {
    await write('a');
    const store = await bench.started();
    await rename(bench.manifests, `${bench.manifests}.away`);
    await mkdir(bench.manifests);
    await bench.lookTwice(store);
    expect(count(store)).toBe(1);
    expect(store.problems()).toMatchObject([{ message: expect.stringContaining('imageproxy confirm-deletions') }]);
    expect(await store.confirmDeletions()).toEqual(['VMImage/default/a']);
    expect(count(store)).toBe(0);
    expect(store.problems()).toEqual([]);
  });

  it('is another one of the same path, with a manifest of its own, deletes nothing, after restarts neither', async () => {
    await write('a');
    await (await bench.started()).close();
    await rename(bench.manifests, `${bench.manifests}.away`);
    await mkdir(bench.manifests);
    await write('b');
    for (let run = 0; run < 2; run++) {
      const store = await bench.started();
      await bench.lookTwice(store);
      await bench.lookTwice(store);
      expect(count(store)).toBe(2);
      expect(store.problems()).toMatchObject([{ message: expect.stringContaining('1 of 2 objects are not in it') }]);
      await store.close();
    }
    const store = await bench.started();
    expect(await store.confirmDeletions()).toEqual(['VMImage/default/a']);
    expect(store.list('VMImage').map(({ metadata }) => metadata.name)).toEqual(['b']);
    expect(store.problems()).toEqual([]);
  });

  it('is the wrong one, with other objects in it, deletes nothing, after a restart neither', async () => {
    await write('a');
    await (await bench.started()).close();
    const wrong = join(bench.root, 'wrong');
    await mkdir(wrong);
    await writeFile(join(wrong, 'b.yaml'), imageYaml('b'));
    for (let run = 0; run < 2; run++) {
      const store = await bench.started({ manifests: wrong });
      await bench.lookTwice(store);
      expect(
        store
          .list('VMImage')
          .map(({ metadata }) => metadata.name)
          .sort(),
      ).toEqual(['a', 'b']);
      await store.close();
    }
  });

  it('was moved, with its objects, is the new home of them', async () => {
    await write('a');
    await write('b');
    await (await bench.started()).close();
    const moved = join(bench.root, 'moved');
    await rename(bench.manifests, moved);
    const store = await bench.started({ manifests: moved });
    await rm(join(moved, 'a.yaml'));
    await bench.lookTwice(store);
    expect(store.list('VMImage').map(({ metadata }) => metadata.name)).toEqual(['b']);
  });

  it('is not given at all leaves its objects as they are', async () => {
    await write('a');
    await (await bench.started()).close();
    const store = await bench.started({ manifests: null });
    await bench.lookTwice(store);
    expect(count(store)).toBe(1);
  });
});

describe('Many objects gone at once', () => {
  it('are held when they are more than ten and more than a quarter, and come back without a scratch', async () => {
    await writeMany(40);
    const store = await bench.started();
    for (let index = 0; index < 11; index++) await rm(file(`image-${index}`));
    await bench.lookTwice(store);
    await bench.lookTwice(store);
    expect(count(store)).toBe(40);
    expect(store.problems()).toMatchObject([
      { held: true, message: expect.stringContaining('11 of 40 objects are gone at once') },
    ]);
    await writeMany(2);
    await bench.lookTwice(store);
    expect(count(store)).toBe(31);
    expect(store.problems()).toEqual([]);
  });

  it('go when a person confirms, and those that vanish later are held again', async () => {
    await writeMany(40);
    const store = await bench.started();
    for (let index = 0; index < 20; index++) await rm(file(`image-${index}`));
    await bench.lookTwice(store);
    expect(await store.confirmDeletions()).toHaveLength(20);
    expect(count(store)).toBe(20);
    for (let index = 20; index < 40; index++) await rm(file(`image-${index}`));
    await bench.lookTwice(store);
    expect(count(store)).toBe(20);
  });

  it('are held, too, when a slow removal takes them a few at a time', async () => {
    await writeMany(40);
    const store = await bench.started();
    for (let index = 0; index < 40; index++) {
      await rm(file(`image-${index}`));
      if (index % 5 === 4) await bench.lookTwice(store);
    }
    expect(count(store)).toBeGreaterThanOrEqual(30);
  });

  it('never go by the ledger in one minute beyond the limit, whatever the scans show', () => {
    const step = fc.record({
      pauseMs: fc.integer({ min: 0, max: 9_000 }),
      clean: fc.boolean(),
      gone: fc.uniqueArray(fc.integer({ min: 0, max: 59 }), { maxLength: 60 }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const ledger = new AbsenceLedger();
        const deleted = new Map<string, number>();
        const absentCleanly = new Map<string, number[]>();
        let at = 0;
        for (const { pauseMs, clean, gone } of steps) {
          at += pauseMs;
          const absent = gone.map((index) => `image-${index}`).filter((id) => !deleted.has(id));
          for (const id of absentCleanly.keys()) if (!absent.includes(id)) absentCleanly.delete(id);
          if (clean) for (const id of absent) absentCleanly.set(id, [...(absentCleanly.get(id) ?? []), at]);
          const total = 60 - deleted.size;
          for (const id of ledger.observe({ at, clean, absent, total, elsewhere: false })) {
            expect(clean && absent.includes(id)).toBe(true);
            expect(at - (absentCleanly.get(id)?.[0] ?? at)).toBeGreaterThanOrEqual(5_000);
            deleted.set(id, at);
          }
          expect([...deleted.values()].filter((when) => at - when < 60_000).length).toBeLessThanOrEqual(15);
        }
      }),
    );
  });
});
