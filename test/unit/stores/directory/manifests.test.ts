import { chmod, mkdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Failure } from '../../../../src/api/failure.ts';
import { parseManifest } from '../../../../src/stores/directory/index.ts';
import { Bench, imageYaml, type TestObject, validateSmall } from '../support.ts';
import { effortMs } from '../../../support/effort.ts';

let bench: Bench;
beforeEach(async () => {
  bench = await Bench.make();
  await mkdir(bench.manifests);
});
afterEach(() => bench.dispose());

const write = async (file: string, text: string, mode = 0o600): Promise<void> => {
  await writeFile(join(bench.manifests, file), text);
  await chmod(join(bench.manifests, file), mode);
};
const names = (store: { list(kind: 'VMImage'): readonly { metadata: { name: string } }[] }): string[] =>
  store
    .list('VMImage')
    .map(({ metadata }) => metadata.name)
    .sort();

describe('A bad manifest is told by file, document, line and field', () => {
  const rows: [what: string, text: string, problem: object][] = [
    [
      'a quote without end',
      'a: 1\nb: "x\n',
      { document: 1, line: 3, severity: 'error', message: 'Missing closing "quote' },
    ],
    ['a key twice', `${imageYaml('a')}  url: "again"\n`, { document: 1, line: 7, message: 'Map keys must be unique' }],
    ['no map at all', '- a\n- b\n', { document: 1, line: 1, message: expect.stringContaining('is no object') }],
    ['no kind', 'apiVersion: imageproxy.dev/v1beta1\n', { field: 'kind', message: expect.stringContaining('VMImage') }],
    [
      'no apiVersion',
      'kind: VMImage\n',
      { field: 'apiVersion', message: expect.stringContaining('imageproxy.dev/v1beta1') },
    ],
    [
      'an unknown kind of ours',
      'apiVersion: imageproxy.dev/v1beta1\nkind: VMImagee\n',
      { line: 2, field: 'kind', severity: 'error' },
    ],
    ['an unknown version', 'kind: VMImage\napiVersion: imageproxy.dev/v1\n', { line: 2, field: 'apiVersion' }],
    ["somebody else's kind", 'apiVersion: apps/v1\nkind: Deployment\n', { field: 'kind', severity: 'warning' }],
    ['no name', 'apiVersion: v1\nkind: Secret\nmetadata:\n  namespace: a\n', { line: 3, field: 'metadata.name' }],
    ['a name that is a path', imageYaml('../../etc'), { line: 4, field: 'metadata.name' }],
    ['a namespace that is none', imageYaml('a', {}, 'A_B'), { line: 5, field: 'metadata.namespace' }],
    [
      'a label that is no string',
      imageYaml('a').replace('spec:', '  labels:\n    x: 1\nspec:'),
      { line: 6, field: 'metadata.labels["x"]' },
    ],
    [
      'a missing field',
      imageYaml('a', { url: 7 }),
      { line: 6, field: 'spec.url', message: 'is required: name the image' },
    ],
    ['an unknown field', imageYaml('a', { colour: 'red' }), { line: 7, field: 'spec.colour', severity: 'warning' }],
    [
      'a field in the second document',
      `${imageYaml('a')}---\n${imageYaml('b', { url: 7 })}`,
      { document: 2, line: 13, field: 'spec.url' },
    ],
    [
      'an item of a List',
      `apiVersion: v1\nkind: List\nitems:\n- ${imageYaml('a', { url: 7 }).trimEnd().replaceAll('\n', '\n  ')}\n`,
      { line: 9, field: 'spec.url' },
    ],
    [
      'an item that is no object',
      'apiVersion: v1\nkind: List\nitems:\n- 7\n',
      { line: 4, message: expect.stringContaining('no object') },
    ],
    [
      'data that is not base64',
      'apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\ndata:\n  a: "%%"\n',
      { line: 6, field: 'data["a"]' },
    ],
    [
      'a value that is no string',
      'apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: s\ndata:\n  a: 1\n',
      { line: 6, field: 'data["a"]' },
    ],
    ['an alias to nowhere', 'apiVersion: v1\nkind: *x\n', { line: 2, severity: 'error' }],
    [
      'brackets without end',
      '['.repeat(100_000),
      { severity: 'error', message: expect.stringContaining('levels deep') },
    ],
    [
      'maps without end',
      Array.from({ length: 500 }, (_, depth) => `${' '.repeat(depth)}a:\n`).join(''),
      { message: expect.stringContaining('levels deep') },
    ],
    [
      'a billion laughs',
      [
        'a0: &a0 [x]',
        ...Array.from({ length: 12 }, (_, i) => `a${i + 1}: &a${i + 1} [${Array(9).fill(`*a${i}`).join(', ')}]`),
      ].join('\n'),
      { line: 2, message: expect.stringContaining('alias') },
    ],
    [
      'a bomb of merge keys',
      [
        'a0: &a0 {k: 1}',
        ...Array.from({ length: 12 }, (_, i) => `a${i + 1}: &a${i + 1} {<<: [${Array(9).fill(`*a${i}`).join(', ')}]}`),
      ].join('\n'),
      { line: 2, message: expect.stringContaining('alias') },
    ],
  ];
  it.each(rows)('%s', async (_, text, problem) => {
    const took = await effortMs(async () => {
      const { problems } = await parseManifest('a.yaml', text, validateSmall);
      expect(problems).toContainEqual(expect.objectContaining({ file: 'a.yaml', ...problem }));
    });
    expect(took).toBeLessThan(5_000);
  });

  it('never repeats the value of a Secret', async () => {
    const text =
      'apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\ndata:\n  a: "hunter2%"\nstringData:\n  b: [hunter2]\n';
    const { problems } = await parseManifest('a.yaml', text, validateSmall);
    expect(problems).toHaveLength(2);
    expect(JSON.stringify(problems)).not.toContain('hunter2');
  });

  it('merge keys and aliases within bounds are what they are to kubectl', async () => {
    const text = `x-base: &base\n  url: https://example.org/base\n${imageYaml('a').replace(/ {2}url.*\n/, '  <<: *base\n')}`;
    const { objects, problems } = await parseManifest('a.yaml', text, validateSmall);
    expect(problems).toEqual([]);
    expect(objects[0]?.content).toMatchObject({ spec: { url: 'https://example.org/base' } });
  });

  it('JSON indented by tabs is read', async () => {
    const object = {
      apiVersion: 'imageproxy.dev/v1beta1',
      kind: 'VMImage',
      metadata: { name: 'a' },
      spec: { url: 'u' },
    };
    const { objects, problems } = await parseManifest('a.json', JSON.stringify(object, undefined, '\t'), validateSmall);
    expect(problems).toEqual([]);
    expect(objects).toHaveLength(1);
  });
});

