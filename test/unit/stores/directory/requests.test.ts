import { mkdir, readdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parseAllDocuments } from 'yaml';
import {
  type DirectoryStore,
  readState,
  removeFromManifest,
  requestState,
  type StateRequest,
} from '../../../../src/stores/directory/index.ts';
import type { Change } from '../../../../src/stores/store.ts';
import { settled } from '../../../support/clock.ts';
import { Bench, imageYaml, TestClock, type TestObject } from '../support.ts';

let bench: Bench;
beforeEach(async () => {
  bench = await Bench.make();
  await mkdir(bench.manifests);
});
afterEach(() => bench.dispose());

const key = { namespace: 'default', name: 'a' };
const object = { apiVersion: 'imageproxy.dev/v1beta1', kind: 'VMImage', metadata: { name: 'a' }, spec: { url: 'u' } };

/** Of the machine's time, which is all that an asker has. */
const PATIENCE_MS = 60_000;

/** Lets a watcher of its own clock look again and again until it has told what it was to find: it passes over the date of a look while it is at another. */
async function found(clock: TestClock, heard: Promise<void>): Promise<void> {
  const over = heard.then(() => true);
  while (!(await Promise.race([over, settled().then(() => false)]))) clock.advance(2_000);
}

/** Lets the holder look into its inbox as soon as the request is there. */
async function ask(store: DirectoryStore, request: StateRequest) {
  const answer = requestState(bench.state, request, { timeoutMs: PATIENCE_MS });
  const settled = answer.then(
    () => true,
    () => true,
  );
  while (!(await Promise.race([settled, store.serveRequests().then(() => false)])));
  return answer;
}

describe('A request to the process that holds the state', () => {
  it('is undefined when there is none: the asker opens the store itself', async () => {
    expect(await requestState(bench.state, { type: 'confirm-deletions' }, { timeoutMs: 1_000 })).toBeUndefined();
    await (await bench.open()).close();
    expect(await requestState(bench.state, { type: 'confirm-deletions' }, { timeoutMs: 1_000 })).toBeUndefined();
  });

  it('applies, annotates and deletes', async () => {
    const store = await bench.started();
    const answer = await ask(store, { type: 'apply', object });
    expect(answer?.object).toEqual(store.get('VMImage', key));
    await ask(store, { type: 'annotate', kind: 'VMImage', key, annotations: { x: 'y' } });
    expect(store.get('VMImage', key)?.metadata.annotations).toEqual({ x: 'y' });
    const { uid = '' } = store.get('VMImage', key)?.metadata ?? {};
    await expect(ask(store, { type: 'delete', kind: 'VMImage', key, uid: 'another' })).rejects.toMatchObject({
      reason: 'Conflict',
    });
    await ask(store, { type: 'delete', kind: 'VMImage', key, uid });
    expect(store.get('VMImage', key)).toBeUndefined();
    expect(await readdir(join(bench.state, 'inbox'))).toEqual([]);
    expect(await readdir(join(bench.state, 'answers'))).toEqual([]);
  });

  it('confirms deletions that are held', async () => {
    for (let index = 0; index < 20; index++)
      await writeFile(join(bench.manifests, `${index}.yaml`), imageYaml(`image-${index}`));
    const store = await bench.started();
    for (let index = 0; index < 20; index++) await writeFile(join(bench.manifests, `${index}.yaml`), '');
    await bench.lookTwice(store);
    expect(store.list('VMImage')).toHaveLength(20);
    expect((await ask(store, { type: 'confirm-deletions' }))?.confirmed).toHaveLength(20);
    expect(store.list('VMImage')).toEqual([]);
  });

  it('is carried out in the order of asking', async () => {
    const store = await bench.started();
    await store.apply(object);
    const answers = [];
    for (let index = 0; index < 12; index++) {
      answers.push(
        requestState(
          bench.state,
          { type: 'annotate', kind: 'VMImage', key, annotations: { x: String(index) } },
          { timeoutMs: PATIENCE_MS },
        ),
      );
      // Only complete requests count.
      while ((await readdir(join(bench.state, 'inbox'))).filter((name) => !name.startsWith('.')).length <= index);
    }
    await store.serveRequests();
    await Promise.all(answers);
    expect(store.get('VMImage', key)?.metadata.annotations).toEqual({ x: '11' });
  });

  it('is answered with the reason when it fails, and the next one is served', async () => {
    const store = await bench.started();
    await expect(ask(store, { type: 'apply', object: { ...object, spec: {} } })).rejects.toMatchObject({
      reason: 'InvalidSpec',
      message: expect.stringContaining('spec.url'),
    });
    await expect(ask(store, { type: 'dance' } as unknown as StateRequest)).rejects.toMatchObject({
      reason: 'Rejected',
    });
    await ask(store, { type: 'apply', object });
  });

  it('that nobody takes up in time is taken back, and never happens', async () => {
    const store = await bench.started();
    await expect(requestState(bench.state, { type: 'apply', object }, { timeoutMs: 1 })).rejects.toMatchObject({
      reason: 'Timeout',
      message: expect.stringContaining('nothing was changed'),
    });
    await expect(
      requestState(bench.state, { type: 'apply', object }, { timeoutMs: PATIENCE_MS, signal: AbortSignal.abort() }),
    ).rejects.toMatchObject({ reason: 'Aborted' });
    await store.serveRequests();
    expect(store.list('VMImage')).toEqual([]);
  });

  it('that waited too long, and one that a crash cut short, are not carried out by the next process', async () => {
    await (await bench.open()).close();
    const name = (index: number): string => `${String(index).padStart(15, '0')}-${'0'.repeat(16)}.json`;
    const envelope = (until: number): string => JSON.stringify({ until, request: { type: 'apply', object } });
    await writeFile(join(bench.state, 'inbox', name(1)), envelope(bench.clock.now() - 1));
    await writeFile(join(bench.state, 'inbox', `${name(2)}.taken`), envelope(bench.clock.now() + 60_000));
    await writeFile(join(bench.state, 'inbox', name(3)), '{');
    const store = await bench.started();
    expect(store.list('VMImage')).toEqual([]);
    expect(JSON.parse(await readFile(join(bench.state, 'answers', name(2)), 'utf8'))).toMatchObject({
      failure: { reason: 'Aborted' },
    });
    expect(await readdir(join(bench.state, 'inbox'))).toEqual([]);
  });
});

