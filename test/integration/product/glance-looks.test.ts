import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { kstatus } from '../../../src/api/conditions.ts';
import type { Reason } from '../../../src/api/failure.ts';
import type { VMImage } from '../../../src/api/types.ts';
import { systemClock } from '../../../src/runtime/clock.ts';
import { type Disk, qcow2 } from '../../support/disks.ts';
import { condition, House, isTrue, openstackSite, vmimage } from '../../support/house.ts';
import { type Image, type OpenStack, openstackAvailable, startOpenStack } from '../../support/openstack.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';
import { type Fault, type FaultProxy, startFaultProxy } from '../../support/proxy.ts';

/**
 * Images that a real Glance holds already, and that are looked at and put right again: what users see when Glance refuses that, is
 * away, or has lost them. It deletes with delay, as many clouds do.
 */

describe.skipIf(!openstackAvailable())('an image that a Glance holds already', () => {
  let openstack: OpenStack;
  let origin: Origin;
  let proxy: FaultProxy;
  let house: House;
  let disk: Disk;
  let other: Disk;
  let minutes = 0;

  beforeAll(async () => {
    [openstack, origin] = await Promise.all([startOpenStack({ glanceExtra: 'delayed_delete = True' }), startOrigin()]);
    proxy = await startFaultProxy(openstack.glanceUrl);
    [disk, other] = [qcow2('looked-at'), qcow2('another')];
    for (const { sha256, bytes } of [disk, other]) origin.route(`/${sha256}.qcow2`, { body: bytes, etag: '"d"' });
    house = new House({ clock: { ...systemClock, now: () => Date.now() + minutes * 60_000 } });
    const clouds = await openstack.clouds('demo', { imageEndpoint: proxy.url });
    await house.write('site.yaml', ...openstackSite('nova', clouds, 'demo'));
    await house.write('mass.yaml', ...openstackSite('mass', clouds, 'demo'));
    await house.start();
    for (const name of ['nova', 'mass']) await house.untilSite(name, (site) => isTrue(site, 'Ready'));
  });

  afterAll(async () => {
    await house?.close();
    await proxy?.stop();
    await Promise.all([openstack?.stop(), origin?.close()]);
  });

  afterEach(() => proxy.clear());

  const write = async (name: string, { sha256 }: Disk, site = 'nova') =>
    await house.write(
      `${name}.yaml`,
      vmimage(name, {
        source: { http: { urls: [`${origin.url}/${sha256}.qcow2`] } },
        checksums: { sha256 },
        registration: { name: `The ${name}`, properties: { colour: 'blue' } },
        sites: [{ name: site }],
      }),
    );
  const serving = async (name: string, site?: string): Promise<string> => {
    await write(name, disk, site);
    return (await house.ready(name)).status.sites?.[0]?.imageID ?? '';
  };
  /** All of an image in the cloud, hidden ones too, past the proxy. */
  const records = async (name: string): Promise<Image[]> => {
    const lists = await Promise.all(
      ['true', 'false'].map((hidden) =>
        openstack.image('demo', 'GET', `/images?os_hidden=${hidden}&imageproxy_guid=${house.image(name)?.status.guid}`),
      ),
    );
    return lists.flatMap((list) => (list.body as { images: Image[] }).images);
  };
  const drift = (id: string) =>
    openstack.image('demo', 'PATCH', `/images/${id}`, [
      { op: 'replace', path: '/name', value: 'theirs' },
      { op: 'replace', path: '/colour', value: 'red' },
    ]);
  /** Time passes, and whatever it makes due is done: the note asks for nothing. */
  const later = async (...names: string[]): Promise<void> => {
    minutes += 7;
    const note = { note: String(minutes) };
    for (const site of ['nova', 'mass']) await house.store.annotate('ImageSite', { name: site }, note);
    for (const name of names) await house.store.annotate('VMImage', { namespace: 'default', name }, note);
  };
  const isWell = (image: VMImage): boolean => {
    const row = image.status.sites?.[0];
    return kstatus(image).status === 'Current' && isTrue(image, 'Ready') && row?.reason === undefined;
  };
  /** One image, the one that the status has named all along, as the spec says. */
  async function endsWell(name: string, id: string): Promise<void> {
    const image = await house.until(name, isWell);
    expect(image.status.sites?.[0]).toMatchObject({ imageID: id });
    expect(image.status.sites?.[0]).not.toHaveProperty('attempts');
    expect(await records(name)).toMatchObject([
      { id, name: `The ${name}`, colour: 'blue', status: 'active', os_hidden: false, os_hash_value: disk.sha512 },
    ]);
    await house.remove(`${name}.yaml`, name);
  }
  const named = (what: string) => what.toLowerCase().replaceAll(/[^a-z0-9]+/g, '-');

  const refusals: { what: string; answer: NonNullable<Fault['answer']>; reason: Reason; says: RegExp }[] = [
    {
      what: '401 again and again',
      answer: { status: 401 },
      reason: 'Unauthorized',
      says: /401.*check the credentials/,
    },
    { what: '403', answer: { status: 403 }, reason: 'Forbidden', says: /403.*ask the cloud's admin/ },
    { what: '500', answer: { status: 500 }, reason: 'ServerError', says: /HTTP 500/ },
    {
      what: '503 with a Retry-After',
      answer: { status: 503, headers: { 'retry-after': '300' } },
      reason: 'ServerError',
      says: /HTTP 503/,
    },
  ];

  test.each(refusals)(
    'whose look is answered $what stays in service and Ready, tells it, and is looked at again',
    async ({ what, answer, reason, says }) => {
      const name = named(`look ${what}`);
      const id = await serving(name);
      const record = { method: 'GET', path: new RegExp(`/images/${id}$`) };
      proxy.fault({ ...record, times: Infinity, answer });
      await house.ask(name, '1');
      const told = await house.until(name, (now) => now.status.sites?.[0]?.reason === reason, reason);
      expect(told.status.sites?.[0]).toMatchObject({ phase: 'Ready', imageID: id, attempts: 1 });
      expect(told.status.sites?.[0]?.message).toMatch(says);
      expect([isTrue(told, 'Ready'), isTrue(told, 'Available')]).toEqual([true, true]);
      if (answer.headers !== undefined)
        expect(Date.parse(told.status.sites?.[0]?.nextAttemptTime ?? '')).toBeGreaterThan(
          Date.now() + minutes * 60_000 + 200_000,
        );

      proxy.clear();
      await later(name);
      await expect
        .poll(() => proxy.seen.some(({ path, status }) => record.path.test(path) && status === 200))
        .toBe(true);
      await endsWell(name, id);
    },
  );

  test.each(refusals)(
    'whose repair is answered $what stays in service, is not Ready and says why, and is put right later',
    async ({ what, answer, reason, says }) => {
      const name = named(`repair ${what}`);
      const id = await serving(name);
      await drift(id);
      proxy.fault({ method: 'PATCH', path: new RegExp(`/images/${id}$`), times: Infinity, answer });
      await house.ask(name, '1');
      const told = await house.until(name, (now) => condition(now, 'Ready')?.reason === reason, reason);
      expect(condition(told, 'Ready')).toMatchObject({ status: 'False', message: expect.stringMatching(says) });
      expect(kstatus(told).status).toBe(reason === 'Forbidden' ? 'Failed' : 'InProgress');
      expect(told.status.sites?.[0]).toMatchObject({ imageID: id, reason, attempts: 1 });
      expect(isTrue(told, 'Available')).toBe(true);
      expect(await records(name)).toMatchObject([{ id, name: 'theirs' }]);

      proxy.clear();
      await later(name);
      await endsWell(name, id);
    },
  );

  test('whose repair is refused goes on being looked at: what the cloud holds meanwhile is not Available', async () => {
    const id = await serving('refused');
    await drift(id);
    proxy.fault({ method: 'PATCH', path: new RegExp(`/images/${id}$`), times: Infinity, answer: { status: 403 } });
    await house.ask('refused', '1');
    await house.until('refused', (now) => condition(now, 'Ready')?.reason === 'Forbidden');
    await openstack.image('admin', 'POST', `/images/${id}/actions/deactivate`);
    await later('refused');
    const held = await house.until('refused', (now) => now.status.sites?.[0]?.reason === 'HeldByCloud');
    expect([isTrue(held, 'Ready'), isTrue(held, 'Available')]).toEqual([false, false]);

    proxy.clear();
    await openstack.image('admin', 'POST', `/images/${id}/actions/reactivate`);
    await later('refused');
    await endsWell('refused', id);
  });

  test('whose token is lost is looked at and put right with another, and nobody sees it', async () => {
    const id = await serving('token');
    await drift(id);
    const path = new RegExp(`/images/${id}$`);
    for (const method of ['GET', 'PATCH']) proxy.fault({ method, path, answer: { status: 401 } });
    const said = new Set<string | undefined>();
    const end = house.store.subscribe<VMImage>(
      'VMImage',
      ({ object }) => void said.add(object.status.sites?.[0]?.reason),
    );
    await house.ask('token', '1');
    await house.until('token', (now) => now.status.lastHandledReconcileAt === '1' && isWell(now));
    await expect.poll(async () => (await records('token'))[0]?.name).toBe('The token');
    end();
    expect([...said].filter((reason) => reason !== undefined && reason !== 'Update')).toEqual([]);
    const tokens = proxy.seen.filter((each) => path.test(each.path)).map(({ headers }) => headers['x-auth-token']);
    expect(new Set(tokens).size).toBe(3);
    await endsWell('token', id);
  });

  test.each<[string, RegExp, Fault | undefined]>([
    [
      'takes no token any more',
      /^ImageSite nova is not ready: Glance .*401/,
      { times: Infinity, answer: { status: 401 } },
    ],
    ['is down', /^ImageSite nova is not ready: .* cannot be reached/, undefined],
  ])(
    'stays in service while its Glance %s, whether it was well or had drifted, and both are well after it',
    async (what, says, fault) => {
      const names = [named(`well ${what}`), named(`drifted ${what}`)] as const;
      const ids = [await serving(names[0]), await serving(names[1])] as const;
      await drift(ids[1]);
      if (fault === undefined) await openstack.killGlance();
      else proxy.fault(fault);
      for (const name of names) await house.ask(name, '1');
      for (const [n, name] of names.entries()) {
        const told = await house.until(name, (now) => now.status.sites?.[0]?.reason === 'SiteNotReady');
        expect(told.status.sites?.[0]).toMatchObject({ phase: 'Ready', imageID: ids[n] });
        expect(told.status.sites?.[0]?.message).toMatch(says);
        expect(isTrue(told, 'Available')).toBe(true);
      }
      if (fault === undefined) await openstack.startGlance();
      proxy.clear();
      await later(...names);
      await house.untilSite('nova', (now) => isTrue(now, 'Ready'));
      await house.ask(names[1], '2');
      await endsWell(names[0], ids[0]);
      await house.until(names[1], (now) => now.status.lastHandledReconcileAt === '2' && isWell(now));
      await endsWell(names[1], ids[1]);
    },
  );

  test.each(refusals)(
    'that was held by the cloud stays so while its look is answered $what',
    async ({ what, answer }) => {
      const name = named(`held ${what}`);
      const id = await serving(name);
      await openstack.image('admin', 'POST', `/images/${id}/actions/deactivate`);
      await house.ask(name, '1');
      await house.until(name, (now) => now.status.sites?.[0]?.reason === 'HeldByCloud');
      proxy.fault({ method: 'GET', path: new RegExp(`/images/${id}$`), times: Infinity, answer });
      await house.ask(name, '2');
      const told = await house.until(name, (now) => now.status.sites?.[0]?.attempts === 1);
      expect(told.status.sites?.[0]).toMatchObject({ phase: 'Held', reason: 'HeldByCloud', imageID: id });
      expect(isTrue(told, 'Available')).toBe(false);
      proxy.clear();
      await openstack.image('admin', 'POST', `/images/${id}/actions/reactivate`);
      await later(name);
      await endsWell(name, id);
    },
  );

  test.each(['Tampered', 'Drifted'])('that was %s stays so while its look is answered 403', async (reason) => {
    const name = named(`still ${reason}`);
    const clouds = await openstack.clouds('demo', { imageEndpoint: proxy.url });
    await house.write('report.yaml', ...openstackSite('report', clouds, 'demo', { drift: { policy: 'Report' } }));
    const id = await serving(name, 'report');
    const look = { method: 'GET', path: new RegExp(`/images/${id}$`), times: Infinity };
    const right = (await openstack.image('demo', 'GET', `/images/${id}`)).body as Image;
    if (reason === 'Drifted') await drift(id);
    else
      proxy.fault({
        ...look,
        answer: { status: 200, body: JSON.stringify({ ...right, os_hash_value: other.sha512 }) },
      });
    await house.ask(name, '1');
    await house.until(name, (now) => now.status.sites?.[0]?.reason === reason);
    proxy.clear();
    proxy.fault({ ...look, answer: { status: 403 } });
    await house.ask(name, '2');
    const told = await house.until(name, (now) => (now.status.sites?.[0]?.attempts ?? 0) > 0);
    expect(told.status.sites?.[0]).toMatchObject({ reason, imageID: id });
    expect(isTrue(told, 'Available')).toBe(reason === 'Drifted');
    proxy.clear();
    await openstack.image('demo', 'PATCH', `/images/${id}`, [
      { op: 'replace', path: '/name', value: right.name },
      { op: 'replace', path: '/colour', value: 'blue' },
    ]);
    await later(name);
    await endsWell(name, id);
  });

  test('with others of its site that are all gone at once is not registered anew before a person says so, and then each once', async () => {
    const names = ['m1', 'm2', 'm3', 'm4', 'm5'];
    const ids = await Promise.all(names.map((name) => serving(name, 'mass')));
    for (const id of ids) await openstack.image('admin', 'DELETE', `/images/${id}`);
    for (const name of names) await house.ask(name, '1');
    const times: string[] = [];
    for (const [n, name] of names.entries()) {
      const lost = await house.until(name, (now) => condition(now, 'Ready')?.reason === 'MassLoss');
      const { message = '', ...row } = lost.status.sites?.[0] ?? {};
      expect(row).toMatchObject({ phase: 'Missing', imageID: ids[n] });
      expect(message).toMatch(/5 of 5 images are gone from mass/);
      expect(isTrue(lost, 'Available')).toBe(false);
      times.push(/confirm-loss: "(.*)"/.exec(message)?.[1] ?? '');
    }
    // Whoever only asks again gets no other answer.
    for (const name of names) await house.ask(name, '2');
    for (const name of names)
      await house.until(
        name,
        (now) => now.status.lastHandledReconcileAt === '2' && now.status.sites?.[0]?.reason === 'MassLoss',
      );
    expect((await Promise.all(names.map(records))).flat()).toEqual([]);

    const word = times.toSorted().at(-1) ?? '';
    await house.store.annotate('ImageSite', { name: 'mass' }, { 'imageproxy.dev/confirm-loss': word });
    await later(...names);
    for (const [n, name] of names.entries()) {
      const image = await house.until(name, (now) => isWell(now) && now.status.sites?.[0]?.imageID !== ids[n]);
      expect(image.status.sites?.[0]?.losses).toHaveLength(1);
      await endsWell(name, image.status.sites?.[0]?.imageID ?? '');
    }
  });

  test.each([['retired'], ['deactivated by the cloud']])(
    'and that was %s is removed, though Glance lets an admin let go of no image that is deactivated',
    async (how) => {
      const name = named(how);
      const clouds = await openstack.clouds('admin', { imageEndpoint: proxy.url });
      await house.write('admin.yaml', ...openstackSite('admin', clouds, 'admin'));
      const id = await serving(name, 'admin');
      const path = new RegExp(`/images/${id}$`);
      if (how === 'retired') {
        await write(name, other, 'admin');
        await house.until(name, (now) => isWell(now) && now.status.sites?.[0]?.previous?.[0]?.retiredAt !== undefined);
      } else await openstack.image('admin', 'POST', `/images/${id}/actions/deactivate`);
      expect(await openstack.image('admin', 'GET', `/images/${id}`)).toMatchObject({ body: { status: 'deactivated' } });
      // Where it cannot be removed in the end, it is out of service as before.
      proxy.fault({ method: 'DELETE', path, after: 1, times: Infinity, answer: { status: 409 } });
      await house.delete(name);
      await house.until(name, (now) => (now.status.sites?.[0]?.attempts ?? 0) > 0);
      expect(await openstack.image('admin', 'GET', `/images/${id}`)).toMatchObject({
        body: { status: 'deactivated', os_hidden: true, visibility: 'private' },
      });
      proxy.clear();
      await later(name);
      await house.gone(name);
      expect((await openstack.image('admin', 'GET', `/images/${id}`)).status).toBe(404);
    },
  );

  describe('and that is being deleted there', () => {
    /** Deleted by somebody else; a Glance that shows such a record to its project calls it `pending_delete`. */
    async function goes(id: string): Promise<void> {
      const { body } = await openstack.image('demo', 'GET', `/images/${id}`);
      // With delayed deletion Glance lets an admin delete no image that is deactivated.
      if ((body as Image).status === 'deactivated')
        await openstack.image('admin', 'POST', `/images/${id}/actions/reactivate`);
      expect((await openstack.image('admin', 'DELETE', `/images/${id}`)).status).toBe(204);
      const answer = { status: 200, body: JSON.stringify({ ...(body as Image), status: 'pending_delete' }) };
      proxy.fault({ method: 'GET', path: new RegExp(`/images/${id}$`), times: Infinity, answer });
    }
    async function isMadeAnew(name: string, id: string): Promise<void> {
      const image = await house.until(name, (now) => isWell(now) && now.status.sites?.[0]?.imageID !== id);
      await endsWell(name, image.status.sites?.[0]?.imageID ?? '');
    }
    const told = () => house.lines.filter((line) => line.includes('"reason":"Gone"') && line.includes('"operation":'));

    test('is missing at the next look, and registered anew after the second', async () => {
      const id = await serving('going');
      await goes(id);
      await house.ask('going', '1');
      const missing = await house.until('going', (now) => now.status.sites?.[0]?.phase === 'Missing');
      expect(missing.status.sites?.[0]).toMatchObject({ reason: 'Missing', imageID: id });
      await isMadeAnew('going', id);
    });

    test.each([
      ['before it is put right is Gone', 'GET', 1, 1],
      // The look before the next try finds it.
      ['in the moment in which it is put right', 'PATCH', 0, 0],
    ])('%s, is looked for and registered anew', async (when, method, after, times) => {
      const name = named(when);
      const id = await serving(name);
      await drift(id);
      proxy.fault({ method, path: new RegExp(`/images/${id}$`), after, wait: async () => await goes(id) });
      const before = told().length;
      await house.ask(name, '1');
      await isMadeAnew(name, id);
      expect(told().slice(before)).toHaveLength(times);
    });

    test('is Gone when it shall come back into service, and its bytes are registered anew', async () => {
      const id = await serving('back');
      await write('back', other);
      await house.until('back', (now) => isWell(now) && now.status.sites?.[0]?.previous?.[0]?.retiredAt !== undefined);
      await goes(id);
      const before = told().length;
      await write('back', disk);
      const image = await house.until(
        'back',
        (now) => now.status.observedGeneration === 3 && isWell(now) && now.status.sites?.[0]?.operation === undefined,
      );
      expect(told().slice(before)).toHaveLength(1);
      expect((await records('back')).filter(({ os_hidden }) => !os_hidden)).toMatchObject([
        { id: image.status.sites?.[0]?.imageID, status: 'active', os_hash_value: disk.sha512 },
      ]);
      expect(image.status.sites?.[0]?.previous?.map(({ imageID }) => imageID)).not.toContain(id);
    });
  });
});