describe('A folder of manifests', () => {
  it('is read with its sub-folders, several documents to a file and Lists, in YAML and JSON, while other files are left alone', async () => {
    await mkdir(join(bench.manifests, 'sub'));
    await write('a.yaml', `# head\n${imageYaml('a')}---\n---\n${imageYaml('b', {}, 'team')}`);
    await write(
      'sub/c.yml',
      `apiVersion: v1\nkind: List\nitems:\n- ${imageYaml('c').trimEnd().replaceAll('\n', '\n  ')}\n`,
    );
    await write(
      'd.json',
      JSON.stringify({
        apiVersion: 'imageproxy.dev/v1beta1',
        kind: 'VMImage',
        metadata: { name: 'd' },
        spec: { url: 'u' },
      }),
    );
    await write('README.md', '{{{');
    await write('.e.yaml.swp', '{{{');
    await write('.f.yaml', imageYaml('f'));
    const store = await bench.started();
    expect(names(store)).toEqual(['a', 'b', 'c', 'd']);
    expect(store.get<TestObject>('VMImage', { namespace: 'team', name: 'b' })?.spec).toEqual({
      url: 'https://example.org/b',
      state: 'Active',
    });
    expect(store.problems()).toEqual([]);
  });

  it('is followed through links as Kubernetes mounts make them, when the whole version is switched', async () => {
    for (const [version, url] of [
      ['..2026_01', 'https://example.org/1'],
      ['..2026_02', 'https://example.org/2'],
    ] as const) {
      await mkdir(join(bench.manifests, version));
      await write(`${version}/a.yaml`, imageYaml('a', { url }));
    }
    await symlink('..2026_01', join(bench.manifests, '..data'));
    await symlink('..data/a.yaml', join(bench.manifests, 'a.yaml'));
    const store = await bench.started();
    expect(store.get<TestObject>('VMImage', { namespace: 'default', name: 'a' })?.spec.url).toBe(
      'https://example.org/1',
    );
    await symlink('..2026_02', join(bench.manifests, '..data_tmp'));
    await rename(join(bench.manifests, '..data_tmp'), join(bench.manifests, '..data'));
    await store.scan();
    expect(store.get<TestObject>('VMImage', { namespace: 'default', name: 'a' })?.spec.url).toBe(
      'https://example.org/2',
    );
  });

  it('may link to itself', async () => {
    await write('a.yaml', imageYaml('a'));
    await symlink('.', join(bench.manifests, 'self'));
    const store = await bench.started();
    expect(names(store)).toEqual(['a']);
    expect(store.problems()).toEqual([]);
  });

  it('with one bad document has all others, and the bad one keeps its last good state', async () => {
    await write('a.yaml', `${imageYaml('a')}---\n${imageYaml('b')}`);
    const store = await bench.started();
    await write('a.yaml', `${imageYaml('a', { policy: 'Retain' })}---\n${imageYaml('b', { url: 7 })}`);
    await bench.lookTwice(store);
    expect(names(store)).toEqual(['a', 'b']);
    expect(store.get<TestObject>('VMImage', { namespace: 'default', name: 'a' })?.spec.policy).toBe('Retain');
    expect(store.get<TestObject>('VMImage', { namespace: 'default', name: 'b' })?.spec.url).toBe(
      'https://example.org/b',
    );
    expect(store.problems()).toMatchObject([{ document: 2, line: 14, field: 'spec.url' }]);
  });

  it('with a change that the object does not admit tells it by line, once, and takes it when the object is a new one', async () => {
    await write('a.yaml', imageYaml('a', { guid: 'one' }));
    const store = await bench.started();
    await write('a.yaml', imageYaml('a', { policy: 'Retain', guid: 'two' }));
    await bench.lookTwice(store);
    await store.scan();
    expect(store.problems()).toMatchObject([{ document: 1, line: 8, field: 'spec.guid', message: 'is immutable' }]);
    expect(bench.log.messages('error')).toEqual(['is immutable']);
    const key = { namespace: 'default', name: 'a' };
    expect(store.get<TestObject>('VMImage', key)).toMatchObject({ metadata: { generation: 1 }, spec: { guid: 'one' } });
    await store.delete('VMImage', key);
    await store.scan();
    expect(store.get<TestObject>('VMImage', key)?.spec.guid).toBe('two');
    expect(store.problems()).toEqual([]);
    expect(bench.log.messages('info')).toContain('no longer: is immutable');
  });

  it('as kubectl get prints objects is taken: of their metadata what is ours to write', async () => {
    const printed =
      '  uid: 5d2f\n  resourceVersion: "7"\n  ownerReferences: [{ kind: A, name: a }]\n  lables: {}\nspec:';
    await write('a.yaml', imageYaml('a').replace('spec:', printed));
    const site = imageYaml('shelf', {}, 'default').replace('VMImage', 'ImageSite');
    await write('shelf.yaml', site);
    const store = await bench.started();
    await bench.lookTwice(store);
    const image = store.get<TestObject>('VMImage', { namespace: 'default', name: 'a' });
    const shelf = store.get<TestObject>('ImageSite', { name: 'shelf' });
    expect(
      [image, shelf].map((object) => Object.entries(object?.metadata ?? {}).filter(([, value]) => value === null)),
    ).toEqual([[], []]);
    expect(image?.metadata).not.toHaveProperty('ownerReferences');
    expect(shelf?.metadata).not.toHaveProperty('namespace');
  });

  it('with an object twice has the one of the first file, and tells the other', async () => {
    await write('b.yaml', imageYaml('a', { url: 'second' }));
    await write('a.yaml', imageYaml('a', { url: 'first' }));
    const store = await bench.started();
    expect(store.get<TestObject>('VMImage', { namespace: 'default', name: 'a' })?.spec.url).toBe('first');
    expect(store.problems()).toMatchObject([
      {
        file: join(bench.manifests, 'b.yaml'),
        object: 'VMImage default/a',
        message: expect.stringContaining('a.yaml'),
      },
    ]);
  });

  it.each([
    ['in a later file', 'b.yaml', ''],
    ['later in its file', 'a.yaml', '---\n'],
  ])(
    'with an object twice, the second %s, keeps what the first said while the first is wrong, after a restart, too',
    async (_, file, mark) => {
      const put = async (first: string): Promise<void> => {
        const second = imageYaml('a', { url: 'second' });
        await write('a.yaml', file === 'a.yaml' ? `${first}${mark}${second}` : first);
        if (file !== 'a.yaml') await write(file, second);
      };
      const url = (store: { get: typeof first.get }) => store.get<TestObject>('VMImage', key)?.spec.url;
      const key = { namespace: 'default', name: 'a' };
      await put(imageYaml('a', { url: 'first' }));
      const first = await bench.started();
      await put(imageYaml('a', { url: 7 }));
      await bench.lookTwice(first);
      expect(url(first)).toBe('first');
      expect(first.problems().map(({ message }) => message)).toEqual([
        'is required: name the image',
        expect.stringContaining('is also in'),
      ]);
      await first.close();
      const second = await bench.started();
      await bench.lookTwice(second);
      expect(url(second)).toBe('first');
    },
  );

  it('with an object twice has the second when the first is gone for two looks, and not before', async () => {
    await write('a.yaml', imageYaml('a', { url: 'first' }));
    await write('b.yaml', imageYaml('a', { url: 'second' }));
    const store = await bench.started();
    const url = () => store.get<TestObject>('VMImage', { namespace: 'default', name: 'a' })?.spec.url;
    await rm(join(bench.manifests, 'a.yaml'));
    await store.scan();
    bench.clock.advance(4_999);
    await store.scan();
    expect(url()).toBe('first');
    await write('a.yaml', imageYaml('a', { url: 'first' }));
    bench.clock.advance(1);
    await store.scan();
    await rm(join(bench.manifests, 'a.yaml'));
    await store.scan();
    expect(url()).toBe('first');
    bench.clock.advance(5_000);
    await store.scan();
    expect(url()).toBe('second');
    expect(store.problems()).toEqual([]);
  });

  it.each(['while it runs', 'while it is stopped'])(
    'that is renamed and edited %s counts after two looks, also where some other folder cannot be listed',
    async (when) => {
      await write('a.yaml', imageYaml('a', { url: 'first' }));
      await symlink('loop', join(bench.manifests, 'loop'));
      let store = await bench.started();
      const url = () => store.get<TestObject>('VMImage', { namespace: 'default', name: 'a' })?.spec.url;
      if (when === 'while it is stopped') await store.close();
      await rm(join(bench.manifests, 'a.yaml'));
      await write('b.yaml', imageYaml('a', { url: 'second' }));
      if (when === 'while it is stopped') store = await bench.started();
      await store.scan();
      expect(url()).toBe('first');
      bench.clock.advance(5_000);
      await store.scan();
      expect(url()).toBe('second');
      expect(store.problems()).toMatchObject([{ file: join(bench.manifests, 'loop') }]);
    },
  );

  it.each([
    ['the folder cannot be listed', 'sub', (path: string) => symlink(path, path)],
    ['the text cannot be read', 'sub/a.yaml', (path: string) => writeFile(path, 'a: "')],
  ])(
    'does not let a second file step in for one of which %s, tells so, and does when that is gone',
    async (_, wrong, spoil) => {
      await mkdir(join(bench.manifests, 'sub'));
      await write('sub/a.yaml', imageYaml('a', { url: 'first' }));
      const former = await bench.started();
      await former.close();
      const path = join(bench.manifests, wrong);
      await rm(path, { recursive: true });
      await spoil(path);
      await write('z.yaml', imageYaml('a', { url: 'second' }));
      const store = await bench.started();
      const url = () => store.get<TestObject>('VMImage', { namespace: 'default', name: 'a' })?.spec.url;
      await bench.lookTwice(store);
      await bench.lookTwice(store);
      expect(url()).toBe('first');
      expect(store.problems()).toContainEqual(
        expect.objectContaining({
          file: join(bench.manifests, 'z.yaml'),
          object: 'VMImage default/a',
          message: expect.stringContaining(`was in ${join(bench.manifests, 'sub', 'a.yaml')}, which cannot be read`),
        }),
      );
      await rm(path);
      await bench.lookTwice(store);
      expect(url()).toBe('second');
      expect(store.problems()).toEqual([]);
    },
  );

  it.each([
    ['too large', (): string => `# ${'x'.repeat(4 * 1024 * 1024)}\n`, 'split it'],
    ['not UTF-8', (): Buffer => Buffer.from([0xff, 0xfe, 0x00]), 'UTF-8'],
  ])('with a file that is %s keeps what that file last said', async (_, content, message) => {
    await write('a.yaml', imageYaml('a'));
    const store = await bench.started();
    await writeFile(join(bench.manifests, 'a.yaml'), content());
    await bench.lookTwice(store);
    expect(store.problems()).toMatchObject([{ document: 0, message: expect.stringContaining(message) }]);
    expect(names(store)).toEqual(['a']);
  });

  it('is read again when a file changes within the resolution of its times', async () => {
    await write('a.yaml', imageYaml('a', { url: 'one' }));
    const store = await bench.started();
    for (const url of ['two', 'six', 'ten', 'odd']) {
      await write('a.yaml', imageYaml('a', { url }));
      await store.scan();
      expect(store.get<TestObject>('VMImage', { namespace: 'default', name: 'a' })?.spec.url).toBe(url);
    }
  });

  it('is looked at every five seconds without being asked', async () => {
    const store = await bench.started();
    await write('a.yaml', imageYaml('a'));
    const seen = Promise.withResolvers<void>();
    store.subscribe('VMImage', () => seen.resolve());
    bench.clock.advance(5_000);
    await seen.promise;
    expect(names(store)).toEqual(['a']);
    await store.close();
    expect(bench.clock.pending).toBe(0);
  });
});

