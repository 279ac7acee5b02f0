import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { condition, House, isTrue, openstackSite, vmimage } from '../../support/house.ts';
import { type OpenStack, openstackAvailable, startOpenStack } from '../../support/openstack.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';

/** `--allow-network` admits all of loopback here, where Keystone, Glance and the origin are. */
describe.skipIf(!openstackAvailable())('the APIs of a site', () => {
  let openstack: OpenStack;
  let origin: Origin;
  let house: House;

  beforeAll(async () => {
    [openstack, origin] = await Promise.all([startOpenStack(), startOrigin()]);
    house = new House();
    await house.write('site.yaml', ...openstackSite('nova', await openstack.clouds('demo'), 'demo'));
    await house.start();
    await house.untilSite('nova', (site) => isTrue(site, 'Ready'), 'Ready');
  });

  afterAll(async () => {
    await house?.close();
    await Promise.all([openstack?.stop(), origin?.close()]);
  });

  const asked = async (name: string, url: string) => {
    await house.write(
      `${name}.yaml`,
      vmimage(name, {
        source: { http: { urls: [url] } },
        checksums: { sha256: '0'.repeat(64) },
        sites: [{ name: 'nova' }],
      }),
    );
    return house.stalled(name);
  };
  const other = (url: string, host: string) => url.replace('127.0.0.1', host);

  test('stand in its status', () => {
    expect(house.site('nova')?.status.cloud?.endpoints).toEqual(
      expect.arrayContaining([openstack.authUrl, openstack.glanceUrl]),
    );
  });

  test.each([
    ['glance', () => `${openstack.glanceUrl}/v2/images`],
    ['keystone', () => `${openstack.authUrl}/auth/catalog`],
    ['by-name', () => `${other(openstack.glanceUrl, 'localhost')}/v2/images`],
    ['loopback', () => `${other(openstack.glanceUrl, '127.0.0.2')}/v2/images`],
    [
      'redirected',
      () => {
        origin.route('/redirect', { status: 302, headers: { location: `${openstack.glanceUrl}/versions` } });
        return `${origin.url}/redirect`;
      },
    ],
  ])('are closed to the URL of an image, though its network is admitted: %s', async (name, url) => {
    const image = await asked(name, url());
    expect(condition(image, 'Stalled')).toMatchObject({
      reason: 'AddressForbidden',
      message: expect.stringContaining("the sites' own APIs stay closed"),
    });
  });

  test('stay closed after a restart while the site cannot be reached', async () => {
    await house.stop();
    await house.write(
      'site.yaml',
      ...openstackSite('nova', (await openstack.clouds('demo')).replaceAll('demo-password', 'wrong'), 'demo'),
    );
    await house.start();
    await house.untilSite('nova', (site) => isTrue(site, 'Stalled'), 'Stalled');
    await house.write('shelf.yaml', {
      kind: 'ImageSite',
      metadata: { name: 'shelf' },
      spec: { directory: { path: house.shelf } },
    });
    await house.write(
      'later.yaml',
      vmimage('later', {
        source: { http: { urls: [`${openstack.glanceUrl}/v2/images`] } },
        checksums: { sha256: '1'.repeat(64) },
        sites: [{ name: 'shelf' }],
      }),
    );
    expect(condition(await house.stalled('later'), 'Stalled')?.reason).toBe('AddressForbidden');
  });
});
