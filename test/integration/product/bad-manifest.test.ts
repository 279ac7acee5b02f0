import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Disk, qcow2 } from '../../support/disks.ts';
import { directorySite, House, isTrue, type Manifest, vmimage, yamlOf } from '../../support/house.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';

/** A manifest that cannot be read or may not be: told by file, document, line and field, while every other document goes on. */

let origin: Origin;
let house: House;
let disk: Disk;

beforeAll(async () => {
  origin = await startOrigin();
  disk = qcow2('manifests');
  origin.route('/disk.qcow2', { body: disk.bytes });
  house = new House();
  await house.write('shelf.yaml', directorySite('shelf', house.shelf));
  await house.start();
  await house.untilSite('shelf', (site) => isTrue(site, 'Ready'));
});

afterAll(async () => {
  await house?.close();
  await origin?.close();
});

const good = (name: string, more: Record<string, unknown> = {}): Manifest =>
  vmimage(name, {
    source: { http: { urls: [`${origin.url}/disk.qcow2`] } },
    checksums: { sha256: disk.sha256 },
    sites: [{ name: 'shelf' }],
    ...more,
  });

const problemsOf = (file: string) =>
  house.store.problems().filter((problem) => problem.file === join(house.manifests, file));

interface Row {
  what: string;
  /** The bad document; the spec's changes, or any text. */
  bad: Record<string, unknown> | ((name: string) => string);
  field?: string;
  says: RegExp;
  /** To a parser the rest of the file belongs to this document: what comes after it cannot be told apart. */
  swallows?: true;
}

const rows: Row[] = [
  { what: 'YAML with a quote without end', bad: () => 'kind: "VMImage\n', says: /quote/, swallows: true },
  { what: 'YAML indented by tabs', bad: () => 'kind: VMImage\nmetadata:\n\tname: x\n', says: /[Tt]ab/ },
  { what: 'text that is no object', bad: () => '- just\n- a list\n', says: /no object/ },
  {
    what: 'an unknown kind',
    bad: (name) => yamlOf({ kind: 'VirtualImage', metadata: { name } }),
    field: 'kind',
    says: /VirtualImage.*VMImage/,
  },
  {
    what: 'a name that is none',
    bad: () => yamlOf({ kind: 'VMImage', metadata: { name: 'No Name' } }),
    field: 'metadata.name',
    says: /name/,
  },
  { what: 'no spec', bad: (name) => yamlOf({ kind: 'VMImage', metadata: { name } }), field: 'spec', says: /required/ },
  { what: 'no source', bad: { source: undefined }, field: 'spec.source', says: /required/ },
  {
    what: 'two sources',
    bad: { source: { file: { root: 'a', path: 'b' }, oci: { reference: 'quay.io/a/b:1' } } },
    field: 'spec.source',
    says: /exactly one of http, torrent, s3/,
  },
  { what: 'no site', bad: { sites: undefined }, field: 'spec.sites', says: /exactly one of sites/ },
  {
    what: 'a password in a URL',
    bad: { source: { http: { urls: ['https://me:hunter2@example.org/a.qcow2'] } } },
    field: 'spec.source.http.urls[0]',
    says: /must not hold a user name or password.*secretRef/,
  },
  {
    what: 'a URL of another scheme',
    bad: { source: { http: { urls: ['ftp://example.org/a.qcow2'] } } },
    field: 'spec.source.http.urls[0]',
    says: /begins with http:\/\/ or https:\/\//,
  },
  {
    what: 'no checksum',
    bad: { checksums: undefined },
    field: 'spec.checksums',
    says: /needs a checksum.*insecureSkipVerify/,
  },
  {
    what: 'md5 alone',
    bad: { checksums: { md5: 'ab'.repeat(16) } },
    field: 'spec.checksums',
    says: /prove nothing.*allowWeak/,
  },
  {
    what: 'a digest of the wrong length',
    bad: { checksums: { sha256: 'abc' } },
    field: 'spec.checksums.sha256',
    says: /64 hexadecimal digits/,
  },
  {
    what: 'a ramdisk without a kernel',
    bad: { ramdisk: { source: { http: { urls: ['https://example.org/i'] } }, checksums: { sha256: 'ab'.repeat(32) } } },
    field: 'spec.ramdisk',
    says: /spec\.kernel/,
  },
  {
    what: 'a path that leads out of its root',
    bad: { source: { file: { root: 'a', path: '../etc/passwd' } } },
    field: 'spec.source.file.path',
    says: /below the root/,
  },
  {
    what: 'a credential among the headers',
    bad: { source: { http: { urls: ['https://example.org/a'], headers: { Authorization: 'Bearer hunter2' } } } },
    field: 'spec.source.http.headers',
    says: /put credentials into a Secret/,
  },
  { what: 'an enum in lower case', bad: { format: 'qcow2' }, field: 'spec.format', says: /Qcow2/ },
  { what: 'a number where a text belongs', bad: { guid: 7 }, field: 'spec.guid', says: /string/ },
  {
    what: 'a property that is ours',
    bad: { registration: { properties: { imageproxy_owner: 'me' } } },
    field: 'spec.registration.properties',
    says: /imageproxy_/,
  },
  {
    what: 'members without Shared',
    bad: { registration: { members: ['p'] } },
    field: 'spec.registration',
    says: /Shared/,
  },
];

