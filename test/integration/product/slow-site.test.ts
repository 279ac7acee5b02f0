import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type Disk, qcow2 } from '../../support/disks.ts';
import { directorySite, House, isTrue, openstackSite, vmimage } from '../../support/house.ts';
import { type OpenStack, openstackAvailable, startOpenStack } from '../../support/openstack.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';
import { type FaultProxy, startFaultProxy } from '../../support/proxy.ts';

/** A Glance that takes no bytes until the test says so, beside a directory that takes them at once. */
describe.skipIf(!openstackAvailable())('a site that is slow', () => {
  let openstack: OpenStack;
  let origin: Origin;
  let proxy: FaultProxy;
  let house: House;
  let clouds: string;
  /** Uploads that wait, in the order in which they came; each goes on when it is called. */
  let waiting: (() => void)[];
  /** Uploads that have begun. */
  let begun: number;

  beforeAll(async () => {
    [openstack, origin] = await Promise.all([startOpenStack(), startOrigin()]);
    proxy = await startFaultProxy(openstack.glanceUrl);
    clouds = await openstack.clouds('demo', { imageEndpoint: proxy.url });
  });

  afterAll(async () => {
    await proxy?.stop();
    await Promise.all([openstack?.stop(), origin?.close()]);
  });

  beforeEach(async () => {
    [waiting, begun] = [[], 0];
    proxy.clear();
    proxy.fault({
      method: 'PUT',
      path: /\/file$/,
      times: Infinity,
      wait: () => {
        begun += 1;
        return new Promise((resolve) => waiting.push(resolve));
      },
    });
    house = new House();
    await house.write('nova.yaml', ...openstackSite('nova', clouds, 'demo', { maxParallelUploads: 2 }));
    await house.write('shelf.yaml', directorySite('shelf', house.shelf));
    await house.start();
    for (const site of ['nova', 'shelf']) await house.untilSite(site, (now) => isTrue(now, 'Ready'));
  });

  afterEach(async () => {
    for (const goOn of waiting) goOn();
    await house.close();
  });

  const write = (name: string, ...sites: string[]) => {
    const disk: Disk = qcow2(name);
    origin.route(`/${name}`, { body: disk.bytes });
    const spec = {
      source: { http: { urls: [`${origin.url}/${name}`] } },
      checksums: { sha256: disk.sha256 },
      sites: sites.map((site) => ({ name: site })),
    };
    return house.write(`${name}.yaml`, vmimage(name, spec));
  };
  const isSending = (name: string) => house.row(name, 'nova')?.operation?.kind === 'Register';

  test('delays no other site, neither for the same image nor for another', async () => {
    await write('both', 'nova', 'shelf');
    await expect.poll(() => begun).toBe(1);
    await house.until('both', (now) => now.status.sites?.find(({ name }) => name === 'shelf')?.phase === 'Ready');
    await write('another', 'shelf');
    await house.ready('another');
    expect(house.row('both', 'nova')).toMatchObject({ phase: 'Registering' });
    expect(isTrue(house.image('both') as never, 'Ready')).toBe(false);
    for (const goOn of waiting) goOn();
    await house.ready('both');
    expect(begun).toBe(1);
  });

  test('is sent no more images at a time than its maxParallelUploads; the next begins when one has ended', async () => {
    const names = ['one', 'two', 'three'];
    for (const name of names) await write(name, 'nova');
    await expect.poll(() => names.filter(isSending)).toEqual(names);
    await expect.poll(() => begun).toBe(2);
    // Whatever was to begin by itself has had its time when another image has come all the way.
    await write('meanwhile', 'shelf');
    await house.ready('meanwhile');
    expect(begun).toBe(2);
    expect(proxy.seen.filter(({ method, path }) => method === 'POST' && path.endsWith('/images'))).toHaveLength(2);
    waiting[0]?.();
    await expect.poll(() => begun).toBe(3);
    for (const goOn of waiting) goOn();
    for (const name of names) await house.ready(name);
    expect(begun).toBe(3);
  });
});
