import { mkdirSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { findCondition } from '../../../src/api/conditions.ts';
import type { Condition, ImageSite, VMImage } from '../../../src/api/types.ts';
import { API_SERVER_PATIENCE_MS, eventually } from '../../support/apiserver.ts';
import { type Disk, ext4, qcow2 } from '../../support/disks.ts';
import { directorySite, type Manifest, openstackSite, vmimage } from '../../support/house.ts';
import { expectKstatus } from '../../support/kstatus.ts';
import { type OpenStack, openstackAvailable, startOpenStack } from '../../support/openstack.ts';
import type { Origin, Route } from '../../support/origin.ts';
import { type FaultProxy, startFaultProxy } from '../../support/proxy.ts';
import { type Bench, type Cluster, openBench } from './cluster.ts';

const MiB = 2 ** 20;
const inDefault = (name: string) => ({ namespace: 'default', name });

/** What users are promised of lives that cross each other, on a real API server. */
describe('on a real API server', () => {
  let bench: Bench;
  let origin: Origin;
  let cluster: Cluster;

  beforeAll(async () => {
    bench = await openBench();
    ({ origin, cluster } = bench);
    await cluster.start();
  }, API_SERVER_PATIENCE_MS);
  afterAll(async () => {
    await bench?.close();
  });

  const image = (name: string, disk: Disk, more: Record<string, unknown> = {}): Manifest =>
    vmimage(name, {
      source: { http: { urls: [`${origin.url}/${name}`] } },
      checksums: { sha256: disk.sha256 },
      sites: [{ name: 'shelf' }],
      ...more,
    });
  const disksAt = (folder: string) => readdirSync(folder).filter((name) => name.endsWith('.raw'));
  const conditionOf = ({ status }: { status: { conditions?: Condition[] } }, type: string) =>
    findCondition(status.conditions, type);
  const told = async (name: string, reason: string): Promise<VMImage> => {
    const seen = await cluster.until(name, (now) => conditionOf(now, 'Ready')?.reason === reason, reason);
    expectKstatus(seen);
    return seen;
  };
  const siteTold = (name: string, type: string, reason: string): Promise<ImageSite> =>
    eventually(`${name} has ${type} for ${reason}`, async () => {
      const site = await cluster.site(name);
      if (conditionOf(site, type)?.reason !== reason) throw new Error(JSON.stringify(site.status, undefined, 1));
      return site;
    });
  const bodies = (name: string) =>
    origin.requests.filter(({ method, path }) => method === 'GET' && path === `/${name}`).length;

  test('an ImageSite that is deleted with images on it stays until the last has gone, and says which', async () => {
    const disk = ext4('guarded');
    origin.route('/guarded', { body: disk.bytes });
    const folder = `${cluster.shelf}-guarded`;
    mkdirSync(folder);
    await cluster.apply(directorySite('guarded', folder), image('guarded', disk, { sites: [{ name: 'guarded' }] }));
    const { status } = await cluster.ready('guarded');
    await cluster.delete('ImageSite', { name: 'guarded' });
    const held = await siteTold('guarded', 'DeletionHeld', 'InUse');
    expect(held.metadata.deletionTimestamp).toBeDefined();
    expect(conditionOf(held, 'DeletionHeld')?.message).toContain('default/guarded');
    expect(disksAt(folder)).toEqual([`${status.sites?.[0]?.imageID}.raw`]);
    await cluster.delete('VMImage', inDefault('guarded'));
    await cluster.gone('VMImage', inDefault('guarded'));
    await cluster.gone('ImageSite', { name: 'guarded' });
    expect(disksAt(folder)).toEqual([]);
  });

  test('a site takes no image of a namespace that it does not admit, and takes it once it does', async () => {
    const disk = ext4('elsewhere');
    origin.route('/elsewhere', { body: disk.bytes });
    const folder = `${cluster.shelf}-closed`;
    mkdirSync(folder);
    await cluster.apply(directorySite('closed', folder, { allowedNamespaces: ['team-*'] }));
    await cluster.apply(image('elsewhere', disk, { sites: [{ name: 'closed' }] }));
    const refused = await told('elsewhere', 'NamespaceNotAllowed');
    expect(conditionOf(refused, 'Ready')?.message).toMatch(/closed takes no images of namespace default.*team-\*/);
    expect(disksAt(folder)).toEqual([]);
    await cluster.apply(directorySite('closed', folder, { allowedNamespaces: ['team-*', 'default'] }));
    await cluster.ready('elsewhere');
    expect(disksAt(folder)).toHaveLength(1);
  });

  test('a VMImage that is renamed by making the new one and deleting the old hands its registration over: the same id, the same bytes', async () => {
    const disk = ext4('handed');
    origin.route('/handed', { body: disk.bytes });
    const guid = '5d4f7f1c-6c0a-4f57-9d4b-1d0c3a3a0d11';
    const spec = { source: { http: { urls: [`${origin.url}/handed`] } }, guid };
    await cluster.apply(image('old-name', disk, spec));
    const before = (await cluster.ready('old-name')).status.sites?.[0]?.imageID;
    const file = join(cluster.shelf, `${before}.raw`);
    const { ino } = statSync(file);
    // The older is told by the second in which it was made.
    await eventually('a second has passed', async () => {
      const { metadata } = await cluster.image('old-name');
      if (Date.now() - Date.parse(metadata.creationTimestamp) < 2000) throw new Error('not yet');
    });
    await cluster.apply(image('new-name', disk, spec));
    expect(conditionOf(await told('new-name', 'GuidInUse'), 'Stalled')?.message).toContain('old-name');
    await cluster.delete('VMImage', inDefault('old-name'));
    await cluster.gone('VMImage', inDefault('old-name'));
    const after = await cluster.ready('new-name');
    expect(after.status.sites?.[0]?.imageID).toBe(before);
    expect(statSync(file).ino).toBe(ino);
    expect(bodies('handed')).toBe(1);
  });

  test('deleted while it is being downloaded, it goes at once, and nothing of it is registered', async () => {
    const disk = ext4('unwanted', 8);
    const goOn = Promise.withResolvers<void>();
    onTestFinished(() => goOn.resolve());
    origin.route('/unwanted', { body: disk.bytes, holdAfter: { bytes: 2 * MiB, until: goOn.promise } });
    const before = disksAt(cluster.shelf);
    await cluster.apply(image('unwanted', disk));
    await cluster.until('unwanted', ({ status }) => (status.progress?.bytes ?? 0) >= MiB, 'being downloaded');
    await cluster.delete('VMImage', inDefault('unwanted'));
    await cluster.gone('VMImage', inDefault('unwanted'));
    expect(disksAt(cluster.shelf)).toEqual(before);
  });

  test('progress is written at most once a second', async () => {
    const disk = ext4('slow', 8);
    // For as long as it takes until two steps have been shown.
    const slow: Route = { body: disk.bytes, bytesPerSecond: MiB / 4 };
    origin.route('/slow', slow);
    const shown: number[] = [];
    const end = cluster.store.subscribe<VMImage>('VMImage', ({ object: { metadata, status }, previous }) => {
      const { bytes } = status.progress ?? {};
      const moved = bytes !== undefined && bytes !== previous?.status.progress?.bytes;
      if (metadata.name === 'slow' && moved && previous?.status.phase === status.phase) shown.push(Date.now());
      if (shown.length > 1) delete slow.bytesPerSecond;
    });
    const began = Date.now();
    await cluster.apply(image('slow', disk));
    await cluster.ready('slow');
    end();
    expect(shown.length).toBeGreaterThan(1);
    // At the beginning and at the end it comes with what else is told there.
    expect(shown.length).toBeLessThanOrEqual(Math.ceil((Date.now() - began) / 1000) + 2);
  });

  describe.skipIf(!openstackAvailable())('with a real Glance', () => {
    let openstack: OpenStack;
    let glance: FaultProxy;
    let secret: Manifest;

    beforeAll(async () => {
      openstack = await startOpenStack();
      glance = await startFaultProxy(openstack.glanceUrl);
      const clouds = await openstack.clouds('demo', { imageEndpoint: glance.url });
      const [first, site] = openstackSite('nova', clouds, 'demo', { drift: { interval: '24h' } });
      if (first === undefined || site === undefined) throw new Error('no site');
      secret = first;
      await cluster.apply(secret, site);
    });
    afterAll(async () => {
      await glance?.stop();
      await openstack?.stop();
    });

    const inGlance = async ({ status }: VMImage): Promise<{ id: string; status: string }[]> => {
      const path = (hidden: boolean) => `/images?os_hidden=${hidden}&imageproxy_guid=${status.guid}`;
      const answers = await Promise.all([false, true].map((each) => openstack.image('demo', 'GET', path(each))));
      return answers.flatMap(({ body }) => (body as { images: { id: string; status: string }[] }).images);
    };

    test('a start looks at no registration before its time: ten thousand would be looked at together', async () => {
      const [kept, marker] = [qcow2('kept'), qcow2('after-the-start')];
      origin.route('/kept', { body: kept.bytes });
      origin.route('/after-the-start', { body: marker.bytes });
      await cluster.apply(image('kept', kept, { sites: [{ name: 'nova' }] }));
      const before = await cluster.ready('kept');
      await cluster.stop();
      const seen = glance.seen.length;
      await cluster.start();
      await cluster.apply(image('after-the-start', marker, { sites: [{ name: 'nova' }] }));
      await cluster.ready('after-the-start');
      const looks = glance.seen.slice(seen).filter(({ path }) => path.includes(`${before.status.sites?.[0]?.imageID}`));
      expect(looks).toEqual([]);
    });

    test('edited while it is being uploaded: that upload ends, and only what is wanted now is registered', async () => {
      const [one, two] = [qcow2('edited-one'), qcow2('edited-two')];
      origin.route('/edited', { body: one.bytes });
      origin.route('/edited-two', { body: two.bytes });
      const reached = Promise.withResolvers<void>();
      glance.fault({
        method: 'PUT',
        path: /\/file$/,
        wait: () => {
          reached.resolve();
          return new Promise(() => undefined);
        },
      });
      await cluster.apply(image('edited', one, { sites: [{ name: 'nova' }] }));
      await reached.promise;
      await cluster.apply(
        image('edited', two, { sites: [{ name: 'nova' }], source: { http: { urls: [`${origin.url}/edited-two`] } } }),
      );
      const ready = await cluster.ready('edited');
      expect(ready.status.sites?.[0]?.digest).toContain(two.sha256);
      expect(await inGlance(ready)).toMatchObject([{ id: ready.status.sites?.[0]?.imageID, status: 'active' }]);
    });

    test('a Secret that vanished holds clean-up, with a condition that says so, until it is back', async () => {
      const disk = qcow2('held');
      origin.route('/held', { body: disk.bytes });
      await cluster.apply(image('held', disk, { sites: [{ name: 'nova' }] }));
      const ready = await cluster.ready('held');
      await cluster.delete('Secret', { namespace: 'imageproxy', name: 'nova' });
      expectKstatus(await siteTold('nova', 'Ready', 'SecretNotFound'));
      await cluster.delete('VMImage', inDefault('held'));
      const held = await cluster.until('held', (now) => conditionOf(now, 'Ready')?.reason === 'DeletionHeld', 'held');
      expect(conditionOf(held, 'Ready')?.message).toMatch(/nova.*imageproxy\/nova.*deletionPolicy.*abandoned/);
      expect(await inGlance(ready)).toMatchObject([{ status: 'active' }]);
      await cluster.apply(secret);
      await cluster.gone('VMImage', inDefault('held'));
      expect(await inGlance(ready)).toEqual([]);
    });
  });
});
