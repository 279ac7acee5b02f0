import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { VMImage } from '../../../src/api/types.ts';
import { collectionPath, RESOURCES } from '../../../src/stores/kubernetes/resources.ts';
import { API_SERVER_PATIENCE_MS, type ApiServer, eventually } from '../../support/apiserver.ts';
import { ext4, qcow2 } from '../../support/disks.ts';
import { directorySite, type Manifest, openstackSite, vmimage } from '../../support/house.ts';
import { expectKstatus } from '../../support/kstatus.ts';
import { type OpenStack, openstackAvailable, startOpenStack } from '../../support/openstack.ts';
import type { Origin } from '../../support/origin.ts';
import { type Bench, type Cluster, openBench } from './cluster.ts';

interface Table {
  columnDefinitions: { name: string }[];
  rows: { cells: unknown[] }[];
}

interface Events {
  items: { reason: string; note: string; type: string; regarding: { kind: string; name: string; uid: string } }[];
}

describe('the main job on a real API server', () => {
  let bench: Bench;
  let server: ApiServer;
  let origin: Origin;
  let cluster: Cluster;

  beforeAll(async () => {
    bench = await openBench();
    ({ server, origin, cluster } = bench);
    await cluster.start();
  }, API_SERVER_PATIENCE_MS);

  afterAll(async () => {
    await bench?.close();
  });

  const image = (name: string, version: string, sha256: string, site = 'shelf'): Manifest =>
    vmimage(name, {
      source: { http: { urls: [`${origin.url}/${version}`] } },
      checksums: { sha256 },
      sites: [{ name: site }],
    });

  /** What has come before an image has been looked after when that is Ready: keys are handled in the order of their coming. */
  const handled = async (marker: string) => {
    const disk = ext4(marker);
    origin.route(`/${marker}`, { body: disk.bytes });
    await cluster.apply(image(marker, marker, disk.sha256));
    await cluster.ready(marker);
  };

  const table = async (): Promise<Record<string, unknown>[]> => {
    const { columnDefinitions, rows } = await server.request<Table>({
      method: 'GET',
      path: collectionPath(RESOURCES.VMImage, 'default'),
      accept: 'application/json;as=Table;g=meta.k8s.io;v=v1',
    });
    return rows.map(({ cells }) => Object.fromEntries(columnDefinitions.map(({ name }, i) => [name, cells[i]])));
  };

  test('an applied VMImage becomes Ready, its id stands in the status and in what kubectl prints', async () => {
    const disk = ext4('first');
    origin.route('/first', { body: disk.bytes });
    await cluster.apply(image('first', 'first', disk.sha256));
    const ready = await cluster.ready('first');
    expectKstatus(ready);
    const row = ready.status.sites?.[0];
    expect(row).toMatchObject({ name: 'shelf', phase: 'Ready', imageID: expect.any(String) });
    expect(ready.status.summary).toMatchObject({ imageID: row?.imageID, sites: '1/1' });
    expect(ready.metadata.finalizers).toEqual(['imageproxy.dev/registrations']);
    expect((await table()).find(({ Name }) => Name === 'first')).toMatchObject({
      Ready: 'True',
      Phase: 'Ready',
      'Image ID': row?.imageID,
      Sites: '1/1',
    });
    const index = await readFile(join(cluster.shelf, 'index.json'), 'utf8');
    expect(index).toContain(row?.imageID);
    expectKstatus(await cluster.site('shelf'));
  });

  test('tells what it does by events of the object, each once', async () => {
    const { metadata } = await cluster.image('first');
    const events = await eventually('events are there', async () => {
      const { items } = await server.request<Events>({
        method: 'GET',
        path: '/apis/events.k8s.io/v1/namespaces/default/events',
      });
      const own = items.filter(({ regarding }) => regarding.uid === metadata.uid);
      if (!own.some(({ reason }) => reason === 'Registered')) throw new Error(JSON.stringify(own));
      return own;
    });
    const words = events.map(({ reason, note }) => `${reason}: ${note}`);
    expect(words).toEqual([...new Set(words)]);
    expect(events[0]?.regarding).toMatchObject({ kind: 'VMImage', name: 'first' });
  });

  test('asks the API server for nothing to be written once all is done', async () => {
    await cluster.ready('first');
    const before = (await cluster.image('first')).metadata.resourceVersion;
    await cluster.server.request({
      method: 'PATCH',
      path: '/apis/imageproxy.dev/v1beta1/namespaces/default/vmimages/first',
      contentType: 'application/merge-patch+json',
      body: { metadata: { labels: { seen: 'yes' } } },
    });
    const after = await cluster.until('first', ({ metadata }) => metadata.labels?.['seen'] === 'yes', 'labelled');
    expect(Number(after.metadata.resourceVersion)).toBeGreaterThan(Number(before));
    await eventually('the controllers have seen it', async () => {
      const copy = cluster.store.get<VMImage>('VMImage', { namespace: 'default', name: 'first' });
      if (copy?.metadata.labels?.['seen'] !== 'yes') throw new Error('not seen yet');
    });
    await handled('rest-marker');
    expect((await cluster.image('first')).metadata.resourceVersion).toBe(after.metadata.resourceVersion);
  });

  test('a wrong checksum is Stalled, with the reason where kubectl shows it', async () => {
    origin.route('/wrong', { body: ext4('wrong').bytes });
    await cluster.apply(image('wrong', 'wrong', 'ab'.repeat(32)));
    const stalled = await cluster.until(
      'wrong',
      ({ status }) => status.conditions?.some(({ type }) => type === 'Stalled') === true,
      'Stalled',
    );
    expectKstatus(stalled);
    expect(stalled.status.sites?.[0]?.imageID).toBeUndefined();
    expect((await table()).find(({ Name }) => Name === 'wrong')?.['Message']).toContain('sha256');
    await cluster.delete('VMImage', { namespace: 'default', name: 'wrong' });
    await cluster.gone('VMImage', { namespace: 'default', name: 'wrong' });
  });

  test('a new digest replaces the image, and deletion goes through the finalizer', async () => {
    const [one, two] = [ext4('one'), ext4('two')];
    origin.route('/one', { body: one.bytes });
    origin.route('/two', { body: two.bytes });
    await cluster.apply(image('replace', 'one', one.sha256));
    const before = (await cluster.ready('replace')).status.sites?.[0]?.imageID;
    await cluster.apply(image('replace', 'two', two.sha256));
    const ready = await cluster.until(
      'replace',
      ({ metadata, status }) =>
        metadata.generation === 2 && status.observedGeneration === 2 && status.sites?.[0]?.imageID !== before,
      'replaced',
    );
    expect(ready.status.sites?.[0]?.digest).toContain(two.sha256);
    await cluster.delete('VMImage', { namespace: 'default', name: 'replace' });
    await cluster.gone('VMImage', { namespace: 'default', name: 'replace' });
    expect(await readFile(join(cluster.shelf, 'index.json'), 'utf8')).not.toContain(ready.status.guid);
  });

  test('a row goes from the status when its site is left', async () => {
    const disk = ext4('two-sites');
    origin.route('/two-sites', { body: disk.bytes });
    const both = { ...image('leaves', 'two-sites', disk.sha256) };
    await mkdir(`${cluster.shelf}-2`);
    await cluster.apply(directorySite('second', `${cluster.shelf}-2`));
    const spec = both.spec as { sites: { name: string }[] };
    await cluster.apply({ ...both, spec: { ...spec, sites: [{ name: 'shelf' }, { name: 'second' }] } });
    expect((await cluster.ready('leaves')).status.sites?.map(({ name }) => name).toSorted()).toEqual([
      'second',
      'shelf',
    ]);
    await cluster.apply(both);
    const left = await cluster.until('leaves', ({ status }) => status.sites?.length === 1, 'on one site');
    expect(left.status.sites?.[0]?.name).toBe('shelf');
  });

  test('wakes an image that waits for a Secret as soon as it is there', async () => {
    const disk = ext4('secret');
    origin.route('/secret', ({ headers }) =>
      headers.authorization === undefined ? { status: 401 } : { body: disk.bytes },
    );
    const waiting = image('secret', 'secret', disk.sha256);
    const spec = waiting.spec as { source: { http: object } };
    await cluster.apply({
      ...waiting,
      spec: { ...spec, source: { http: { ...spec.source.http, secretRef: { name: 'mirror' } } } },
    });
    await cluster.until(
      'secret',
      ({ status }) => JSON.stringify(status.conditions)?.includes('SecretNotFound') === true,
      'waiting for its Secret',
    );
    await cluster.apply({
      kind: 'Secret',
      metadata: { name: 'mirror', annotations: { 'imageproxy.dev/hosts': '127.0.0.1' } },
      stringData: { username: 'me', password: 'hunter2-very-secret' },
    });
    expectKstatus(await cluster.ready('secret'));
    expect(cluster.lines.join('')).not.toContain('hunter2-very-secret');
  });

  test('goes on where it was when the controllers are started anew: same id, nothing is fetched again', async () => {
    const before = await cluster.ready('first');
    const bodies = () => origin.requests.filter(({ path }) => path === '/first').length;
    const fetched = bodies();
    await cluster.stop();
    await cluster.start();
    await handled('restart-marker');
    const after = await cluster.ready('first');
    expect(after.status.sites?.[0]?.imageID).toBe(before.status.sites?.[0]?.imageID);
    expect(after.metadata.resourceVersion).toBe(before.metadata.resourceVersion);
    expect(bodies()).toBe(fetched);
  });

  describe.skipIf(!openstackAvailable())('with a real Glance', () => {
    let openstack: OpenStack;
    beforeAll(async () => {
      openstack = await startOpenStack();
      const [secret, site] = openstackSite('nova', await openstack.clouds('demo'), 'demo');
      if (secret !== undefined && site !== undefined) await cluster.apply(secret, site);
    });
    afterAll(() => openstack?.stop());

    test('registers, replaces and removes as on a directory of manifests', async () => {
      const [one, two] = [qcow2('glance-one'), qcow2('glance-two')];
      origin.route('/g1', { body: one.bytes });
      origin.route('/g2', { body: two.bytes });
      await cluster.apply(image('glance', 'g1', one.sha256, 'nova'));
      const first = (await cluster.ready('glance')).status.sites?.[0]?.imageID;
      const shown = async (id: string | undefined) =>
        (await openstack.image('demo', 'GET', `/images/${id}`)) as {
          status: number;
          body: { status: string; os_hash_value: string; os_hidden: boolean };
        };
      expect((await shown(first)).body).toMatchObject({ status: 'active', os_hash_value: one.sha512 });
      await cluster.apply(image('glance', 'g2', two.sha256, 'nova'));
      const replaced = await cluster.until(
        'glance',
        ({ status }) =>
          status.sites?.[0]?.imageID !== first && status.sites?.[0]?.previous?.[0]?.retiredAt !== undefined,
        'replaced',
      );
      const second = replaced.status.sites?.[0]?.imageID;
      expect((await shown(second)).body).toMatchObject({ status: 'active', os_hash_value: two.sha512 });
      expect((await shown(first)).body).toMatchObject({ status: 'deactivated', os_hidden: true });
      await cluster.delete('VMImage', { namespace: 'default', name: 'glance' });
      await cluster.gone('VMImage', { namespace: 'default', name: 'glance' });
      for (const id of [first, second]) expect((await shown(id)).status).toBe(404);
    });
  });
});
