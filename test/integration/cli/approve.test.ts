import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { API_SERVER_PATIENCE_MS } from '../../support/apiserver.ts';
import { ext4 } from '../../support/disks.ts';
import { hepixList, type ListedImage } from '../../support/hepix.ts';
import { directorySite, House, unsignedSubscription } from '../../support/house.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';
import { COMPILED, imageproxy, Program } from './program.ts';
import { openClusterWorld, openDirectoryWorld, type World } from './worlds.ts';

let origin: Origin;
const id = randomUUID();
const disk = ext4('approved');

beforeAll(async () => {
  origin = await startOrigin();
  origin.route('/disk', { body: disk.bytes });
  const more = { 'hv:format': 'raw' };
  const listed: ListedImage = { id, title: 'Approved', url: `${origin.url}/disk`, bytes: disk.bytes, more };
  origin.route('/image.list', { body: Buffer.from(hepixList({ id: randomUUID(), version: '7', images: [listed] })) });
});

afterAll(async () => {
  await Program.killAll();
  await origin.close();
});

const subscription = () => unsignedSubscription(`${origin.url}/image.list`, { approval: 'Manual' });

const digest = `sha512:${disk.sha512}`;

describe.each([
  ['a directory, from a manifest', openDirectoryWorld],
  ['a cluster', openClusterWorld],
] as const)('approve on %s', (where, open) => {
  let world: World;

  beforeAll(async () => {
    world = await open();
    await world.apply(directorySite('shelf', world.shelf), subscription());
    expect(await world.run('wait', 'imgsub/egi', '--timeout', '60s')).toMatchObject({ code: 0 });
  }, API_SERVER_PATIENCE_MS);
  afterAll(() => world.close());

  test('describe shows the list, and what waits', async () => {
    const { out } = await world.run('describe', 'imgsub/egi');
    expect(out).toMatch(/^Version: +7 of /m);
    expect(out).toMatch(/^Entries: +entries 1, /m);
    expect(out).toContain(`${id}  `);
    expect(out).toContain('PendingApproval');
  });

  test('its words are completed', async () => {
    expect((await world.run('__complete', '--', 'approve', 'e')).out).toBe('egi\n');
    expect((await world.run('__complete', '--', 'approve', 'egi', '')).out).toBe(`${id}\n`);
    expect((await world.run('__complete', '--', 'approve', 'egi', id, '')).out).toBe('');
  });

  test('what is no digest, no entry or no subscription is refused', async () => {
    expect(await world.run('approve', 'egi', id, '--digest', 'abc')).toMatchObject({
      code: 2,
      err: expect.stringMatching(/is no digest/) as string,
    });
    expect(await world.run('approve', 'egi', 'none')).toMatchObject({
      code: 3,
      err: expect.stringMatching(/has no entry none among/) as string,
    });
    expect(await world.run('approve', 'other', id)).toMatchObject({
      code: 3,
      err: expect.stringMatching(/there is no ImageSubscription/) as string,
    });
    expect(await world.run('approve', 'vmimg/egi', id)).toMatchObject({
      code: 2,
      err: expect.stringMatching(/write imgsub\/egi/) as string,
    });
  });

  test('entries or all of them have to be named, not both, and not all with one digest', async () => {
    for (const words of [[], [id, '--all'], ['--all', '--digest', digest]]) {
      expect(await world.run('approve', 'egi', ...words)).toMatchObject({
        code: 2,
        err: expect.stringMatching(/name the entries to approve, or give --all/) as string,
      });
    }
  });

  test('lets the entry become an image, or says which lines to write', async () => {
    const outcome = await world.run('approve', 'egi', id);
    if (where === 'a cluster') {
      expect(outcome).toEqual({
        code: 0,
        out: `imagesubscription.imageproxy.dev/egi approved ${id} with ${digest}\n`,
        err: '',
      });
    } else {
      expect(outcome).toMatchObject({
        code: 1,
        err: expect.stringMatching(/comes from .*yaml: put these lines under its spec/) as string,
      });
      expect(outcome.out).toBe(`  approved:\n    - id: ${id}\n      digest: ${digest}\n`);
      const manifest = subscription();
      await world.apply({
        ...manifest,
        spec: { ...manifest.spec, approved: [{ id, digest }] },
        metadata: { name: 'second' },
      });
    }
    const image = `vmimg/${where === 'a cluster' ? 'egi' : 'second'}-${id}`;
    expect(await world.run('wait', image, '--for=create', '--timeout', '60s')).toMatchObject({ code: 0 });
    expect(await world.run('wait', image, '--timeout', '60s')).toMatchObject({ code: 0 });
  });
});

test('approve on a directory edits a subscription that no manifest speaks of', async () => {
  const house = await new House().start();
  try {
    await house.write('shelf.yaml', directorySite('shelf', house.shelf));
    await house.store.apply({ apiVersion: 'imageproxy.dev/v1beta1', ...subscription() });
    await house.untilSubscription('egi', ({ status }) => status.counts?.pendingApproval === 1);
    const run = (...words: string[]) => imageproxy(words, { ...COMPILED, IMAGEPROXY_STATE: house.state });
    expect(await run('approve', 'egi', id, '--any-digest')).toMatchObject({ code: 0 });
    expect(house.subscription('egi')?.spec.approved).toEqual([{ id }]);
    await house.ready(`egi-${id}`);
  } finally {
    await house.close();
  }
});

test('approve --all approves what the status shows, a hundred at a time, and says how many more wait', async () => {
  const ids = Array.from({ length: 130 }, () => randomUUID());
  const more = { 'hv:format': 'raw' };
  const images = ids.map((each) => ({ id: each, title: each, url: `${origin.url}/disk`, bytes: disk.bytes, more }));
  origin.route('/many.list', { body: Buffer.from(hepixList({ id: randomUUID(), version: '1', images })) });
  const house = await new House().start();
  try {
    const { spec, ...rest } = subscription();
    // Without sites nothing is fetched.
    const nowhere = { ...spec, url: `${origin.url}/many.list`, template: { spec: { sites: [] } } };
    await house.store.apply({ apiVersion: 'imageproxy.dev/v1beta1', ...rest, spec: nowhere });
    const waiting = (count: number) =>
      house.untilSubscription('egi', ({ status }) => status.counts?.pendingApproval === count, `${count} waiting`);
    const run = () => imageproxy(['approve', 'egi', '--all'], { ...COMPILED, IMAGEPROXY_STATE: house.state });
    await waiting(130);
    const first = await run();
    expect(first).toMatchObject({ code: 1, err: expect.stringContaining('30 more entries wait') as string });
    expect(first.out.trimEnd().split('\n')).toHaveLength(100);
    await waiting(30);
    expect(await run()).toMatchObject({ code: 0, err: '' });
    expect(house.subscription('egi')?.spec.approved?.toSorted((a, b) => (a.id < b.id ? -1 : 1))).toEqual(
      ids.toSorted().map((each) => ({ id: each, digest })),
    );
    await waiting(0);
    expect(await run()).toMatchObject({
      code: 3,
      err: expect.stringContaining('no entry of') as string,
    });
  } finally {
    await house.close();
  }
});
