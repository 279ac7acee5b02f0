import { describe, expect, it, test } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import type { VMImage } from '../../../src/api/types.ts';
import {
  type MetafilePlan,
  type Part,
  type Plan,
  planOf,
  planOfMetafile,
} from '../../../src/reconcilers/vmimage/plan.ts';
import { vmimage } from './objects.ts';

type Deps = Parameters<typeof planOf>[1];

function depsOf(cas: Record<string, string> = {}, token = 'abc'): Deps {
  return {
    store: {
      list: () => [],
      secret: async ({ namespace, name }: { namespace: string; name: string }) =>
        name !== 's'
          ? undefined
          : {
              metadata: { namespace, name, annotations: { 'imageproxy.dev/hosts': '*.example.org' } },
              data: { token: Buffer.from(token) },
            },
      configMap: async ({ name }: { name: string }) =>
        cas[name] === undefined ? undefined : { metadata: { name }, data: { 'ca.crt': cas[name] } },
    },
    settings: {
      network: { allow: [] },
      timeouts: { connectMs: 1, headersMs: 1, stallMs: 1 },
      fileRoots: new Map([['nfs', '/srv/nfs']]),
    },
  } as unknown as Deps;
}

const plan = async (spec: Partial<VMImage['spec']>, deps = depsOf(), namespace = 'default'): Promise<Plan> => {
  const found = await planOf(vmimage({ metadata: { namespace }, spec }), deps);
  if (!('parts' in found)) throw new Error('a metafile');
  return found;
};
const disk = async (...given: Parameters<typeof plan>): Promise<Part> => {
  const [first] = (await plan(...given)).parts;
  if (first === undefined) throw new Error('no part');
  return first;
};
const refusal = (promise: Promise<unknown>) =>
  promise.then(
    () => 'accepted',
    (error: unknown) => (error instanceof Failure ? `${error.reason}: ${error.message}` : String(error)),
  );
const http = (url: string, more: object = {}) => ({ source: { http: { urls: [url], ...more } } });
const URL = 'https://a.example.org/x';
const sha256 = 'a'.repeat(64);

describe('what has to be fetched for an image', () => {
  it('is its disk, and kernel and ramdisk where it names them, each from its mirrors in order', async () => {
    const boot = (name: string) => ({
      ...http(`https://a.example.org/${name}`),
      checksums: { sha256: 'B'.repeat(64) },
      compression: 'Auto' as const,
    });
    const { parts } = await plan({
      source: { http: { urls: [URL, 'https://b.example.org/x'], headers: { 'X-Site': 'cern' } } },
      kernel: boot('vmlinuz'),
      ramdisk: boot('initrd'),
    });
    expect(parts.map(({ role, field, compression, declared }) => [role, field, compression, declared.sha256])).toEqual([
      ['Disk', 'spec', 'Auto', sha256],
      ['Kernel', 'spec.kernel', 'None', 'b'.repeat(64)],
      ['Ramdisk', 'spec.ramdisk', 'None', 'b'.repeat(64)],
    ]);
    expect(parts[0]?.candidates).toMatchObject([
      { kind: 'http', url: URL, headers: { 'X-Site': 'cern' } },
      { kind: 'http', url: 'https://b.example.org/x' },
    ]);
    expect(parts.every((part) => part.scope === 'public')).toBe(true);
  });

  it('is for the namespace and the holder of the credentials alone, where it takes credentials', async () => {
    const spec = http(URL, { secretRef: { name: 's' } });
    const mine = await disk(spec);
    expect(mine.scope).toMatchObject({ namespace: 'default', credentials: expect.stringMatching(/^[0-9a-f]{32}$/) });
    expect(mine.candidates[0]).toMatchObject({ authorization: 'Bearer abc' });
    expect((await disk(spec, depsOf({}, 'other'))).key).not.toBe(mine.key);
    expect((await disk(spec, depsOf(), 'team')).key).not.toBe(mine.key);
  });

  it('may be a file below a root that the operator named, and below no other', async () => {
    const file = (root: string) => ({ source: { file: { root, path: 'x.qcow2' } } });
    expect((await disk(file('nfs'))).candidates).toEqual([{ kind: 'file', root: '/srv/nfs', path: 'x.qcow2' }]);
    expect(await refusal(plan(file('etc')))).toBe(
      'SourceForbidden: spec.source.file.root: "etc" is not a root of this controller (--file-root NAME=FOLDER; it has: nfs)',
    );
  });

  it('is refused by name where this version cannot fetch it', async () => {
    const torrent = { source: { torrent: { magnet: 'magnet:?xt=urn:btih:x' } } } as never;
    expect(await refusal(plan(torrent))).toContain('NotSupported: spec.source.torrent: this version fetches from http');
  });

  test.each<[string, Partial<VMImage['spec']>, string]>([
    ['sha256', { checksums: { sha256 } }, 'accepted'],
    ['sha512 of the content alone', { checksums: {}, contentChecksums: { sha512: 'a'.repeat(128) } }, 'accepted'],
    [
      'sha1 alone',
      { checksums: { sha1: 'a'.repeat(40) } },
      'WeakChecksum: spec: sha1 alone can be forged; add sha512 or sha256, or accept it with spec.verification.allowWeak: true',
    ],
    [
      'md5 alone, which is accepted',
      { checksums: { md5: 'a'.repeat(32) }, verification: { allowWeak: true, insecureSkipVerify: false } },
      'accepted',
    ],
    [
      'nothing',
      { checksums: {} },
      'ChecksumRequired: spec.checksums: give sha256 or sha512 of the file; without one nothing proves what is fetched',
    ],
    [
      'nothing, though weak ones would do',
      { checksums: {}, verification: { allowWeak: true, insecureSkipVerify: false } },
      'ChecksumRequired: spec.checksums: give sha256 or sha512 of the file; without one nothing proves what is fetched',
    ],
    [
      'nothing, which is accepted',
      { checksums: {}, verification: { allowWeak: false, insecureSkipVerify: true } },
      'accepted',
    ],
  ])('is to be proven with %s', async (_, spec, expected) => {
    expect(await refusal(plan(spec))).toBe(expected);
  });
});

