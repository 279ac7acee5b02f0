import { createMessage, generateKey, type PrivateKey, readPrivateKey, sign } from 'openpgp';
import { stringify } from 'yaml';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { ImageSubscription, VMImage } from '../../../src/api/types.ts';
import { type Disk, qcow2 } from '../../support/disks.ts';
import { condition, directorySite, House, isTrue, type Manifest } from '../../support/house.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';

/** Lists of the other formats, through the whole program: signed by OpenPGP, on loopback. */
let origin: Origin;
let house: House;
let ours: { key: PrivateKey; publicKey: string };
let theirs: { key: PrivateKey; publicKey: string };

async function makeKey(name: string): Promise<typeof ours> {
  const date = new Date(Date.now() - 86_400_000);
  const made = await generateKey({
    type: 'ecc',
    userIDs: [{ name, email: `${name}@example.org` }],
    date,
    format: 'armored',
  });
  return { key: await readPrivateKey({ armoredKey: made.privateKey }), publicKey: made.publicKey };
}

beforeAll(async () => {
  [ours, theirs] = await Promise.all([makeKey('publisher'), makeKey('stranger')]);
});

beforeEach(async () => {
  origin = await startOrigin();
  house = new House();
  await house.write('shelf.yaml', directorySite('shelf', house.shelf));
  await house.write('keys.yaml', {
    kind: 'ConfigMap',
    metadata: { name: 'keys', namespace: 'default' },
    data: { 'keyring.asc': ours.publicKey },
  });
  await house.start();
});

afterEach(async () => {
  await house.close();
  await origin.close();
});

/** A document, and its signature beside it; signed so many minutes ago. */
async function publish(path: string, text: string, minutesAgo: number, by = ours): Promise<void> {
  const date = new Date(Date.now() - minutesAgo * 60_000);
  const message = await createMessage({ binary: Buffer.from(text) });
  const signature = await sign({ message, signingKeys: by.key, detached: true, date, format: 'armored' });
  origin.route(path, { body: Buffer.from(text) });
  for (const suffix of ['.asc', '.gpg', '.sig']) origin.route(`${path}${suffix}`, { status: 404 });
  origin.route(`${path}.asc`, { body: Buffer.from(signature) });
}

function serve(path: string): Disk {
  const disk = qcow2(path);
  origin.route(path, { body: disk.bytes });
  return disk;
}

const subscription = (path: string, format: string): Manifest => ({
  kind: 'ImageSubscription',
  metadata: { name: 'list' },
  spec: {
    url: `${origin.url}${path}`,
    format,
    trust: { openpgp: { keyringRef: { kind: 'ConfigMap', name: 'keys' } } },
    template: { spec: { sites: [{ name: 'shelf' }] } },
  },
});

const lookAgain = async (wanted: (each: ImageSubscription) => boolean) => {
  const at = `${performance.now()}`;
  const key = { namespace: 'default', name: 'list' };
  await house.store.annotate('ImageSubscription', key, { 'imageproxy.dev/requestedAt': at });
  return house.untilSubscription('list', (each) => each.status.lastHandledReconcileAt === at && wanted(each));
};
const images = () => house.store.list<VMImage>('VMImage');
const ready = async (count: number) => {
  const each = await house.untilSubscription(
    'list',
    (one) => isTrue(one, 'ImagesReady') && one.status.counts?.ready === count,
  );
  return { each, images: images() };
};

