import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { VMImage } from '../../../src/api/types.ts';
import { Accounts, type Rule, rule } from '../../support/accounts.ts';
import { API_SERVER_PATIENCE_MS, type ApiServer, eventually, startApiServer } from '../../support/apiserver.ts';
import { ext4 } from '../../support/disks.ts';
import { hepixList } from '../../support/hepix.ts';
import { directorySite, vmimage } from '../../support/house.ts';
import { expectKstatus } from '../../support/kstatus.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';
import { Cluster } from './cluster.ts';

const OURS = 'imageproxy.dev';

/** What the controllers need for a namespace in which images are. Nothing is made or deleted but the VMImages of subscriptions. */
const IN_NAMESPACES: readonly Rule[] = [
  rule(OURS, ['vmimages', 'imagesubscriptions'], ['get', 'list', 'watch', 'patch']),
  rule(OURS, ['vmimages'], ['create', 'delete']),
  rule(OURS, ['vmimages/status', 'imagesubscriptions/status'], ['patch']),
  rule('', ['secrets', 'configmaps'], ['get', 'list', 'watch']),
  rule('events.k8s.io', ['events'], ['create', 'patch']),
];
const IN_CLUSTER: readonly Rule[] = [
  rule(OURS, ['imagesites'], ['get', 'list', 'watch', 'patch']),
  rule(OURS, ['imagesites/status'], ['patch']),
  { ...rule('', ['namespaces'], ['get']), resourceNames: ['kube-system'] },
];
/** Events of ImageSites are in `default`, as those of all kinds without a namespace. */
const IN_DEFAULT: readonly Rule[] = [rule('events.k8s.io', ['events'], ['create', 'patch'])];

describe('the rights of the controller', () => {
  let server: ApiServer;
  let origin: Origin;
  let cluster: Cluster;
  let accounts: Accounts;

  beforeAll(async () => {
    [server, origin] = await Promise.all([startApiServer(), startOrigin()]);
    for (const name of ['default', 'images', 'imageproxy']) await server.namespace(name);
    cluster = new Cluster(server);
    accounts = new Accounts(server, 'imageproxy');
  }, API_SERVER_PATIENCE_MS);
  afterEach(() => cluster.stop());
  afterAll(async () => {
    await cluster?.close();
    await Promise.all([server?.stop(), origin?.close()]);
  });

  test('in chosen namespaces Roles are enough for an image to be fetched, registered, told of and removed', async () => {
    const kubeconfig = await accounts.make('narrow');
    await accounts.grant('narrow', IN_CLUSTER);
    await accounts.grant('narrow', IN_NAMESPACES, 'images');
    await accounts.grant('narrow', [rule('', ['secrets', 'configmaps'], ['get', 'list', 'watch'])], 'imageproxy');
    await accounts.grant('narrow', IN_DEFAULT, 'default');
    const disk = ext4('narrow');
    origin.route('/narrow', { body: disk.bytes });
    await cluster.apply(directorySite('shelf', cluster.shelf));
    const image = vmimage('narrow', {
      source: { http: { urls: [`${origin.url}/narrow`] } },
      checksums: { sha256: disk.sha256 },
      sites: [{ name: 'shelf' }],
    });
    await cluster.apply({ ...image, metadata: { ...image.metadata, namespace: 'images' } });
    // Not ours to look at: it stays as nobody has seen it.
    await cluster.apply(image);
    await cluster.start({ kubeconfig, namespaces: ['images'] });
    const key = { namespace: 'images', name: 'narrow' };
    await eventually('the image is Ready', async () => {
      const seen = await cluster.get<VMImage>('VMImage', key);
      if (seen.status.phase !== 'Ready') throw new Error(JSON.stringify(seen.status));
      expectKstatus(seen);
    });
    await cluster.delete('VMImage', key);
    await cluster.gone('VMImage', key);
    const id = randomUUID();
    const listed = {
      id,
      title: 'narrow',
      url: `${origin.url}/narrow`,
      bytes: disk.bytes,
      more: { 'hv:format': 'raw' },
    };
    const list = hepixList({ id: randomUUID(), version: '1', images: [listed] });
    origin.route('/image.list', { body: Buffer.from(list) });
    const subscription = { namespace: 'images', name: 'list' };
    await cluster.apply({
      kind: 'ImageSubscription',
      metadata: subscription,
      spec: {
        url: `${origin.url}/image.list`,
        format: 'HEPiX',
        trust: { unsigned: {} },
        deletionPolicy: 'Delete',
        template: { spec: { sites: [{ name: 'shelf' }] } },
      },
    });
    await eventually('the image of the list is Ready', async () => {
      const seen = await cluster.get<VMImage>('VMImage', { namespace: 'images', name: `list-${id}` });
      if (seen.status.phase !== 'Ready') throw new Error(JSON.stringify(seen.status));
      expectKstatus(seen);
    });
    await cluster.delete('ImageSubscription', subscription);
    await cluster.gone('ImageSubscription', subscription);
    expect((await cluster.image('narrow')).status).toEqual({ observedGeneration: -1 });
    await cluster.stop();
    // Nothing was forbidden on the way, events included.
    expect(cluster.lines.filter((line) => line.includes('orbidden'))).toEqual([]);
  });

  test('a missing right is told at the start, by verb and resource', async () => {
    const kubeconfig = await accounts.make('blind');
    await accounts.grant('blind', IN_CLUSTER);
    await accounts.grant('blind', IN_NAMESPACES.slice(1), 'images');
    // All kinds are listed side by side, and the first that is refused is told.
    await accounts.grant('blind', [rule('', ['secrets', 'configmaps'], ['get', 'list', 'watch'])], 'imageproxy');
    await expect(cluster.start({ kubeconfig, namespaces: ['images'] })).rejects.toMatchObject({
      reason: 'Forbidden',
      message: expect.stringMatching(/cannot list resource "(vmimages|imagesubscriptions)".*namespace "images".*Role/),
    });
  });

  test('without the right to read the identity of the cluster, it says how to do without', async () => {
    const kubeconfig = await accounts.make('stranger');
    await expect(cluster.start({ kubeconfig })).rejects.toMatchObject({
      reason: 'Forbidden',
      message: expect.stringContaining('--instance'),
    });
  });
});
