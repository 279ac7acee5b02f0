import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ImageSubscription, VMImage } from '../../../src/api/types.ts';
import { collectionPath, objectPath, RESOURCES } from '../../../src/stores/kubernetes/resources.ts';
import { API_SERVER_PATIENCE_MS, type ApiServer, eventually, startApiServer } from '../../support/apiserver.ts';
import { type Disk, ext4 } from '../../support/disks.ts';
import {
  hepixList,
  type ListAuthority,
  type ListedImage,
  type ListSigner,
  makeListAuthority,
} from '../../support/hepix.ts';
import { condition, directorySite, isTrue, type Manifest } from '../../support/house.ts';
import { expectKstatus } from '../../support/kstatus.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';
import { Cluster } from './cluster.ts';

/** A signed list on loopback, followed by the controllers on a real API server; a person works with the API server alone. */
describe('a subscription on a real API server', () => {
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
    [server, origin] = await Promise.all([startApiServer(), startOrigin()]);
    for (const name of ['default', 'imageproxy']) await server.namespace(name);
    authority = makeListAuthority();
    alice = authority.signer('alice');
    cluster = new Cluster(server);
    await cluster.apply(directorySite('shelf', cluster.shelf));
    await cluster.start();
  }, API_SERVER_PATIENCE_MS);

  afterAll(async () => {
    await cluster?.close();
    authority?.close();
    await Promise.all([server?.stop(), origin?.close()]);
  });

  function listed(id: string, label: string): ListedImage {
    const disk = disks.get(label) ?? ext4(label);
    disks.set(label, disk);
    origin.route(`/${label}`, { body: disk.bytes });
    return {
      id,
      title: `Image ${label}`,
      url: `${origin.url}/${label}`,
      bytes: disk.bytes,
      more: { 'hv:format': 'raw' },
    };
  }

  const publish = (version: string, images: readonly ListedImage[], by = alice) =>
    origin.route('/image.list', { body: by.sign(hepixList({ id: listId, version, images, endorser: by })) });

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

  test('an older, a tampered and a differently signed list change nothing but the conditions', async () => {
    const before = await versions();
    const bob = authority.signer('bob');
    const serve: Record<string, () => void> = {
      ListRollback: () => publish('2', []),
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
});