test.each(rows)(
  '$what is told by file, document, line and field, the documents beside it go on, and put right it is Ready',
  async (row) => {
    const name = row.what.toLowerCase().replaceAll(/[^a-z0-9]+/g, '-');
    const file = `${name}.yaml`;
    const text = typeof row.bad === 'function' ? row.bad(name) : yamlOf(good(name, row.bad));
    await house.writeText(file, `${yamlOf(good(`${name}-before`))}---\n${text}---\n${yamlOf(good(`${name}-after`))}`);
    const problem = problemsOf(file).find((each) => each.severity === 'error');
    expect(problem).toMatchObject({
      document: 2,
      ...(row.field === undefined ? {} : { field: expect.stringContaining(row.field) }),
    });
    expect(problem?.message).toMatch(row.says);
    expect(problem?.line).toBeGreaterThan(yamlOf(good(name)).split('\n').length - 5);
    expect(house.image(name)).toBeUndefined();
    await house.ready(`${name}-before`);
    if (row.swallows !== true) await house.ready(`${name}-after`);
    expect(`${house.lines.join('')}${JSON.stringify(house.store.problems())}`).not.toContain('hunter2');

    await house.write(file, good(name));
    await house.ready(name);
    expect(problemsOf(file)).toEqual([]);
    for (const part of ['', '-before', '-after'])
      if (house.image(`${name}${part}`) !== undefined) await house.remove(file, `${name}${part}`);
  },
);

test('an unknown field is left out with a warning, and the image is Ready', async () => {
  await house.write('typo.yaml', good('typo', { checkSums: { sha256: 'x' }, registration: { visibilty: 'Public' } }));
  const warnings = problemsOf('typo.yaml');
  expect(warnings.map(({ severity, field }) => [severity, field])).toEqual([
    ['warning', 'spec.checkSums'],
    ['warning', 'spec.registration.visibilty'],
  ]);
  await house.ready('typo');
  expect(JSON.stringify(house.image('typo')?.spec)).not.toMatch(/checkSums|visibilty/);
  await house.remove('typo.yaml', 'typo');
});

test('a good image that is edited into a bad one keeps its last good state, and its registration', async () => {
  await house.write('edited.yaml', good('edited'));
  const before = await house.ready('edited');
  await house.write('edited.yaml', good('edited', { checksums: { sha256: 'short' } }));
  expect(problemsOf('edited.yaml')).toMatchObject([{ field: 'spec.checksums.sha256', severity: 'error' }]);
  await house.ask('edited', '1');
  const after = await house.until('edited', (now) => now.status.lastHandledReconcileAt === '1' && isTrue(now, 'Ready'));
  expect(after.metadata.generation).toBe(before.metadata.generation);
  expect(after.status.sites?.[0]?.imageID).toBe(before.status.sites?.[0]?.imageID);
  await house.remove('edited.yaml', 'edited');
  expect(readdirSync(house.shelf).filter((name) => name.endsWith('.qcow2'))).toEqual([]);
});

test('a Secret that others can read is refused with the cure, and taken once its mode is right', async () => {
  const secret = yamlOf({
    kind: 'Secret',
    metadata: { name: 'open', annotations: { 'imageproxy.dev/hosts': '127.0.0.1' } },
    stringData: { token: 'hunter2' },
  });
  await house.writeText('secret.yaml', secret, 0o644);
  const source = { http: { urls: [`${origin.url}/disk.qcow2`], secretRef: { name: 'open' } } };
  await house.write('open.yaml', good('open', { source }));
  const image = await house.until('open', (now) => now.status.sites?.[0]?.reason === 'InvalidSecret');
  expect(image.status.sites?.[0]?.message).toMatch(/chmod 600/);
  await house.writeText('secret.yaml', secret, 0o600);
  await house.ready('open');
  expect(house.lines.join('')).not.toContain('hunter2');
  await house.remove('open.yaml', 'open');
});
