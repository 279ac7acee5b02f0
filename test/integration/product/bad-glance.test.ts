import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { kstatus } from '../../../src/api/conditions.ts';
import { REASONS, type Reason } from '../../../src/api/failure.ts';
import type { VMImage } from '../../../src/api/types.ts';
import { type Disk, ext4, qcow2 } from '../../support/disks.ts';
import { condition, House, isTrue, openstackSite, vmimage } from '../../support/house.ts';
import { type Image, type OpenStack, openstackAvailable, startOpenStack } from '../../support/openstack.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';
import { type Fault, type FaultProxy, startFaultProxy } from '../../support/proxy.ts';

/** A real Glance that fails, refuses, dies, and is changed behind our back: what users see, and that nothing is lost or left behind. */

const PASSWORD = 'demo-password';
const STALLING = ['InvalidSpec', 'VerificationFailed', 'UnsafeImage', 'Unauthorized'];

describe.skipIf(!openstackAvailable())('a Glance', () => {
  let openstack: OpenStack;
  let origin: Origin;
  let proxy: FaultProxy;
  let house: House;
  let disk: Disk;

  beforeAll(async () => {
    [openstack, origin] = await Promise.all([startOpenStack(), startOrigin()]);
    proxy = await startFaultProxy(openstack.glanceUrl);
    disk = qcow2('bad-glance');
    origin.route('/disk.qcow2', { body: disk.bytes, etag: '"d"' });
    house = new House();
    await house.write(
      'site.yaml',
      ...openstackSite('nova', await openstack.clouds('demo', { imageEndpoint: proxy.url }), 'demo'),
    );
    await house.start();
    await house.untilSite('nova', (site) => isTrue(site, 'Ready'));
  });

  afterAll(async () => {
    await house?.close();
    await proxy?.stop();
    await Promise.all([openstack?.stop(), origin?.close()]);
  });

  afterEach(() => proxy.clear());

  const write = (name: string, site = 'nova') =>
    house.write(
      `${name}.yaml`,
      vmimage(name, {
        source: { http: { urls: [`${origin.url}/disk.qcow2`] } },
        checksums: { sha256: disk.sha256 },
        registration: { name: `The ${name}`, properties: { colour: 'blue' } },
        sites: [{ name: site }],
      }),
    );
  /** All of a VMImage in the cloud, hidden ones too, past the proxy. */
  const records = async (image: VMImage | undefined): Promise<Image[]> => {
    const lists = await Promise.all(
      ['true', 'false'].map((hidden) =>
        openstack.image('demo', 'GET', `/images?os_hidden=${hidden}&imageproxy_guid=${image?.status.guid}`),
      ),
    );
    return lists.flatMap((list) => (list.body as { images: Image[] }).images);
  };
  /** Exactly one image, proven, published, and the one that the status names; then none. */
  async function endsWell(name: string): Promise<VMImage> {
    const image = await house.ready(name);
    expect(await records(image)).toMatchObject([
      {
        id: image.status.sites?.[0]?.imageID,
        name: `The ${name}`,
        status: 'active',
        os_hidden: false,
        os_hash_value: disk.sha512,
        colour: 'blue',
      },
    ]);
    await house.remove(`${name}.yaml`, name);
    expect(await records(image)).toEqual([]);
    expect(house.lines.join('')).not.toContain(PASSWORD);
    return image;
  }

  interface Row {
    what: string;
    fault: Fault;
    reason: Reason;
    says: RegExp;
    /** Records of the image that are still in the cloud then: an empty one is kept for the next try, for its id is lost when it is deleted. */
    left: number;
  }
  const put = { method: 'PUT', path: /\/file$/ };
  const post = { method: 'POST', path: /\/v2\/images$/ };
  const html = (title: string) =>
    `<html><head><title>${title}</title></head><body><h1>${title}</h1>said ${title}<br/></body></html>`;
  const rows: Row[] = [
    {
      what: '401 to every upload',
      fault: { ...put, times: Infinity, answer: { status: 401 } },
      reason: 'Unauthorized',
      says: /did not take the bytes.*401.*check the credentials/,
      left: 1,
    },
    {
      what: '403 when the record is made',
      fault: { ...post, answer: { status: 403, body: html('403 Forbidden') } },
      reason: 'Forbidden',
      says: /could not make the image: HTTP 403: said 403 Forbidden.*ask the cloud's admin/,
      left: 0,
    },
    {
      what: '403 to the upload',
      fault: { ...put, answer: { status: 403 } },
      reason: 'Forbidden',
      says: /did not take the bytes.*403/,
      left: 0,
    },
    {
      what: '400 when the record is made',
      fault: { ...post, answer: { status: 400, body: html('400 Bad Request') } },
      reason: 'Rejected',
      says: /HTTP 400: said 400/,
      left: 0,
    },
    {
      what: '409 to the upload',
      fault: { ...put, answer: { status: 409 } },
      reason: 'Conflict',
      says: /another upload to image/,
      left: 1,
    },
    {
      what: '413 to the upload',
      fault: {
        ...put,
        answer: { status: 413, body: 'Denying attempt to upload image because it exceeds the quota: 8' },
      },
      reason: 'QuotaExceeded',
      says: /exceeds the quota.*more quota/,
      left: 1,
    },
    {
      what: '413 for its size',
      fault: { ...put, answer: { status: 413, body: 'The provided image is too large.' } },
      reason: 'TooLarge',
      says: /larger than this cloud allows/,
      left: 0,
    },
    {
      what: '500 when the record is made',
      fault: { ...post, answer: { status: 500 } },
      reason: 'ServerError',
      says: /could not make the image: HTTP 500/,
      left: 0,
    },
    {
      what: '500 to the upload',
      fault: { ...put, answer: { status: 500 } },
      reason: 'ServerError',
      says: /did not take the bytes.*HTTP 500/,
      left: 1,
    },
    {
      what: '500 when it is published',
      fault: { method: 'PATCH', answer: { status: 500 } },
      reason: 'ServerError',
      says: /could not change image/,
      left: 1,
    },
    {
      what: '429 when the record is made',
      fault: { ...post, answer: { status: 429, headers: { 'retry-after': '300' } } },
      reason: 'TooManyRequests',
      says: /429/,
      left: 0,
    },
    {
      what: '503 with a Retry-After',
      fault: { ...put, answer: { status: 503, headers: { 'retry-after': '300' } } },
      reason: 'ServerError',
      says: /503/,
      left: 1,
    },
    {
      what: 'a page instead of JSON',
      fault: { ...post, answer: { status: 201, body: html('Log in') } },
      reason: 'ServerError',
      says: /not JSON/,
      left: 0,
    },
    {
      what: 'an upload that is cut',
      fault: { ...put, cutAfterBytes: 100_000 },
      reason: 'UploadCut',
      says: /without an answer/,
      left: 1,
    },
  ];

  test.each(rows)('that answers $what: $reason', async ({ what, fault, reason, says, left }) => {
    const name = what.toLowerCase().replaceAll(/[^a-z0-9]+/g, '-');
    proxy.fault(fault);
    const began = Date.now();
    // The next try comes by itself, and soon: it waits at the proxy until the test has seen what this one has left.
    const seen = Promise.withResolvers<void>();
    const told = house
      .until(name, (now) => condition(now, 'Ready')?.reason === reason, reason)
      .then((image) => {
        proxy.fault({ times: Infinity, wait: () => seen.promise });
        return image;
      });
    const [image] = await Promise.all([told, write(name)]);
    expect(condition(image, 'Ready')?.message).toMatch(says);
    // Whether the account is locked out the site's probe tells; the image waits.
    const stalled = STALLING.includes(REASONS[reason]) && reason !== 'Unauthorized';
    expect(kstatus(image).status).toBe(stalled ? 'Failed' : 'InProgress');
    const row = image.status.sites?.[0];
    expect(row).toMatchObject({ phase: stalled ? 'Failed' : 'Pending', reason });
    expect(row?.attempts).toBe(REASONS[reason] === 'Waiting' ? undefined : 1);
    expect(row?.imageID).toBeUndefined();
    if (fault.answer?.headers?.['retry-after'] !== undefined)
      expect(Date.parse(row?.nextAttemptTime ?? '')).toBeGreaterThanOrEqual(began + 299_000);
    const there = await records(image);
    expect(there.length).toBe(left);
    for (const record of there) if (record.status === 'active') expect(record.os_hidden).toBe(true);
    expect(origin.requests.filter(({ path }) => path === '/disk.qcow2').length).toBe(1);

    proxy.clear();
    seen.resolve();
    await house.ask(name, 'cured');
    await endsWell(name);
  });

  test('that refuses a token once is asked again with a new one', async () => {
    proxy.fault({ ...put, answer: { status: 401 } });
    proxy.fault({ ...post, answer: { status: 401 } });
    await write('renewed');
    const image = await endsWell('renewed');
    expect(image.status.sites?.[0]?.attempts).toBeUndefined();
    const tokens = proxy.seen
      .filter(({ method, path }) => method === 'PUT' && path.endsWith('/file'))
      .map(({ headers }) => headers['x-auth-token']);
    expect(new Set(tokens).size).toBe(2);
  });

  test('that refuses two tokens in a row, and then takes one, is asked again by itself', async () => {
    // As when the second was made in the moment in which the first was revoked.
    proxy.fault({ ...post, times: 2, answer: { status: 401 } });
    const [refused] = await Promise.all([
      house.until('revoked', (now) => now.status.sites?.[0]?.attempts === 1),
      write('revoked'),
    ]);
    expect(refused.status.sites?.[0]).toMatchObject({ phase: 'Pending', reason: 'Unauthorized' });
    await endsWell('revoked');
  });

  test('that refuses every token is told on the site; its images wait for it, and go on by themselves when it takes them again', async () => {
    proxy.fault({ times: Infinity, answer: { status: 401 } });
    await write('locked-out');
    await house.untilSite('nova', (site) => condition(site, 'Ready')?.reason === 'Unauthorized');
    proxy.clear();
    await house.store.annotate('ImageSite', { name: 'nova' }, { 'imageproxy.dev/requestedAt': 'unlocked' });
    await house.untilSite('nova', (site) => isTrue(site, 'Ready') && site.status.lastHandledReconcileAt === 'unlocked');
    await endsWell('locked-out');
  });

  /** The attempts that the image's row has named, in their order. */
  function attemptsOf(name: string): { end(): number[] } {
    const seen = new Set<number>();
    const stop = house.store.subscribe('VMImage', () => {
      const attempt = house.row(name, 'nova')?.operation?.attempt;
      if (attempt !== undefined) seen.add(attempt);
    });
    return {
      end: () => {
        stop();
        return [...seen];
      },
    };
  }

  test('whose ids are taken is given others, each by an attempt that follows from the one before', async () => {
    proxy.fault({ ...post, times: 2, answer: { status: 409 } });
    const attempts = attemptsOf('taken');
    await write('taken');
    await endsWell('taken');
    const [first, second = 0, third = 0, ...more] = attempts.end();
    expect([first, Math.floor(second / 2), Math.floor(third / 2), more]).toEqual([1, 1, second, []]);
  });

  test.each([
    ['before the upload begins', { ...put }],
    ['before it is published', { method: 'PATCH' }],
  ])('whose record is deleted behind our back %s ends with one image all the same', async (when, fault) => {
    const name = `deleted-${when.replaceAll(/\W+/g, '-')}`;
    proxy.fault({
      ...fault,
      wait: async () => {
        for (const { id } of await records(house.image(name))) await openstack.image('demo', 'DELETE', `/images/${id}`);
      },
    });
    await write(name);
    await house.until(name, (now) => isTrue(now, 'Ready') || now.status.sites?.[0]?.attempts !== undefined);
    expect(condition(house.image(name) as VMImage, 'Stalled')).toBeUndefined();
    await house.ask(name, 'again');
    await endsWell(name);
  });

  test('whose record is changed behind our back before the upload publishes it as the spec says', async () => {
    proxy.fault({
      ...put,
      wait: async () => {
        for (const { id } of await records(house.image('changed'))) {
          await openstack.image('demo', 'PATCH', `/images/${id}`, [
            { op: 'replace', path: '/name', value: 'theirs' },
            { op: 'replace', path: '/colour', value: 'red' },
            { op: 'replace', path: '/os_hidden', value: false },
          ]);
        }
      },
    });
    await write('changed');
    await endsWell('changed');
  });

  test('that is down waits for it, and goes on when it is back', async () => {
    await openstack.killGlance();
    await write('down');
    const image = await house.until('down', (now) =>
      ['NetworkError', 'SiteNotReady'].includes(now.status.sites?.[0]?.reason ?? ''),
    );
    expect(kstatus(image).status).toBe('InProgress');
    const site = await house.untilSite('nova', (now) => condition(now, 'Ready')?.status === 'False');
    expect(condition(site, 'Ready')).toMatchObject({ reason: 'NetworkError' });
    expect(condition(site, 'Ready')?.message).toContain(proxy.url);
    await openstack.startGlance();
    await endsWell('down');
  });

  test('that is killed in the middle of an upload leaves `saving`, which is removed; the next attempt has another id, and one image is there', async () => {
    let half: Image | undefined;
    const attempts = attemptsOf('killed');
    proxy.fault({
      ...put,
      cutAfterBytes: 200_000,
      beforeCut: async () => {
        await expect.poll(async () => (half = (await records(house.image('killed')))[0])?.status).toBe('saving');
        await openstack.killGlance();
      },
    });
    await write('killed');
    await house.untilSite('nova', (now) => condition(now, 'Ready')?.reason === 'NetworkError');
    await openstack.startGlance();
    const image = await endsWell('killed');
    expect(half?.id).not.toBe(image.status.sites?.[0]?.imageID);
    expect((await openstack.image('demo', 'GET', `/images/${half?.id}`)).status).toBe(404);
    const [first, second = 0, ...more] = attempts.end();
    expect([first, Math.floor(second / 2), more]).toEqual([1, 1, []]);
  });

  describe('whose account is not right', () => {
    interface Account {
      what: string;
      /** The Secret's text; undefined for no Secret at all. */
      clouds: (right: string) => string | undefined;
      cloud?: string;
      region?: string;
      reason: Reason;
      says: RegExp;
    }
    const accounts: Account[] = [
      {
        what: 'a wrong password',
        clouds: (right) => right.replace(PASSWORD, 'hunter2'),
        reason: 'Unauthorized',
        says: /Keystone at .* gives no token for cloud demo.*401.*check the credentials/,
      },
      {
        what: 'a missing Secret',
        clouds: () => undefined,
        reason: 'SecretNotFound',
        says: /spec\.openstack\.secretRef: there is no Secret imageproxy\/account.*; create it/,
      },
      {
        what: 'a clouds.yaml that is no YAML',
        clouds: (right) => `${right}  - : "`,
        reason: 'InvalidSecret',
        says: /clouds\.yaml is not valid YAML \(line \d+\)/,
      },
      { what: 'a wrong cloud', clouds: (right) => right, cloud: 'prod', reason: 'InvalidSecret', says: /prod.*demo/ },
      {
        what: 'a region that is not in the catalog',
        clouds: (right) => right.replace(/ +image_endpoint_override.*\n/, ''),
        region: 'Mars',
        reason: 'SiteNotReady',
        says: /no image service at "Mars public"; it has: RegionOne/,
      },
      {
        what: 'an endpoint where nothing listens',
        clouds: (right) => right.replace(/auth_url: .*/, 'auth_url: http://127.0.0.1:1/v3'),
        reason: 'NetworkError',
        says: /http:\/\/127\.0\.0\.1:1 cannot be reached \(ECONNREFUSED\)/,
      },
    ];

    test.each(accounts)(
      '$what is told on the ImageSite; the image waits, and goes on when it is right',
      async (account) => {
        const name = account.what.toLowerCase().replaceAll(/[^a-z0-9]+/g, '-');
        const secretName = `account-${name}`;
        const right = await openstack.clouds('demo', { imageEndpoint: proxy.url });
        const manifests = (clouds: string | undefined, cloud: string, region: string) => {
          const [secret, site] = openstackSite(name, clouds ?? '', cloud);
          if (secret === undefined || site === undefined) throw new Error('no site');
          secret.metadata.name = secretName;
          site.spec = { openstack: { secretRef: { name: secretName }, cloud, region } };
          return clouds === undefined ? [site] : [secret, site];
        };
        await house.write(
          `${name}-site.yaml`,
          ...manifests(account.clouds(right), account.cloud ?? 'demo', account.region ?? 'RegionOne'),
        );
        await write(name, name);
        const site = await house.untilSite(name, (now) => condition(now, 'Ready')?.reason === account.reason);
        expect(condition(site, 'Ready')?.message).toMatch(account.says);
        const image = await house.until(name, (now) => condition(now, 'Ready')?.reason === 'SiteNotReady');
        expect(kstatus(image).status).toBe('InProgress');
        expect(image.status.sites?.[0]).toMatchObject({ phase: 'Pending', reason: 'SiteNotReady' });
        expect(image.status.sites?.[0]?.message).toContain(`ImageSite ${name} is not ready`);
        expect(house.lines.join('') + JSON.stringify([site, image])).not.toContain('hunter2');
        const replaced = account.cloud !== undefined || account.region !== undefined;
        if (replaced) {
          // Cloud and region are a site's identity and cannot be edited: another site takes its place.
          await house.remove(`${name}.yaml`, name);
          return;
        }
        await house.write(`${name}-site.yaml`, ...manifests(right, 'demo', 'RegionOne'));
        await endsWell(name);
      },
    );
  });
});

