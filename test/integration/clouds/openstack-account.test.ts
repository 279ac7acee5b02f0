import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { Cloud } from '../../../src/clouds/cloud.ts';
import { openCloud } from '../../../src/clouds/index.ts';
import { startTransfers } from '../../../src/transfers/index.ts';
import type { Transfers } from '../../../src/transfers/transfers.ts';
import { type OpenStack, openstackAvailable, startOpenStack } from '../../support/openstack.ts';
import { type FaultProxy, startFaultProxy } from '../../support/proxy.ts';
import { calm, contextOf, makeFile, partOf, scratch } from './fixture.ts';

/** Keystone's own. */
const LIFE_MS = 3_600_000;

describe.skipIf(!openstackAvailable())('an account at a real Keystone', () => {
  let openstack: OpenStack;
  let glance: FaultProxy;
  let keystone: FaultProxy;
  let transfers: Transfers;
  let now = Date.now();
  const opened: Cloud[] = [];

  async function open(text: string, spec: object = {}): Promise<Cloud> {
    const secret = new Map([['clouds.yaml', new TextEncoder().encode(text)]]);
    const cloud = await openCloud({ openstack: spec }, contextOf(transfers, { secret, now: () => now }));
    opened.push(cloud);
    return cloud;
  }

  async function clouds(auth: 'password' | 'applicationCredential' = 'password'): Promise<string> {
    const text = await openstack.clouds('demo', { auth, imageEndpoint: glance.url });
    return text.replace(openstack.authUrl, keystone.url);
  }

  function tokensAsked(): number {
    return keystone.seen.filter(({ method, path }) => method === 'POST' && path === '/v3/auth/tokens').length;
  }

  beforeAll(async () => {
    openstack = await startOpenStack({ tokenCacheSeconds: 1 });
    glance = await startFaultProxy(openstack.glanceUrl);
    keystone = await startFaultProxy(new URL(openstack.authUrl).origin);
    transfers = startTransfers();
  });

  afterEach(async () => {
    glance.clear();
    keystone.clear();
    now = Date.now();
    for (const cloud of opened.splice(0)) await cloud.close();
  });

  afterAll(async () => {
    await transfers?.close();
    await glance?.stop();
    await keystone?.stop();
    await openstack?.stop();
  });

  test.each(['password', 'applicationCredential'] as const)(
    'the probe says who and where we are (%s)',
    async (auth) => {
      const { projectId } = await openstack.token('demo');

      const probe = await (await open(await clouds(auth))).probe(calm());

      expect(probe.identity).toBe(`${keystone.url}/v3 region=RegionOne project=${projectId}`);
      expect(probe.details).toMatchObject({ project: 'demo', user: 'demo', region: 'RegionOne', glance: glance.url });
      expect(probe.version).toMatch(/^2\.\d+$/);
    },
  );

  test('the endpoint comes from the catalog, by region and interface', async () => {
    const text = await openstack.clouds('demo');
    const probe = await (await open(text, { interface: 'internal' })).probe(calm());
    expect(probe.details).toMatchObject({ glance: openstack.glanceUrl, interface: 'internal' });

    const elsewhere = await open(text, { region: 'RegionTwo' });
    await expect(elsewhere.probe(calm())).rejects.toMatchObject({
      reason: 'SiteNotReady',
      message: expect.stringMatching(/RegionTwo public.*RegionOne internal/s),
    });
  });

  test('wrong credentials are Unauthorized, and the message holds none of them', async () => {
    const text = (await clouds()).replace('demo-password', 'not-the-password');
    const failure = await (await open(text)).probe(calm()).catch((error: unknown) => error);
    expect(failure).toMatchObject({ reason: 'Unauthorized', message: expect.stringContaining(keystone.url) });
    expect((failure as Error).message).not.toContain('not-the-password');
  });

  test('many who ask at once cause one token to be made', async () => {
    const cloud = await open(await clouds());
    await Promise.all(Array.from({ length: 8 }, async () => await cloud.census(calm())));
    expect(tokensAsked()).toBe(1);
  });

  test('a token is renewed before it ends', async () => {
    const cloud = await open(await clouds());
    await cloud.census(calm());
    now += LIFE_MS / 2;
    await cloud.census(calm());
    expect(tokensAsked()).toBe(1);

    now += LIFE_MS / 2 - 60_000;
    await cloud.census(calm());

    expect(tokensAsked()).toBe(2);
    expect(glance.seen.map(({ status }) => status)).not.toContain(401);
  });

  test('a token that Glance refuses is renewed once; a second refusal is told', async () => {
    const cloud = await open(await clouds());
    await cloud.census(calm());
    glance.fault({ answer: { status: 401 } });
    await cloud.census(calm());
    expect(tokensAsked()).toBe(2);

    glance.fault({ answer: { status: 401 }, times: 2 });
    await expect(cloud.census(calm())).rejects.toMatchObject({ reason: 'Unauthorized' });
    expect(tokensAsked()).toBe(3);
  });

  test('a token that ends during an upload does no harm', async () => {
    const folder = await scratch();
    const file = await makeFile(folder.path, 200_000);
    const cloud = await open(await clouds());
    const part = partOf(file);
    let token: string | undefined;
    const mayFinish = async (): Promise<void> => {
      if (token !== undefined) return;
      token = String(glance.seen.at(-1)?.headers['x-auth-token']);
      const headers = { 'x-auth-token': token };
      const ended = { method: 'DELETE', headers: { ...headers, 'x-subject-token': token } };
      expect((await fetch(`${openstack.authUrl}/auth/tokens`, ended)).status).toBe(204);
      // Until Glance itself no longer takes it.
      const ask = async (): Promise<number> =>
        (await fetch(`${openstack.glanceUrl}/v2/images?limit=1`, { headers })).status;
      await expect.poll(ask, { interval: 250 }).toBe(401);
    };

    const record = await cloud.stage({ ...part, bytes: { ...part.bytes, mayFinish } }, calm());

    expect(record.state).toBe('Active');
    await cloud.remove([{ id: part.id, role: 'Disk' }], calm());
    await folder.remove();
  });

  test('a question is asked again after what passes by itself, a change is not', async () => {
    const cloud = await open(await clouds());
    glance.fault({ method: 'GET', answer: { status: 503, headers: { 'retry-after': '0' } }, times: 2 });
    expect(await cloud.census(calm())).toEqual(new Set());

    glance.fault({ method: 'POST', answer: { status: 503, headers: { 'retry-after': '30' } } });
    const folder = await scratch();
    const part = partOf(await makeFile(folder.path, 1000));
    await expect(cloud.stage(part, calm())).rejects.toMatchObject({ reason: 'ServerError', retryAfterMs: 30_000 });
    expect(glance.seen.filter(({ method }) => method === 'POST')).toHaveLength(1);
    await folder.remove();
  });

  test('an abort ends the wait for a token without ending it for others', async () => {
    const cloud = await open(await clouds());
    const held = Promise.withResolvers<void>();
    keystone.fault({ method: 'POST', wait: async () => await held.promise });
    const stop = new AbortController();
    const [first, second] = [cloud.census(stop.signal), cloud.census(calm())];

    stop.abort();
    await expect(first).rejects.toMatchObject({ reason: 'Aborted' });
    held.resolve();

    expect(await second).toEqual(new Set());
    expect(tokensAsked()).toBe(1);
  });
});
