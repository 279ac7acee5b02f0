import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ImageSubscription, VMImage } from '../../../src/api/types.ts';
import { collectionPath, objectPath, RESOURCES } from '../../../src/stores/kubernetes/resources.ts';
import { API_SERVER_PATIENCE_MS, type ApiServer, eventually } from '../../support/apiserver.ts';
import { type Disk, ext4 } from '../../support/disks.ts';
import {
  hepixList,
  inDays,
  type ListAuthority,
  type ListedImage,
  type ListOptions,
  type ListSigner,
  makeListAuthority,
} from '../../support/hepix.ts';
import { condition, isTrue, type Manifest, openstackSite } from '../../support/house.ts';
import { expectKstatus } from '../../support/kstatus.ts';
import { type OpenStack, openstackAvailable, startOpenStack } from '../../support/openstack.ts';
import type { Origin } from '../../support/origin.ts';
import { type Bench, type Cluster, openBench } from './cluster.ts';

/** A signed list on loopback, followed by the controllers on a real API server; a person works with the API server alone. */
describe('a subscription on a real API server', () => {
  let bench: Bench;
  let server: ApiServer;
  let origin: Origin;
  let cluster: Cluster;
  let authority: ListAuthority;
  let alice: ListSigner;
  const listId = randomUUID();
  const ids = [randomUUID(), randomUUID(), randomUUID()] as const;
  const names = ids.map((id) => `egi-${id}`) as [string, string, string];
  const key = { namespace: 'default', name: 'egi' };
  const disks = new Map<string, Disk>();

  beforeAll(async () => {
    bench = await openBench();
    ({ server, origin, cluster } = bench);
    authority = makeListAuthority();
    alice = authority.signer('alice');
    await cluster.start();
  }, API_SERVER_PATIENCE_MS);

  afterAll(async () => {
    await bench?.close();
    authority?.close();
  });

  function listed(id: string, label: string, more: Record<string, unknown> = {}): ListedImage {
    const disk = disks.get(label) ?? ext4(label);
    disks.set(label, disk);
    origin.route(`/${label}`, { body: disk.bytes });
    return {
      id,
      title: `Image ${label}`,
      url: `${origin.url}/${label}`,
      bytes: disk.bytes,
      more: { 'hv:format': 'raw', ...more },
    };
  }

  const publish = (version: string, images: readonly ListedImage[], by = alice, more: Partial<ListOptions> = {}) =>
    origin.route('/image.list', { body: by.sign(hepixList({ id: listId, version, images, endorser: by, ...more })) });

  /** Serves a disk, the end of it only when that is let go. */
  function held(label: string): () => void {
    const { promise: until, resolve } = Promise.withResolvers<void>();
    origin.route(`/${label}`, { body: (disks.get(label) as Disk).bytes, holdAfter: { bytes: 1000, until } });
    return resolve;
  }

  const subscription = (more: Record<string, unknown> = {}): Manifest => ({
    kind: 'ImageSubscription',
    metadata: { name: 'egi' },
    spec: {
      url: `${origin.url}/image.list`,
      format: 'HEPiX',
      trust: {
        x509: {
          endorsers: [{ subject: alice.subject, issuer: alice.issuer }],
          directoryRef: { kind: 'ConfigMap', name: 'grid-security' },
        },
      },
      template: { spec: { sites: [{ name: 'shelf' }] } },
      ...more,
    },
  });

  const followed = (wanted: (each: ImageSubscription) => boolean, what: string) =>
    eventually(`the subscription is ${what}`, async () => {
      const each = await cluster.get<ImageSubscription>('ImageSubscription', key);
      if (!wanted(each)) throw new Error(JSON.stringify(each.status, undefined, 1));
      return each;
    });

  async function lookAgain(wanted: (each: ImageSubscription) => boolean, what: string): Promise<ImageSubscription> {
    const at = randomUUID();
    await server.request({
      method: 'PATCH',
      path: objectPath(RESOURCES.ImageSubscription, key),
      contentType: 'application/merge-patch+json',
      body: { metadata: { annotations: { 'imageproxy.dev/requestedAt': at } } },
    });
    return followed((each) => each.status.lastHandledReconcileAt === at && wanted(each), what);
  }

  /** What the subscription writes of its images: the API server counts a generation for each change of a spec, and keeps who wrote what. */
  const versions = async () => {
    const key = (name: string) => ({ namespace: 'default', name });
    const all = await Promise.all(
      names.map((name) => cluster.get<VMImage>('VMImage', key(name)).catch(() => undefined)),
    );
    return all.map(
      (image) => image && JSON.stringify([image.metadata.generation, image.metadata.annotations, image.spec]),
    );
  };

  test('images of a signed list arrive, owned by it, and kubectl shows the whole of it in a line', async () => {
    const anchors = { 'example.0': authority.ca, 'example.info': 'alias = example' };
    await cluster.apply({ kind: 'ConfigMap', metadata: { name: 'grid-security' }, data: anchors });
    publish('1', [listed(ids[0], 'keep'), listed(ids[1], 'old')]);
    await cluster.apply(subscription());
    await Promise.all(names.slice(0, 2).map((name) => cluster.ready(name)));
    const each = await followed((one) => isTrue(one, 'ImagesReady') && isTrue(one, 'Ready'), 'followed');
    expectKstatus(each);
    expect((await cluster.image(names[0])).metadata.annotations).toMatchObject({
      'imageproxy.dev/subscription': 'egi',
      'imageproxy.dev/subscription-uid': each.metadata.uid,
    });
    const table = await server.request<{ columnDefinitions: { name: string }[]; rows: { cells: unknown[] }[] }>({
      method: 'GET',
      path: collectionPath(RESOURCES.ImageSubscription, 'default'),
      accept: 'application/json;as=Table;g=meta.k8s.io;v=v1',
    });
    const [row] = table.rows.map(({ cells }) =>
      Object.fromEntries(table.columnDefinitions.map(({ name }, i) => [name, cells[i]])),
    );
    expect(row).toMatchObject({ Name: 'egi', Ready: 'True', Format: 'HEPiX', Selected: 2, Images: 2 });
    expect(row?.['Message']).toContain(`signed by ${alice.subject}`);
  });

  test('a new version replaces, adds and retires; the image that stays is not written', async () => {
    const [kept] = await versions();
    const before = (await cluster.image(names[1])).status.sites?.[0]?.imageID;
    publish('2', [listed(ids[0], 'keep'), listed(ids[2], 'added')]);
    await lookAgain((each) => each.status.list?.version === '2', 'at version 2');
    await cluster.ready(names[2]);
    await cluster.until(names[1], ({ status }) => status.phase === 'Deactivated', 'retired');
    publish('3', [listed(ids[0], 'keep'), listed(ids[1], 'new'), listed(ids[2], 'added')]);
    await lookAgain((each) => each.status.list?.version === '3', 'at version 3');
    const replaced = await cluster.until(
      names[1],
      (image) => image.status.sites?.[0]?.imageID !== before && isTrue(image, 'Ready') && isTrue(image, 'Available'),
      'replaced',
    );
    expect(replaced.spec.state).toBe('Active');
    expect(replaced.metadata.annotations).not.toHaveProperty('imageproxy.dev/retired');
    expect((await versions())[0]).toBe(kept);
    await followed((each) => isTrue(each, 'ImagesReady') && each.status.counts?.ready === 3, 'at rest');
  });

  test('the old id stays in service until the new image is there, and an entry past its own date goes', async () => {
    const before = (await cluster.image(names[2])).status.sites?.[0]?.imageID;
    const past = { 'dc:date:expires': inDays(-1) };
    publish('3.1', [listed(ids[0], 'keep'), listed(ids[1], 'new', past), listed(ids[2], 'newer')]);
    const release = held('newer');
    await lookAgain((each) => each.status.list?.version === '3.1', 'at version 3.1');
    const waiting = await cluster.until(
      names[2],
      ({ spec, status }) => spec.source.http?.urls[0]?.endsWith('/newer') === true && status.phase === 'Fetching',
      'being fetched',
    );
    expect(waiting.status.sites?.[0]?.imageID).toBe(before);
    expect(isTrue(waiting, 'Available')).toBe(true);
    release();
    await cluster.until(
      names[2],
      (image) => image.status.sites?.[0]?.imageID !== before && isTrue(image, 'Ready') && isTrue(image, 'Available'),
      'replaced',
    );
    const expired = await cluster.until(names[1], ({ status }) => status.phase === 'Deactivated', 'retired');
    expect(expired.metadata.annotations).toMatchObject({ 'imageproxy.dev/retired': 'Expired' });
    await followed((each) => isTrue(each, 'ImagesReady') && each.status.counts?.retired === 1, 'at rest');
  });

  test('an older, a tampered, an expired and a differently signed list change nothing but the conditions', async () => {
    const before = await versions();
    const bob = authority.signer('bob');
    const serve: Record<string, () => void> = {
      ListRollback: () => publish('2', []),
      ListExpired: () => publish('4', [], alice, { created: inDays(-60), expires: inDays(-30) }),
      EndorserNotTrusted: () => publish('4', [], bob),
      SignatureInvalid: () => {
        const text = alice
          .sign(hepixList({ id: listId, version: '4', images: [], endorser: alice }))
          .toString('latin1');
        origin.route('/image.list', { body: Buffer.from(text.replace('Test list', 'Best list'), 'latin1') });
      },
    };
    for (const [reason, publishIt] of Object.entries(serve)) {
      publishIt();
      const refused = await lookAgain((each) => condition(each, 'Ready')?.reason === reason, `refused: ${reason}`);
      expectKstatus(refused);
      expect(await versions()).toEqual(before);
    }
  });

  test('a person deactivates an image, and the next version of the list leaves it so', async () => {
    await server.request({
      method: 'PATCH',
      path: objectPath(RESOURCES.VMImage, { ...key, name: names[0] }),
      contentType: 'application/merge-patch+json',
      body: { spec: { state: 'Deactivated' } },
    });
    await cluster.until(names[0], ({ status }) => status.phase === 'Deactivated', 'deactivated');
    publish('5', [listed(ids[0], 'changed'), listed(ids[1], 'new'), listed(ids[2], 'added')]);
    await lookAgain((each) => each.status.list?.version === '5' && isTrue(each, 'Ready'), 'at version 5');
    const image = await cluster.until(
      names[0],
      ({ spec }) => spec.source.http?.urls[0]?.endsWith('/changed') === true,
      'changed',
    );
    expect(image.spec.state).toBe('Deactivated');
  });

  test('keeps its images when it is deleted', async () => {
    await cluster.delete('ImageSubscription', key);
    await cluster.gone('ImageSubscription', key);
    for (const name of names) {
      const { annotations } = (await cluster.image(name)).metadata;
      expect(annotations).toMatchObject({ 'imageproxy.dev/subscription': 'egi' });
      expect(annotations).not.toHaveProperty(['imageproxy.dev/subscription-uid']);
    }
  });

  describe.skipIf(!openstackAvailable())('with a real Glance', () => {
    let openstack: OpenStack;

    beforeAll(async () => {
      openstack = await startOpenStack();
      await cluster.apply(...openstackSite('nova', await openstack.clouds('demo'), 'demo'));
    });
    afterAll(() => openstack?.stop());

    const glance = async (image: VMImage) => {
      const { body } = await openstack.image('demo', 'GET', `/images/${image.status.sites?.[0]?.imageID}`);
      return body as Record<string, unknown>;
    };

    test('images arrive there, are replaced, and go with the endorser, whose authority is taken out with him', async () => {
      const [stays, changes] = [randomUUID(), randomUUID()] as const;
      const [kept, changed] = [`egi-${stays}`, `egi-${changes}`] as const;
      publish('1', [listed(stays, 'keep'), listed(changes, 'old')]);
      await cluster.apply(subscription({ template: { spec: { sites: [{ name: 'nova' }] } } }));
      await Promise.all([kept, changed].map((name) => cluster.ready(name)));
      const old = await cluster.image(changed);
      expect(await glance(old)).toMatchObject({ status: 'active', vmcatcher_event_dc_identifier: changes });
      publish('2', [listed(stays, 'keep'), listed(changes, 'new')]);
      await lookAgain((each) => each.status.list?.version === '2', 'at version 2');
      const current = await cluster.until(
        changed,
        ({ status }) => status.sites?.[0]?.previous?.[0]?.retiredAt !== undefined,
        'replaced',
      );
      expect(await glance(current)).toMatchObject({ status: 'active', os_hash_value: disks.get('new')?.sha512 });
      expect(await glance(old)).toMatchObject({ status: 'deactivated', os_hidden: true });
      const other = makeListAuthority('Other CA');
      other.close();
      const data = { 'other.0': other.ca };
      await cluster.apply({ kind: 'ConfigMap', metadata: { name: 'grid-security' }, data });
      await followed((each) => condition(each, 'Ready')?.reason === 'UntrustedSigner', 'without its authority');
      expect(await glance(current)).toMatchObject({ status: 'active' });
      const carol = { subject: '/DC=org/DC=example/CN=carol', issuer: '/DC=org/DC=example/CN=Other CA' };
      const directoryRef = { kind: 'ConfigMap', name: 'grid-security' };
      await cluster.apply(
        subscription({
          trust: { x509: { endorsers: [carol], directoryRef } },
          template: { spec: { sites: [{ name: 'nova' }] } },
        }),
      );
      for (const name of [kept, changed]) {
        const out = await cluster.until(name, ({ status }) => status.phase === 'Deactivated', 'retired');
        expect(out.metadata.annotations).toMatchObject({ 'imageproxy.dev/retired': 'Untrusted' });
        expect(await glance(out)).toMatchObject({ status: 'deactivated', os_hidden: true });
      }
    });
  });
});