describe('A reader beside the writer', () => {
  it('lists, gets and tells where an object comes from', async () => {
    await writeFile(join(bench.manifests, 'b.yaml'), imageYaml('b', {}, 'team'));
    await writeFile(join(bench.manifests, 'bad.yaml'), 'a: [');
    const store = await bench.started({ instance: 'site-a' });
    await store.apply(object);
    const reader = readState(bench.state);
    expect(await reader.list('VMImage')).toEqual([
      store.get('VMImage', key),
      store.get('VMImage', { namespace: 'team', name: 'b' }),
    ]);
    expect(await reader.list('VMImage', 'team')).toHaveLength(1);
    expect(await reader.get('VMImage', { ...key, name: 'absent' })).toBeUndefined();
    expect(await reader.manifestOf('VMImage', { namespace: 'team', name: 'b' })).toBe(join(bench.manifests, 'b.yaml'));
    expect(await reader.manifestOf('VMImage', key)).toBeUndefined();
    expect(await reader.problems()).toEqual(store.problems());
    expect(await reader.instance()).toBe('site-a');
    expect(await reader.holder()).toMatchObject({ pid: process.pid });
  });

  it('of a state that is not there finds nothing', async () => {
    const reader = readState(join(bench.root, 'nowhere'));
    expect([
      await reader.list('VMImage'),
      await reader.problems(),
      await reader.instance(),
      await reader.holder(),
    ]).toEqual([[], [], undefined, undefined]);
  });

  it('takes nothing for gone whose record is damaged: it is passed over among others, and an error where it is asked for', async () => {
    const store = await bench.started();
    await store.apply(object);
    const other = await store.apply<TestObject>({ ...object, metadata: { ...key, name: 'other' } });
    const clock = new TestClock();
    const reader = readState(bench.state, clock);
    const changes: Change[] = [];
    let heard = Promise.withResolvers<void>();
    const end = new AbortController();
    const told = (change: Change): void => {
      changes.push(change);
      if (change.object.metadata.generation > 1) heard.resolve();
    };
    await reader.watch('VMImage', told, end.signal);
    expect(changes).toHaveLength(2);
    await writeFile(join(bench.state, 'objects', 'VMImage_default_a.json'), '{');

    await expect(reader.get('VMImage', key)).rejects.toMatchObject({
      reason: 'InternalError',
      message: expect.stringMatching(/VMImage_default_a\.json is damaged: start the controller anew/),
    });
    await expect(reader.watch('VMImage', () => undefined, end.signal, key)).rejects.toThrow('is damaged');
    expect(await reader.list('VMImage')).toEqual([other]);
    // One look ends before the next begins: at the second change the first has told all that it found.
    for (const url of ['v', 'w']) {
      heard = Promise.withResolvers<void>();
      await store.apply({ ...object, metadata: { ...key, name: 'other' }, spec: { url } });
      await found(clock, heard.promise);
    }
    end.abort();
    expect(changes.filter(({ type }) => type === 'Deleted')).toEqual([]);
  });

  it('watches one object by its own record, whatever else is there', async () => {
    const store = await bench.started();
    const other = await store.apply<TestObject>({ ...object, metadata: { ...key, name: 'other' } });
    const changes: Change[] = [];
    const end = new AbortController();
    const made = Promise.withResolvers<void>();
    const clock = new TestClock();
    await readState(bench.state, clock).watch(
      'VMImage',
      (change) => {
        changes.push(change);
        made.resolve();
      },
      end.signal,
      key,
    );
    expect(changes).toEqual([]);
    await store.annotate('VMImage', other.metadata, { seen: 'yes' });
    const one = await store.apply(object);
    await found(clock, made.promise);
    end.abort();
    expect(changes).toMatchObject([{ type: 'Applied', object: { metadata: one.metadata } }]);
  });

  it('watches: what is there, each change, progress, the end; by polling alone where notices are lost', async () => {
    const store = await bench.started();
    const made = await store.apply<TestObject>(object);
    const changes: Change<TestObject>[] = [];
    let heard = Promise.withResolvers<void>();
    const abort = new AbortController();
    const told = (change: Change): void => {
      changes.push(change as Change<TestObject>);
      heard.resolve();
    };
    const clock = new TestClock();
    await readState(bench.state, clock).watch('VMImage', told, abort.signal);
    expect(changes).toMatchObject([{ type: 'Applied', object: made }]);
    const next = async (work: Promise<unknown>): Promise<Change<TestObject> | undefined> => {
      heard = Promise.withResolvers<void>();
      await work;
      await found(clock, heard.promise);
      return changes.at(-1);
    };
    expect(await next(store.applyStatus(made, { observedGeneration: 1 }))).toMatchObject({
      type: 'Applied',
      object: { status: { observedGeneration: 1 } },
      previous: made,
    });
    expect(await next(store.applyStatus(made, { observedGeneration: 1, progress: { percent: 5 } }))).toMatchObject({
      object: { status: { progress: { percent: 5 } } },
    });
    expect(await next(store.delete('VMImage', key))).toMatchObject({ type: 'Deleted' });
    abort.abort();
  });

  it('never sees half an object while the writer goes on', async () => {
    const store = await bench.started();
    const made = await store.apply<TestObject>(object);
    const done = new AbortController();
    const writer = (async () => {
      for (let index = 0; index < 150; index++) {
        await store.applyStatus(made, { observedGeneration: index >> 2, progress: { percent: index } });
      }
      done.abort();
    })();
    let last = 0;
    while (!done.signal.aborted) {
      const seen = (await readState(bench.state).get('VMImage', key)) as TestObject | undefined;
      expect(seen?.metadata.uid).toBe(made.metadata.uid);
      const version = Number(seen?.metadata.resourceVersion);
      last = Math.max(last, version);
    }
    await writer;
    expect(last).toBeGreaterThan(0);
  });
});