describe.skipIf(!openstackAvailable())('a project that has used up its quota', () => {
  test('is QuotaExceeded with the cure, waits, and goes on when there is room', async () => {
    const [openstack, origin] = await Promise.all([startOpenStack({ userQuota: '8MB' }), startOrigin()]);
    const house = new House();
    try {
      await house.write('site.yaml', ...openstackSite('nova', await openstack.clouds('demo'), 'demo'));
      await house.start();
      const names = ['first', 'second'] as const;
      const write = async (name: string) => {
        const disk = ext4(name, 6);
        origin.route(`/${name}.raw`, { body: disk.bytes, etag: `"${name}"` });
        await house.write(
          `${name}.yaml`,
          vmimage(name, {
            source: { http: { urls: [`${origin.url}/${name}.raw`] } },
            checksums: { sha256: disk.sha256 },
            sites: [{ name: 'nova' }],
          }),
        );
      };
      await write(names[0]);
      await house.ready(names[0]);
      await write(names[1]);
      const image = await house.until(names[1], (now) => condition(now, 'Ready')?.reason === 'QuotaExceeded');
      expect(condition(image, 'Ready')?.message).toMatch(
        /quota.*remove images of the project or ask the cloud's admin for more quota/s,
      );
      expect(kstatus(image).status).toBe('InProgress');
      const list = async () =>
        ((await openstack.image('demo', 'GET', '/images?os_hidden=true')).body as { images: Image[] }).images;
      expect((await list()).filter(({ status }) => status !== 'queued')).toEqual([]);
      await house.remove('first.yaml', names[0]);
      await house.ask(names[1], 'room');
      await house.ready(names[1]);
      expect(await list()).toEqual([]);
    } finally {
      await house.close();
      await Promise.all([openstack.stop(), origin.close()]);
    }
  });
});