describe('A Secret', () => {
  const secret = (password: string): string =>
    `apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\nstringData:\n  password: ${password}\n`;
  const key = { namespace: 'default', name: 's' };

  it.each([0o640, 0o604, 0o620, 0o602])(
    'in a file of mode %o is refused with the cure, and used when the mode is right',
    async (mode) => {
      await write('s.yaml', secret('hunter2'), mode);
      const store = await bench.started();
      const heard: string[] = [];
      store.subscribe('Secret', ({ type }) => heard.push(type));
      const error: unknown = await store.secret(key).catch((error: unknown) => error);
      expect(error).toBeInstanceOf(Failure);
      expect(error).toMatchObject({
        reason: 'InvalidSecret',
        message: expect.stringContaining(`chmod 600 ${join(bench.manifests, 's.yaml')}`),
      });
      expect(store.get('Secret', key)).toBeUndefined();
      expect(store.problems()).toHaveLength(1);
      await chmod(join(bench.manifests, 's.yaml'), 0o600);
      await store.scan();
      expect(Buffer.from((await store.secret(key))?.data.password ?? []).toString()).toBe('hunter2');
      expect(heard).toEqual(['Applied']);
      await chmod(join(bench.manifests, 's.yaml'), 0o644);
      await store.scan();
      expect(heard).toEqual(['Applied', 'Deleted']);
      await expect(store.secret(key)).rejects.toMatchObject({ reason: 'InvalidSecret' });
    },
  );

  it('has a new resourceVersion when its content changes, and the same when only its file was touched', async () => {
    await write('s.yaml', secret('hunter2'));
    const store = await bench.started();
    const first = (await store.secret(key))?.metadata.resourceVersion;
    await write('s.yaml', `# a comment\n${secret('hunter2')}`);
    await store.scan();
    expect((await store.secret(key))?.metadata.resourceVersion).toBe(first);
    await write('s.yaml', secret('hunter3'));
    await store.scan();
    expect((await store.secret(key))?.metadata.resourceVersion).not.toBe(first);
  });

  it('is gone when two looks, five seconds apart, have not found it: a copy or a checkout under way has none for a moment', async () => {
    await write('s.yaml', secret('hunter2'));
    const store = await bench.started();
    const heard: string[] = [];
    store.subscribe('Secret', ({ type }) => heard.push(type));
    // As scp and cp write over a file: empty first.
    await write('s.yaml', '');
    await store.scan();
    await write('s.yaml', secret('hunter2'));
    bench.clock.advance(5_000);
    await store.scan();
    expect(heard).toEqual(['Applied']);
    await rm(join(bench.manifests, 's.yaml'));
    await store.scan();
    bench.clock.advance(4_999);
    await store.scan();
    expect(await store.secret(key)).toBeDefined();
    bench.clock.advance(1);
    await store.scan();
    expect(await store.secret(key)).toBeUndefined();
    expect(heard).toEqual(['Applied', 'Deleted']);
  });

  it('stays as long as nothing is deleted, because the folder is another one', async () => {
    await write('s.yaml', `${secret('hunter2')}---\n${imageYaml('a')}`);
    const store = await bench.started();
    await rename(bench.manifests, `${bench.manifests}.away`);
    await mkdir(bench.manifests);
    await bench.lookTwice(store);
    expect(names(store)).toEqual(['a']);
    expect(await store.secret(key)).toBeDefined();
    await store.confirmDeletions();
    await bench.lookTwice(store);
    expect(names(store)).toEqual([]);
    expect(await store.secret(key)).toBeUndefined();
  });

  it('is taken as it was given, as long as there is no manifest of it', async () => {
    const { objects } = await parseManifest('given.yaml', secret('given'), validateSmall);
    const store = await bench.started({ credentials: objects });
    const heard: string[] = [];
    store.subscribe('Secret', ({ type, object }) => heard.push(`${type} ${object.metadata.resourceVersion}`));
    const password = async () => Buffer.from((await store.secret(key))?.data['password'] ?? []).toString();
    expect(await password()).toBe('given');
    await store.scan();
    expect(heard, 'told once, and not as new at every scan').toHaveLength(1);
    await write('s.yaml', secret('written'));
    await store.scan();
    expect(await password()).toBe('written');
    await rm(join(bench.manifests, 's.yaml'));
    await bench.lookTwice(store);
    expect(await password()).toBe('given');
  });

  it('cannot be applied: it would have to be written to the state', async () => {
    const store = await bench.started();
    const draft = { apiVersion: 'v1', kind: 'Secret', metadata: { name: 's' } };
    await expect(store.apply(draft)).rejects.toMatchObject({ reason: 'NotSupported' });
  });
});