describe('Taking an object out of its manifest', () => {
  const path = (): string => join(bench.manifests, 'a.yaml');
  const after = async (text: string, which: Parameters<typeof removeFromManifest>[1]): Promise<string | undefined> => {
    await writeFile(path(), text);
    await removeFromManifest(path(), which);
    return readFile(path(), 'utf8').catch(() => undefined);
  };
  const [a, b] = [imageYaml('a'), imageYaml('b')];

  it.each([
    [
      'the first, without a mark, keeps the head of the file',
      `# licence\n\n${a}# of a\n---\n# of b\n${b}`,
      1,
      `# licence\n\n---\n# of b\n${b}`,
    ],
    [
      'all of an object that is there twice, right or wrong',
      `# licence\n---\n${a}---\n${b}---\n${imageYaml('a', { url: 7 })}`,
      { kind: 'VMImage', key: { namespace: 'default', name: 'a' } },
      `# licence\n---\n${b}`,
    ],
    ['the first, with a mark', `# licence\n---\n${a}---\n${b}`, 1, `# licence\n---\n${b}`],
    ['the last', `${a}# end of a\n---\n# of b\n${b}`, 2, `${a}# end of a\n`],
    ['one in the middle', `${a}---\n${b}---\n# c\nc: 1\n`, 2, `${a}---\n# c\nc: 1\n`],
    ['one with directives', `${a}...\n%YAML 1.2\n---\n${b}...\n---\nc: 1\n`, 2, `${a}...\n---\nc: 1\n`],
    ['with Windows line ends', `${a}---\n${b}`.replaceAll('\n', '\r\n'), 1, `---\r\n${b.replaceAll('\n', '\r\n')}`],
    ['the only one: the file goes', `# head\n---\n${a}---\n# nothing here\n`, 1, undefined],
  ])('%s', async (_, text, number, expected) => {
    expect(await after(text, number)).toBe(expected);
  });

  it('finds it by name, wherever it has moved to', async () => {
    expect(await after(`${b}---\n${a}`, { kind: 'VMImage', key })).toBe(b);
    await expect(after(b, { kind: 'VMImage', key })).rejects.toMatchObject({ reason: 'NotFound' });
    await expect(after(b, 3)).rejects.toMatchObject({ reason: 'NotFound' });
  });

  it('refuses to take one of several out of a List, with the cure', async () => {
    const item = (text: string): string => `- ${text.trimEnd().replaceAll('\n', '\n  ')}\n`;
    const list = `apiVersion: v1\nkind: List\nitems:\n${item(a)}${item(b)}`;
    await expect(after(list, { kind: 'VMImage', key })).rejects.toMatchObject({
      reason: 'Rejected',
      message: expect.stringContaining('by hand'),
    });
    expect(await readFile(path(), 'utf8')).toBe(list);
    expect(await after(`apiVersion: v1\nkind: List\nitems:\n${item(a)}`, { kind: 'VMImage', key })).toBeUndefined();
  });

  it('keeps the mode of the file, and a link to it', async () => {
    const real = join(bench.root, 'real.yaml');
    await writeFile(real, `${a}---\n${b}`, { mode: 0o640 });
    await symlink(real, path());
    await removeFromManifest(path(), 1);
    expect((await stat(real)).mode & 0o777).toBe(0o640);
    expect(await readFile(path(), 'utf8')).toBe(`---\n${b}`);
    expect(await readdir(bench.manifests)).toEqual(['a.yaml']);
  });

  it('leaves all others byte for byte, for any file', async () => {
    const body = fc.constantFrom(
      'a: 1\n',
      '# only a comment\n',
      'text: |\n  --- no mark\n  # no comment\n',
      '{"json": [1]}\n',
      '"quoted\n  text"\n',
      '\n',
      'b: 2 # kept\n\n# tail\n',
    );
    await fc.assert(
      fc.asyncProperty(fc.array(body, { minLength: 1, maxLength: 5 }), fc.nat(), async (bodies, pick) => {
        const text = bodies.map((content) => `---\n${content}`).join('');
        const values = parseAllDocuments(text).map((document): unknown => (document as { toJS(): unknown }).toJS());
        const index = pick % values.length;
        const left = bodies.filter((_, other) => other !== index);
        const kept = values.some((value, other) => other !== index && value !== null);
        expect(await after(text, index + 1)).toBe(kept ? left.map((content) => `---\n${content}`).join('') : undefined);
      }),
      { numRuns: 60 },
    );
  });

  it('and asking for its deletion ends it at once, and no scan brings it back', async () => {
    await writeFile(path(), `${a}---\n${b}`);
    const store = await bench.started();
    await removeFromManifest(path(), { kind: 'VMImage', key });
    await ask(store, { type: 'delete', kind: 'VMImage', key });
    expect(store.get('VMImage', key)).toBeUndefined();
    await bench.lookTwice(store);
    expect(store.list('VMImage').map(({ metadata }) => metadata.name)).toEqual(['b']);
  });
});