describe('a file of checksums with a signature beside it', () => {
  const line = ({ sha256 }: Disk, name: string) => `${sha256} *${name}\n`;

  test('makes an image of each file, replaces one that has changed, and is not taken back to an older one', async () => {
    const old = line(serve('/dist/server.img'), 'server.img') + line(serve('/dist/small.img'), 'small.img');
    await publish('/dist/SHA256SUMS', `${old}${'0'.repeat(64)} *readme.txt\n`, 60);
    await house.write('sub.yaml', subscription('/dist/SHA256SUMS', 'ChecksumFile'));
    const first = await ready(2);
    expect(first.each.status.list).toMatchObject({
      endorser: expect.stringContaining('publisher@example.org') as string,
    });
    const [server] = first.images.filter(({ spec }) => spec.source.http?.urls[0] === `${origin.url}/dist/server.img`);
    expect(server?.metadata.name).toMatch(/^list-server-img-[0-9a-f]{10}$/);
    const before = server?.status.sites?.[0]?.imageID;

    const changed = line(serve('/dist/server.img'), 'server.img') + old.split('\n')[1];
    await publish('/dist/SHA256SUMS', `${changed}\n`, 30);
    await lookAgain((each) => isTrue(each, 'Ready') && each.status.list?.digest !== first.each.status.list?.digest);
    await house.until(
      server?.metadata.name ?? '',
      (image) => image.status.sites?.[0]?.imageID !== before && isTrue(image, 'Ready'),
    );

    await publish('/dist/SHA256SUMS', old, 60);
    await lookAgain((each) => condition(each, 'Ready')?.reason === 'ListRollback');
    await publish('/dist/SHA256SUMS', old, 10, theirs);
    await lookAgain((each) => condition(each, 'Ready')?.reason === 'UntrustedSigner');
    expect(images().map(({ spec }) => spec.state)).toEqual(['Active', 'Active']);
  });

  test('signed by a key that is taken out of the keyring keeps no image in service', async () => {
    await publish('/dist/SHA256SUMS', line(serve('/dist/server.img'), 'server.img'), 60);
    await house.write('sub.yaml', subscription('/dist/SHA256SUMS', 'ChecksumFile'));
    const name = (await ready(1)).images[0]?.metadata.name ?? '';
    await house.write('keys.yaml', {
      kind: 'ConfigMap',
      metadata: { name: 'keys', namespace: 'default' },
      data: { 'keyring.asc': theirs.publicKey },
    });
    const retired = await house.until(name, (image) => image.status.phase === 'Deactivated');
    expect(retired.metadata.annotations).toMatchObject({ 'imageproxy.dev/retired': 'Untrusted' });
  });
});

describe("a list of ImageProxy's own", () => {
  test('is followed, its faulty entries told and its deprecated ones retired', async () => {
    const of = (id: string, more: Record<string, unknown> = {}) => {
      const { sha512 } = serve(`/${id}.qcow2`);
      return {
        id,
        title: `The ${id}`,
        urls: [`${origin.url}/${id}.qcow2`],
        checksums: { sha512 },
        arch: 'x86_64',
        ...more,
      };
    };
    const list = (version: string, entries: readonly object[]) =>
      stringify({
        apiVersion: 'imageproxy.dev/v1beta1',
        kind: 'ImageList',
        metadata: { id: 'ours', title: 'Our images', version, createdAt: '2026-01-01T00:00:00Z' },
        images: entries,
      });
    const [debian, ubuntu] = [of('debian'), of('ubuntu')];
    await publish('/images.yaml', list('1', [debian, ubuntu, { id: 'broken', urls: ['ftp://example.org/x'] }]), 60);
    await house.write('sub.yaml', subscription('/images.yaml', 'ImageProxy'));
    const { each } = await ready(2);
    expect(each.status).toMatchObject({
      list: { identity: 'ours', title: 'Our images' },
      counts: { entries: 3, skipped: 1, selected: 2 },
      attention: [{ id: 'broken', reason: 'InvalidEntry' }],
    });
    await publish('/images.yaml', list('2', [debian, { ...ubuntu, deprecated: 'it has a hole' }]), 30);
    await lookAgain((one) => one.status.list?.version === '2' && one.status.counts?.retired === 1);
    const [retired] = images().filter(({ spec }) => spec.state === 'Deactivated');
    expect(retired?.metadata.annotations).toMatchObject({
      'imageproxy.dev/entry': 'ubuntu',
      'imageproxy.dev/retired': 'Removed',
    });
  });
});
