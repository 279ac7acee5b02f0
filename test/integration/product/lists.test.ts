import { createHash, randomUUID } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { ImageSubscription } from '../../../src/api/types.ts';
import { imageName } from '../../../src/reconcilers/imagesubscription/names.ts';
import { type Disk, qcow2 } from '../../support/disks.ts';
import { condition, directorySite, House, isTrue, type Manifest } from '../../support/house.ts';
import { makePublisher, PROGRAMS, type Publisher } from '../catalogs/publisher.ts';
import { entryOf, metadata } from '../../support/marketplace.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';
import { installed } from '../images/workspace.ts';

/** Each format from a signed list on loopback to an image at a site; what holds for all of them is in subscriptions.test.ts. */
describe.skipIf(!installed(...PROGRAMS))('a subscription', () => {
  let publisher: Publisher;
  let origin: Origin;
  let house: House;
  let one: Disk;
  let two: Disk;

  beforeAll(() => {
    publisher = makePublisher();
    one = qcow2('one');
    two = qcow2('two');
  });
  afterAll(() => publisher.close());

  beforeEach(async () => {
    origin = await startOrigin();
    house = new House();
    await house.write('shelf.yaml', directorySite('shelf', house.shelf));
    await house.write('keys.yaml', {
      kind: 'ConfigMap',
      metadata: { name: 'keys', namespace: 'default' },
      data: {
        'keyring.asc': Buffer.from(publisher.openpgp('alice').keyring).toString(),
        'ca.crt': publisher.read('ca.pem').toString(),
      },
    });
    await house.start();
  });
  afterEach(async () => {
    await house.close();
    await origin.close();
  });

  const OPENPGP = { openpgp: { keyringRef: { kind: 'ConfigMap', name: 'keys' } } };
  const X509 = () => ({
    x509: { endorsers: publisher.x509('alice').endorsers, caRef: { kind: 'ConfigMap', name: 'keys' } },
  });

  function subscription(format: string, path: string, trust: object, more: object = {}): Manifest {
    return {
      kind: 'ImageSubscription',
      metadata: { name: 'sub' },
      spec: { url: origin.url + path, format, trust, template: { spec: { sites: [{ name: 'shelf' }] } }, ...more },
    };
  }

  /** The digest of what a site has of an entry. */
  const served = (id: string) => house.row(imageName('sub', id), 'shelf')?.digest;
  const ready = (id: string) => house.ready(imageName('sub', id));

  async function lookAgain(reason = 'Followed'): Promise<ImageSubscription> {
    const at = randomUUID();
    const key = { namespace: 'default', name: 'sub' };
    await house.store.annotate('ImageSubscription', key, { 'imageproxy.dev/requestedAt': at });
    return house.untilSubscription(
      'sub',
      (each) => each.status.lastHandledReconcileAt === at && condition(each, 'Ready')?.reason === reason,
    );
  }

  test('to a checksum file brings the disks beside it that are chosen', async () => {
    const sums = `${one.sha256} *one.qcow2\n${two.sha256} *two.qcow2\n${two.sha256} *two.manifest\n`;
    origin.route('/current/SHA256SUMS', { body: Buffer.from(sums) });
    origin.route('/current/SHA256SUMS.gpg', { body: publisher.detached(sums) });
    origin.route('/current/one.qcow2', { body: one.bytes });
    const select = { matchFields: [{ key: 'name', operator: 'In', values: ['one*'] }] };
    await house.write('sub.yaml', subscription('ChecksumFile', '/current/SHA256SUMS', OPENPGP, { select }));
    await ready('one.qcow2');
    expect(served('one.qcow2')).toBe(`sha256:${one.sha256}`);
    const told = await house.untilSubscription('sub', (each) => isTrue(each, 'ImagesReady'));
    expect(told.status.counts).toMatchObject({ entries: 2, selected: 1, images: 1 });
    expect(told.status.list?.endorser).toContain('alice@example.org');
    expect(told.status.list?.createdAt).toBeDefined();
  });

  test('to a stream brings the newest disk of each product, and replaces it with the next', async () => {
    const versions: Record<string, object> = {};
    const publish = (serial: string, disk: Disk) => {
      versions[serial] = {
        items: {
          'disk1.img': { ftype: 'disk1.img', path: `${serial}/x.img`, sha256: disk.sha256, size: disk.bytes.length },
        },
      };
      const updated = new Date().toUTCString().replace('GMT', '+0000');
      const products = {
        format: 'products:1.0',
        content_id: 'x',
        updated,
        products: { p: { arch: 'amd64', os: 'ubuntu', versions } },
      };
      const index = {
        format: 'index:1.0',
        updated,
        index: { x: { datatype: 'image-downloads', format: 'products:1.0', updated, path: 'streams/v1/x.sjson' } },
      };
      origin.route('/streams/v1/index.sjson', { body: publisher.clearsign(JSON.stringify(index)) });
      origin.route('/streams/v1/x.sjson', { body: publisher.clearsign(JSON.stringify(products)) });
      origin.route(`/${serial}/x.img`, { body: disk.bytes });
    };
    publish('20261101', one);
    await house.write('sub.yaml', subscription('Simplestreams', '/streams/v1/index.sjson', OPENPGP));
    await ready('p');
    expect(served('p')).toBe(`sha256:${one.sha256}`);
    publish('20261102', two);
    await lookAgain();
    await house.until(
      imageName('sub', 'p'),
      (image) => isTrue(image, 'Ready') && served('p') === `sha256:${two.sha256}`,
    );
  });

  test("to ImageProxy's own list brings its images, from the mirror that has them", async () => {
    const list = `apiVersion: imageproxy.dev/v1beta1
kind: ImageList
metadata: { id: mine, version: "1", createdAt: 2026-01-01T00:00:00Z }
images:
  - id: ${randomUUID()}
    title: One
    urls: ["${origin.url}/gone.qcow2", "${origin.url}/one.qcow2"]
    checksums: { sha256: ${one.sha256} }
    format: Qcow2
`;
    publisher.write('images.yaml', list);
    publisher.run('minisign -S -s minisign.key -m images.yaml');
    origin.route('/images.yaml', { body: publisher.read('images.yaml') });
    origin.route('/images.yaml.minisig', { body: publisher.read('images.yaml.minisig') });
    origin.route('/one.qcow2', { body: one.bytes });
    const minisign = { minisign: { publicKeys: publisher.minisign.publicKeys } };
    await house.write('sub.yaml', subscription('ImageProxy', '/images.yaml', minisign));
    const id = /id: (\S{36})/.exec(list)?.[1] ?? '';
    await ready(id);
    expect(served(id)).toBe(`sha256:${one.sha256}`);
  });

  test('to a tag of a Marketplace brings the image behind it, unpacked and proven by its content, and retires it when it is deprecated', async () => {
    const path = '/tag/alice@example.org/base';
    const tag = '<dcterms:alternative>base</dcterms:alternative>';
    const publish = (disk: Disk, endorsedAt: string, more = '') => {
      const name = `/${createHash('sha256').update(disk.bytes).digest('hex').slice(0, 8)}.qcow2.gz`;
      origin.route(name, { body: gzipSync(disk.bytes) });
      const entry = entryOf({
        content: disk.bytes,
        endorsedAt,
        locations: ['pdisk:here:1', origin.url + name],
        more: tag + more,
      });
      origin.route(path, { body: Buffer.from(metadata(publisher.xmlsign(entry))) });
    };
    const id = 'alice@example.org/base';
    publish(one, '2026-01-01T00:00:00Z');
    await house.write('sub.yaml', subscription('Marketplace', path, X509()));
    await ready(id);
    expect(served(id)).toBe(`sha512:${one.sha512}`);
    publish(two, '2026-02-01T00:00:00Z');
    await lookAgain();
    await house.until(imageName('sub', id), (image) => isTrue(image, 'Ready') && served(id) === `sha512:${two.sha512}`);
    publish(one, '2026-01-01T00:00:00Z');
    const refused = await lookAgain('ListRollback');
    expect(refused.status.list?.createdAt).toBe('2026-02-01T00:00:00Z');
    publish(two, '2026-03-01T00:00:00Z', '<slterms:deprecated>a hole in it</slterms:deprecated>');
    await lookAgain();
    await house.until(imageName('sub', id), (image) => image.status.phase === 'Deactivated');
  });
});
