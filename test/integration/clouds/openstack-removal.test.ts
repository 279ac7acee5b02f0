import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { Cloud, PublishImage } from '../../../src/clouds/cloud.ts';
import { openCloud } from '../../../src/clouds/index.ts';
import { startTransfers } from '../../../src/transfers/index.ts';
import type { Transfers } from '../../../src/transfers/transfers.ts';
import { type OpenStack, openstackAvailable, startOpenStack } from '../../support/openstack.ts';
import { type Fault, type FaultProxy, startFaultProxy } from '../../support/proxy.ts';
import { calm, contextOf, imageOf, makeFile, partOf, scratch, type TestFile } from './fixture.ts';

/** With delayed deletion an admin's image has to be active for a moment in order to be let go of. */
describe.skipIf(!openstackAvailable())('what an admin removes from a Glance that deletes with delay', () => {
  let openstack: OpenStack;
  let proxy: FaultProxy;
  let transfers: Transfers;
  let folder: Awaited<ReturnType<typeof scratch>>;
  let cloud: Cloud;
  let file: TestFile;

  beforeAll(async () => {
    openstack = await startOpenStack({ glanceExtra: 'delayed_delete = True' });
    proxy = await startFaultProxy(openstack.glanceUrl);
    transfers = startTransfers();
    folder = await scratch();
    file = await makeFile(folder.path, 20_000);
    const clouds = await openstack.clouds('admin', { imageEndpoint: proxy.url });
    const secret = new Map([['clouds.yaml', new TextEncoder().encode(clouds)]]);
    cloud = await openCloud({ openstack: {} }, contextOf(transfers, { secret }));
  });

  afterEach(() => proxy.clear());

  afterAll(async () => {
    await cloud?.close();
    await transfers?.close();
    await proxy?.stop();
    await openstack?.stop();
    await folder?.remove();
  });

  async function published(): Promise<{ image: PublishImage; id: string }> {
    const part = partOf(file);
    await cloud.stage(part, calm());
    const image = imageOf([{ part, file }]);
    await cloud.publish(image, calm());
    return { image, id: part.id };
  }
  async function retired(): Promise<{ image: PublishImage; id: string }> {
    const made = await published();
    await cloud.retire(made.image.parts, calm());
    return made;
  }
  const past = (id: string) => openstack.image('admin', 'GET', `/images/${id}`);
  const isGone = async (id: string) => {
    const { status, body } = await past(id);
    return status === 404 || (body as { status: string }).status === 'pending_delete';
  };

  test.each(['shows no more', 'shows as pending_delete'])(
    'is gone where the answer is lost, and what Glance %s is not deactivated again',
    async (how) => {
      const { image, id } = await retired();
      const { body } = await past(id);
      const going = { status: 200, body: JSON.stringify({ ...(body as object), status: 'pending_delete' }) };
      proxy.fault({
        method: 'DELETE',
        path: new RegExp(id),
        after: 1,
        dropAnswer: true,
        answered: () => {
          if (how !== 'shows no more') proxy.fault({ method: 'GET', times: Infinity, answer: going });
        },
      });
      proxy.fault({ method: 'POST', path: /deactivate$/, answer: { status: 403 } });
      await cloud.remove(image.parts, calm());
      expect(await isGone(id)).toBe(true);
    },
  );

  test.each<[string, string, Fault]>([
    ['reset', 'NetworkError', { dropAnswer: true }],
    ['refused', 'Conflict', { answer: { status: 409 } }],
  ])('tells why it failed when it is %s, not why it could not be closed again', async (_, reason, fault) => {
    const { image, id } = await retired();
    const path = new RegExp(id);
    proxy.fault({
      ...fault,
      method: 'DELETE',
      path,
      after: 1,
      answered: () => proxy.fault({ method: 'GET', path, times: Infinity, answer: { status: 403 } }),
    });
    proxy.fault({ method: 'POST', path: /deactivate$/, answer: { status: 403 } });
    await expect(cloud.remove(image.parts, calm())).rejects.toMatchObject({ reason });
    proxy.clear();
    if (!(await isGone(id))) await cloud.remove(image.parts, calm());
    expect(await isGone(id)).toBe(true);
  });

  test('is out of service also where the answer is lost that it is active again', async () => {
    const { image, id } = await retired();
    proxy.fault({ method: 'POST', path: /reactivate$/, dropAnswer: true });
    await expect(cloud.remove(image.parts, calm())).rejects.toMatchObject({ reason: 'NetworkError' });
    expect(await past(id)).toMatchObject({ body: { status: 'deactivated' } });
  });

  test('and the cloud has deactivated is held where it stays, not hidden by somebody, and goes back when it is let go of', async () => {
    const { image, id } = await published();
    await openstack.image('admin', 'POST', `/images/${id}/actions/deactivate`);
    proxy.fault({ method: 'DELETE', path: new RegExp(id), after: 1, answer: { status: 409 } });
    await expect(cloud.remove(image.parts, calm())).rejects.toMatchObject({ reason: 'Conflict' });
    expect(await past(id)).toMatchObject({ body: { status: 'deactivated', os_hidden: true, visibility: 'private' } });
    await expect(cloud.reactivate(image.parts, calm())).rejects.toMatchObject({ reason: 'HeldByCloud' });

    await openstack.image('admin', 'POST', `/images/${id}/actions/reactivate`);
    await cloud.reactivate(image.parts, calm());
    await cloud.publish(image, calm());
    expect(await cloud.look(image, calm())).toEqual({ gone: [], changed: [] });
    expect(await past(id)).toMatchObject({ body: { status: 'active', os_hidden: false } });
  });

  test.each(['retired', 'deactivated by the cloud'])(
    'and was %s is closed again also where an earlier try has left it active',
    async (how) => {
      const { image, id } = how === 'retired' ? await retired() : await published();
      if (how !== 'retired') await openstack.image('admin', 'POST', `/images/${id}/actions/deactivate`);
      proxy.fault({ method: 'DELETE', path: new RegExp(id), after: 1, times: Infinity, answer: { status: 409 } });
      proxy.fault({ method: 'POST', path: /deactivate$/, answer: { status: 503 } });
      await expect(cloud.remove(image.parts, calm())).rejects.toMatchObject({ reason: 'Conflict' });
      expect(await past(id)).toMatchObject({ body: { status: 'active', os_hidden: true, visibility: 'private' } });

      await expect(cloud.remove(image.parts, calm())).rejects.toMatchObject({ reason: 'Conflict' });
      expect(await past(id)).toMatchObject({ body: { status: 'deactivated' } });
      proxy.clear();
      await cloud.remove(image.parts, calm());
      expect(await isGone(id)).toBe(true);
    },
  );
});
