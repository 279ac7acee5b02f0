import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ImageSubscription, VMImage } from '../../../src/api/types.ts';
import { objectPath, RESOURCES } from '../../../src/stores/kubernetes/resources.ts';
import { API_SERVER_PATIENCE_MS, type ApiServer, eventually } from '../../support/apiserver.ts';
import { ext4 } from '../../support/disks.ts';
import { hepixList } from '../../support/hepix.ts';
import type { Origin } from '../../support/origin.ts';
import { unsignedSubscription } from '../../support/house.ts';
import { type Bench, type Cluster, openBench } from './cluster.ts';

const CASCADES = ['Foreground', 'Background', 'Orphan'] as const;
type Cascade = (typeof CASCADES)[number];

/**
 * A subscription that is deleted where a garbage collector runs, which asks nobody. `kubectl delete` deletes in the background; Argo CD
 * prunes in the foreground. What becomes of the images its spec alone says.
 */
describe('a deleted subscription', () => {
  let bench: Bench;
  let server: ApiServer;
  let origin: Origin;
  let cluster: Cluster;
  const ids = [randomUUID(), randomUUID()] as const;
  const names = ids.map((id) => `egi-${id}`) as [string, string];
  const key = { namespace: 'default', name: 'egi' };
  const sentinel = '/api/v1/namespaces/default/configmaps/owned';

  beforeAll(async () => {
    bench = await openBench({ controllerManager: true });
    ({ server, origin, cluster } = bench);
    await cluster.start();
    const images = ids.map((id) => {
      const { bytes } = ext4(id.slice(0, 8));
      origin.route(`/${id}`, { body: bytes });
      return { id, title: id, url: `${origin.url}/${id}`, bytes, more: { 'hv:format': 'raw' } };
    });
    origin.route('/image.list', { body: Buffer.from(hepixList({ id: randomUUID(), version: '1', images })) });
  }, API_SERVER_PATIENCE_MS);

  afterAll(async () => {
    await bench?.close();
  });

  const images = () => Promise.all(names.map((name) => cluster.image(name)));
  const serving = async () =>
    (await images()).map(({ metadata, status }) => [
      metadata.uid,
      metadata.deletionTimestamp,
      status.sites?.[0]?.imageID,
    ]);

  async function subscribe(deletionPolicy: 'Retain' | 'Delete'): Promise<ImageSubscription> {
    await cluster.apply(unsignedSubscription(`${origin.url}/image.list`, { deletionPolicy }));
    const { uid } = (await cluster.get<ImageSubscription>('ImageSubscription', key)).metadata;
    const isTakenUp = ({ metadata }: VMImage) => metadata.annotations?.['imageproxy.dev/subscription-uid'] === uid;
    for (const name of names) {
      await eventually(`${name} is there`, () => cluster.image(name));
      await cluster.until(name, isTakenUp, 'of the subscription');
      await cluster.ready(name);
    }
    return cluster.get<ImageSubscription>('ImageSubscription', key);
  }

  /**
   * Deletes it while the controllers do not run, so that the garbage collector goes first wherever it may, and resolves when both have
   * done all that they do of it.
   */
  async function remove(subscription: ImageSubscription, propagationPolicy: Cascade): Promise<void> {
    const { apiVersion, kind, metadata } = subscription;
    // It holds a foreground deletion, so that the garbage collector does look at what is owned.
    const owner = { apiVersion, kind, name: metadata.name, uid: metadata.uid, blockOwnerDeletion: true };
    await server.apply(sentinel, {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: 'owned', namespace: 'default', ownerReferences: [owner] },
    });
    const collected = () =>
      eventually('the garbage collector has been there', async () => {
        const left = await server
          .request<{ metadata: { ownerReferences?: object[] } }>({ method: 'GET', path: sentinel })
          .catch(() => undefined);
        if (left?.metadata.ownerReferences !== undefined) throw new Error(JSON.stringify(left));
      });
    await cluster.stop();
    const path = objectPath(RESOURCES.ImageSubscription, key);
    await server.request({ method: 'DELETE', path, query: { propagationPolicy } });
    // In the background it waits until the owner has gone.
    if (propagationPolicy !== 'Background') await collected();
    await cluster.start();
    await cluster.gone('ImageSubscription', key);
    await collected();
    if (propagationPolicy === 'Orphan') await server.request({ method: 'DELETE', path: sentinel });
  }

  test.each(CASCADES)('keeps its images (%s): one of its name takes them up again', async (cascade) => {
    const subscription = await subscribe('Retain');
    const before = await serving();
    await remove(subscription, cascade);
    const after = await images();
    expect(await serving()).toEqual(before);
    for (const { metadata } of after) {
      expect(metadata.ownerReferences ?? []).toEqual([]);
      expect(metadata.annotations).not.toHaveProperty(['imageproxy.dev/subscription-uid']);
    }
    await subscribe('Retain');
    expect(await serving()).toEqual(before);
  });

  test.each(CASCADES)('takes its images with it where it shall (%s)', async (cascade) => {
    await remove(await subscribe('Delete'), cascade);
    for (const name of names) await cluster.gone('VMImage', { ...key, name });
  });
});