describe('the key of a download', () => {
  it('is the same for two images that ask for the same, so that they share it', async () => {
    const other = vmimage({ metadata: { name: 'other', namespace: 'team', uid: 'other' } });
    const found = (await planOf(other, depsOf())) as Plan;
    expect(found.parts[0]?.key).toBe((await disk({})).key);
    expect((await disk({ checksums: { sha256: sha256.toUpperCase() } })).key).toBe((await disk({})).key);
  });

  it('is another where the end of one could be no end of the other', async () => {
    const cas = { one: 'CA 1', two: 'CA 2' };
    const specs: Partial<VMImage['spec']>[] = [
      http(URL),
      http('https://a.example.org/y'),
      http(URL, { headers: { Accept: 'x' } }),
      http(URL, { caRef: { kind: 'ConfigMap', name: 'one' } }),
      http(URL, { caRef: { kind: 'ConfigMap', name: 'two' } }),
      http(URL, { secretRef: { name: 's' } }),
      { ...http(URL), checksums: { sha256: 'b'.repeat(64) } },
      { ...http(URL), contentChecksums: { sha256: 'b'.repeat(64) } },
      // Whoever declares a wrong format is refused; whoever declares none is served.
      { ...http(URL), format: 'Raw' },
      { ...http(URL), compression: 'Gzip' },
    ];
    const plans = await Promise.all(specs.map((spec) => plan(spec, depsOf(cas))));
    expect(new Set(plans.map((each) => each.parts[0]?.key)).size).toBe(specs.length);
    // What would end differently is also worth another try where it stalled: a CA that was put right, for one.
    expect(new Set(plans.map((each) => each.inputsHash)).size).toBe(specs.length);
  });

  it('of a kernel is not that of a disk with the same bytes', async () => {
    const { parts } = await plan({
      ...http(URL),
      kernel: { ...http(URL), checksums: { sha256 }, compression: 'Auto' } as never,
    });
    expect(parts[0]?.key).not.toBe(parts[1]?.key);
  });
});

describe('an image that a metafile describes', () => {
  const where = 'https://u.example.org/image.xml?sig=geheim';
  const spec = (more: object = {}, verification = { allowWeak: true, insecureSkipVerify: false }) => {
    const { checksums: _, ...rest } = vmimage().spec;
    return {
      ...vmimage(),
      spec: { ...rest, source: { metafile: { url: where, sha256, ...more } }, verification },
    } as VMImage;
  };
  const xml = (...images: [string, string][]) =>
    Buffer.from(
      `<images>${images
        .map(
          ([type, url]) =>
            `<image><type>${type}</type><signature>${'1'.repeat(40)}</signature><url>${url}</url></image>`,
        )
        .join('')}</images>`,
    );
  const named = async (image: VMImage, bytes: Uint8Array) =>
    planOfMetafile(image, (await planOf(image, depsOf())) as MetafilePlan, bytes, depsOf());

  it('is fetched in two steps: the metafile as text, then the parts that it names', async () => {
    const first = (await planOf(spec(), depsOf())) as MetafilePlan;
    expect(first.metafile).toMatchObject({ metafile: true, compression: 'None', declared: { sha256 } });
    const second = await named(
      spec(),
      xml(['ZFILESYSTEM', 'https://u.example.org/fs.tgz'], ['KERNEL', 'https://u.example.org/k']),
    );
    expect(second.parts).toMatchObject([
      { role: 'Disk', member: 'filesystem', compression: 'Auto', declared: { sha1: '1'.repeat(40) } },
      { role: 'Kernel', compression: 'None' },
    ]);
    expect(second.inputsHash).toBe(first.inputsHash);
  });

  it('has its parts proven by sha1 alone, so that the image must say that this will do', async () => {
    const strict = spec({}, { allowWeak: false, insecureSkipVerify: false });
    expect(await refusal(named(strict, xml(['QCOW2', 'https://u.example.org/x'])))).toBe(
      'WeakChecksum: spec.source.metafile (disk): sha1 alone can be forged; add sha512 or sha256, or accept it with spec.verification.allowWeak: true',
    );
  });

  it('has its Secret sent to no host that the metafile names and the Secret does not', async () => {
    const image = spec({ secretRef: { name: 's' } });
    const good = await named(image, xml(['QCOW2', 'https://cdn.example.org/x']));
    expect(good.parts[0]?.candidates[0]).toMatchObject({ authorization: 'Bearer abc' });
    expect(await refusal(named(image, xml(['QCOW2', 'https://evil.example.net/x'])))).toContain(
      'SecretHostsMissing: spec.source.metafile (disk url): its Secret may not be sent to evil.example.net',
    );
  });

  it('that cannot be read is refused without giving away the query of its URL', async () => {
    const message = await refusal(named(spec(), Buffer.from('<images/>')));
    expect(message).toMatch(
      /^InvalidMetafile: the metafile https:\/\/u\.example\.org\/image\.xml\?…[0-9a-f]{8} cannot be used/,
    );
    expect(message).not.toContain('geheim');
  });

  it('is another download than a disk of the same place and digest', async () => {
    const { metafile } = (await planOf(spec(), depsOf())) as MetafilePlan;
    expect(metafile.key).not.toBe((await disk(http(where))).key);
  });
});
