import { randomUUID } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { makerMarks } from '../../../src/api/maker.ts';
import type { ImageSubscription, VMImage } from '../../../src/api/types.ts';
import { JumpingClock } from '../../support/clock.ts';
import { type Disk, qcow2 } from '../../support/disks.ts';
import { hepixList, type ListedImage, type ListOptions } from '../../support/hepix.ts';
import { condition, directorySite, House, isTrue, type Manifest, vmimage } from '../../support/house.ts';
import { expectKstatus } from '../../support/kstatus.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';

/** What a subscription does, apart from trust: lists without a signature, on a directory site. */
let origin: Origin;
let house: House;
let clock: JumpingClock;
const listId = randomUUID();
const disks = new Map<string, Disk>();

function disk(label: string): Disk {
  const made = disks.get(label) ?? qcow2(label);
  disks.set(label, made);
  return made;
}

beforeEach(async () => {
  origin = await startOrigin();
  clock = new JumpingClock();
  house = new House({ clock });
  await house.write('shelf.yaml', directorySite('shelf', house.shelf));
  await house.start();
});

afterEach(async () => {
  await house.close();
  await origin.close();
});

function listed(id: string, label: string, more: Partial<ListedImage> = {}): ListedImage {
  const { bytes } = disk(label);
  origin.route(`/${label}.qcow2`, { body: bytes });
  return { id, title: `Image ${label}`, url: `${origin.url}/${label}.qcow2`, bytes, ...more };
}

function publish(version: string, images: readonly ListedImage[], more: Partial<ListOptions> = {}): void {
  const body = Buffer.from(hepixList({ id: listId, version, images, ...more }));
  origin.route('/image.list', { body, etag: `"${version}"` });
}

function subscription(name: string, more: Record<string, unknown> = {}): Manifest {
  return {
    kind: 'ImageSubscription',
    metadata: { name },
    spec: {
      url: `${origin.url}/image.list`,
      format: 'HEPiX',
      trust: { unsigned: {} },
      template: { spec: { sites: [{ name: 'shelf' }] } },
      ...more,
    },
  };
}

const ready = (name: string) =>
  house.untilSubscription(
    name,
    (each) => each.status.observedGeneration === each.metadata.generation && isTrue(each, 'Ready'),
    'Ready',
  );

const ask = (name: string, at: string) =>
  house.store.annotate('ImageSubscription', { namespace: 'default', name }, { 'imageproxy.dev/requestedAt': at });

/** Looks again, and resolves when that has been told. */
async function lookAgain(name: string, wanted: (each: ImageSubscription) => boolean): Promise<ImageSubscription> {
  const at = randomUUID();
  await ask(name, at);
  return house.untilSubscription(name, (each) => each.status.lastHandledReconcileAt === at && wanted(each));
}

const images = () => house.store.list<VMImage>('VMImage');
const makers = () => images().map(({ metadata }) => makerMarks(metadata)?.name);
const ids = [randomUUID(), randomUUID(), randomUUID(), randomUUID()] as const;
const names = ids.map((id) => `egi-${id}`) as [string, string, string, string];
const rowOf = (each: ImageSubscription, id: string) => each.status.attention?.find((row) => row.id === id);
/** All that a subscription writes of its images, and their ids: a site that is looked at again changes more of the status than these. */
const versions = () =>
  images()
    .map(({ metadata, spec, status }) => {
      const { name, generation, labels, annotations, ownerReferences } = metadata;
      const ids = status.sites?.map(({ imageID, phase }) => [imageID, phase]);
      return JSON.stringify([name, generation, labels, annotations, ownerReferences, spec, ids]);
    })
    .toSorted();

describe('a subscription', () => {
  test('makes an image of each entry, with all that the list knows of it', async () => {
    const id = randomUUID();
    publish('1', [
      listed(id, 'one', { more: { 'ad:mpuri': 'https://appdb.example.org/x/1', 'hv:ram_minimum': '512' } }),
    ]);
    await house.write(
      'sub.yaml',
      subscription('egi', {
        template: {
          metadata: { labels: { team: 'physics' } },
          spec: { sites: [{ name: 'shelf' }], registration: { name: '{title} ({version})' } },
        },
      }),
    );
    const followed = await ready('egi');
    expectKstatus(followed);
    expect(followed.status.counts).toMatchObject({ entries: 1, selected: 1, images: 1 });
    expect(followed.status.list).toMatchObject({ identity: listId, version: '1', format: 'HEPiX' });
    const image = await house.ready(`egi-${id}`);
    expect(image.spec).toMatchObject({
      guid: id,
      source: { http: { urls: [`${origin.url}/one.qcow2`] } },
      checksums: { sha512: disk('one').sha512 },
      registration: {
        name: 'Image one (1)',
        architecture: 'x86_64',
        properties: { vmcatcher_event_dc_identifier: id, vmcatcher_event_ad_mpuri: 'https://appdb.example.org/x/1' },
      },
    });
    expect(image.metadata).toMatchObject({
      labels: { team: 'physics', 'imageproxy.dev/subscription': 'egi' },
      annotations: {
        'imageproxy.dev/entry': id,
        'imageproxy.dev/list': listId,
        'imageproxy.dev/mpuri': 'https://appdb.example.org/x/1',
        'imageproxy.dev/subscription': 'egi',
        'imageproxy.dev/subscription-uid': followed.metadata.uid,
      },
    });
    expect(image.metadata).not.toHaveProperty('ownerReferences');
    const inService = await house.untilSubscription('egi', (each) => isTrue(each, 'ImagesReady'));
    expect(inService.status.counts).toMatchObject({ ready: 1, failed: 0 });
  });

  test('replaces, adds and retires as a new version of the list says, and the old image serves until the new one is there', async () => {
    publish('1', [listed(ids[0], 'keep'), listed(ids[1], 'old'), listed(ids[2], 'gone')]);
    await house.write('sub.yaml', subscription('egi'));
    await Promise.all(names.slice(0, 3).map((name) => house.ready(name)));
    const [before, kept] = [house.row(names[1], 'shelf')?.imageID, house.image(names[0])];
    publish('2', [listed(ids[0], 'keep'), listed(ids[1], 'new'), listed(ids[3], 'added')]);
    const { promise: held, resolve: release } = Promise.withResolvers<void>();
    const { bytes } = disk('new');
    origin.route('/new.qcow2', { body: bytes, holdAfter: { bytes: 1000, until: held } });
    await lookAgain('egi', (each) => each.status.list?.version === '2' && isTrue(each, 'Ready'));
    await house.until(names[1], (image) => image.metadata.generation === 2 && image.status.phase === 'Fetching');
    expect(house.row(names[1], 'shelf')?.imageID).toBe(before);
    expect(isTrue(house.image(names[1]) as VMImage, 'Available')).toBe(true);
    release();
    await house.until(names[1], (image) => image.status.sites?.[0]?.imageID !== before && isTrue(image, 'Ready'));
    await house.ready(names[3]);
    const retired = await house.until(names[2], (image) => image.status.phase === 'Deactivated');
    expect(retired.metadata.annotations).toMatchObject({ 'imageproxy.dev/retired': 'Removed' });
    expect(house.image(names[0])?.metadata.generation).toBe(kept?.metadata.generation);
    const settled = await house.untilSubscription(
      'egi',
      (each) => isTrue(each, 'ImagesReady') && each.status.counts?.retired === 1,
    );
    expect(settled.status.counts).toMatchObject({ entries: 3, images: 4, ready: 3, retired: 1 });
    publish('3', [listed(ids[2], 'gone')]);
    await lookAgain('egi', (each) => each.status.list?.version === '3');
    await house.ready(names[2]);
    expect(house.image(names[2])?.metadata.annotations).not.toHaveProperty('imageproxy.dev/retired');
  });

  test('writes nothing where nothing has changed: not for another look, another version or a restart', async () => {
    publish('1', [listed(ids[0], 'keep'), listed(ids[1], 'old')]);
    await house.write('sub.yaml', subscription('egi'));
    await Promise.all(names.slice(0, 2).map((name) => house.ready(name)));
    await house.untilSubscription('egi', (each) => isTrue(each, 'ImagesReady'));
    const before = versions();
    // Whole seconds are told: an hour makes this reading's another than the first one's.
    clock.jump(3_600_000);
    const asked = clock.now() - 1000;
    await lookAgain('egi', (each) => Date.parse(each.status.lastCheckedTime ?? '') > asked && isTrue(each, 'Ready'));
    expect(origin.requests.at(-1)?.headers['if-none-match']).toBe('"1"');
    publish('2', [listed(ids[0], 'keep'), listed(ids[1], 'old')]);
    await lookAgain('egi', (each) => each.status.list?.version === '2');
    const requests = origin.requests.length;
    await house.stop();
    await house.start();
    await house.untilSubscription('egi', (each) => isTrue(each, 'Ready'));
    expect(versions()).toEqual(before);
    expect(origin.requests.length).toBe(requests);
  });

  test('leaves all images as they are when the list cannot be read, is older, is another, is expired, or is none', async () => {
    publish('5', [listed(ids[0], 'keep'), listed(ids[1], 'old')]);
    await house.write('sub.yaml', subscription('egi'));
    await Promise.all(names.slice(0, 2).map((name) => house.ready(name)));
    await house.untilSubscription('egi', (each) => isTrue(each, 'ImagesReady'));
    const before = versions();
    const empty: ListedImage[] = [];
    const cases: [string, () => void][] = [
      ['ServerError', () => origin.route('/image.list', { status: 503 })],
      ['NotFound', () => origin.route('/image.list', { status: 404 })],
      ['ListRollback', () => publish('4', empty)],
      ['ListIdentityChanged', () => publish('6', empty, { id: randomUUID() })],
      ['ListExpired', () => publish('7', empty, { created: '2020-01-01T00:00:00Z', expires: '2020-02-01T00:00:00Z' })],
      [
        'ListFromFuture',
        () => publish('8', empty, { created: '2099-01-01T00:00:00Z', expires: '2099-02-01T00:00:00Z' }),
      ],
      ['InvalidList', () => origin.route('/image.list', { body: Buffer.from('<html>please log in</html>') })],
    ];
    for (const [reason, serve] of cases) {
      serve();
      const refused = await lookAgain('egi', (each) => condition(each, 'Ready')?.reason === reason);
      expectKstatus(refused);
      expect(refused.status.list?.version).toBe('5');
      expect(condition(refused, 'Ready')?.message).toContain('stay as they are');
      expect(versions(), reason).toEqual(before);
    }
    await house.stop();
    await house.start();
    await house.untilSubscription('egi', (each) => condition(each, 'Ready')?.reason === 'InvalidList');
    expect(versions()).toEqual(before);
    publish('9', [listed(ids[0], 'keep'), listed(ids[1], 'old')]);
    await lookAgain('egi', (each) => isTrue(each, 'Ready'));
    expect(versions()).toEqual(before);
  });

  test('takes an older list where its subscriber says so', async () => {
    publish('5', [listed(ids[0], 'keep')]);
    await house.write('sub.yaml', subscription('egi'));
    await house.ready(names[0]);
    publish('4', [listed(ids[0], 'keep')]);
    await lookAgain('egi', (each) => condition(each, 'Ready')?.reason === 'ListRollback');
    await house.write('sub.yaml', subscription('egi', { rollback: 'Accept' }));
    const taken = await house.untilSubscription('egi', (each) => each.status.list?.version === '4');
    expectKstatus(taken);
  });

  test('chooses entries by fields, by an expression, and by lists of ids', async () => {
    publish('1', [
      listed(ids[0], 'keep', { more: { 'ad:vo': 'atlas' } }),
      listed(ids[1], 'old', { more: { 'sl:arch': 'arm64' } }),
      listed(ids[2], 'gone'),
    ]);
    const there = () =>
      images()
        .filter(({ spec }) => spec.state === 'Active')
        .map(({ metadata }) => metadata.name)
        .toSorted();
    const selected = async (select: Record<string, unknown>, ...expected: string[]) => {
      await house.write('sub.yaml', subscription('egi', { select, onRemoved: 'Delete' }));
      await house.untilSubscription(
        'egi',
        (each) =>
          each.status.observedGeneration === each.metadata.generation &&
          isTrue(each, 'Ready') &&
          each.status.counts?.selected === expected.length &&
          each.status.counts.images === expected.length,
      );
      expect(there()).toEqual(expected.toSorted());
    };
    await selected({ matchFields: [{ key: 'ad:vo', operator: 'In', values: ['at*'] }] }, names[0]);
    await selected(
      { expression: 'entry.arch == "x86_64" && entry.os.distro == ""', exclude: { ids: [ids[0]] } },
      names[2],
    );
    await selected({ include: { checksums: [disk('old').sha512.toUpperCase()] } }, names[1]);
    await house.write('sub.yaml', subscription('egi', { select: { expression: 'entry.(' } }));
    const stalled = await house.untilSubscription('egi', (each) => isTrue(each, 'Stalled'));
    expectKstatus(stalled);
    expect(condition(stalled, 'Ready')).toMatchObject({
      reason: 'InvalidSpec',
      message: expect.stringContaining('spec.select.expression') as string,
    });
    expect(there()).toEqual([names[1]]);
  });

  test('waits for approval, of each new digest where one was approved', async () => {
    publish('1', [listed(ids[0], 'old'), listed(ids[1], 'keep')]);
    await house.write('sub.yaml', subscription('egi', { approval: 'Manual' }));
    const waiting = await ready('egi');
    expect(waiting.status.counts).toMatchObject({ selected: 2, pendingApproval: 2, images: 0 });
    const row = rowOf(waiting, ids[0]);
    expect(row).toMatchObject({ reason: 'PendingApproval', digest: `sha512:${disk('old').sha512}` });
    await house.write(
      'sub.yaml',
      subscription('egi', { approval: 'Manual', approved: [{ id: ids[0], digest: row?.digest }] }),
    );
    await house.ready(names[0]);
    const before = house.row(names[0], 'shelf')?.imageID;
    publish('2', [listed(ids[0], 'new'), listed(ids[1], 'keep')]);
    const again = await lookAgain(
      'egi',
      (each) => each.status.list?.version === '2' && each.status.counts?.pendingApproval === 2,
    );
    expect(rowOf(again, ids[0])).toMatchObject({ image: names[0], digest: `sha512:${disk('new').sha512}` });
    expect(house.row(names[0], 'shelf')?.imageID).toBe(before);
    await house.write('sub.yaml', subscription('egi', { approval: 'Manual', approved: [{ id: ids[0] }] }));
    await house.until(names[0], (image) => image.status.sites?.[0]?.imageID !== before && isTrue(image, 'Ready'));
  });

  test('retires an entry at its own date, without being asked, and makes none that is past it', async () => {
    const soon = new Date(Date.now() + 3_600_000).toISOString().replace(/\.\d{3}Z$/, 'Z');
    publish('1', [
      listed(ids[0], 'keep', { more: { 'dc:date:expires': soon } }),
      listed(ids[1], 'old', { more: { 'dc:date:expires': '2020-01-01T00:00:00Z' } }),
    ]);
    await house.write('sub.yaml', subscription('egi'));
    await house.ready(names[0]);
    await house.untilSubscription('egi', (each) => isTrue(each, 'ImagesReady'));
    clock.jump(2 * 3_600_000);
    await house.until(names[0], (image) => image.status.phase === 'Deactivated');
    expect(house.image(names[0])?.metadata.annotations).toMatchObject({ 'imageproxy.dev/retired': 'Expired' });
    expect(house.image(names[1])).toBeUndefined();
  });

  test("leaves the images of others alone: a person's, and those of an older subscription", async () => {
    const { sha512 } = disk('mine');
    listed(ids[0], 'mine');
    await house.write('mine.yaml', {
      kind: 'VMImage',
      metadata: { name: 'mine' },
      spec: {
        guid: ids[0],
        source: { http: { urls: [`${origin.url}/mine.qcow2`] } },
        checksums: { sha512 },
        sites: [{ name: 'shelf' }],
      },
    });
    await house.ready('mine');
    publish('1', [listed(ids[0], 'old'), listed(ids[1], 'keep')]);
    await house.write('sub.yaml', subscription('egi'));
    const first = await ready('egi');
    expect(rowOf(first, ids[0])).toMatchObject({
      reason: 'GuidInUse',
      message: expect.stringContaining('VMImage default/mine') as string,
    });
    expect(house.image(names[0])).toBeUndefined();
    await house.write('late.yaml', subscription('late'));
    const second = await house.untilSubscription(
      'late',
      (each) => isTrue(each, 'Ready') && each.status.attention?.length === 2,
    );
    expect(rowOf(second, ids[1])).toMatchObject({
      reason: 'GuidInUse',
      message: expect.stringContaining('ImageSubscription egi') as string,
    });
    expect(
      images()
        .map(({ metadata }) => metadata.name)
        .toSorted(),
    ).toEqual(['mine', names[1]].toSorted());
    // What was told is written when the program has ended.
    await house.stop();
    for (const [name, id] of [
      ['egi', ids[0]],
      ['late', ids[1]],
    ] as const) {
      const said = house.lines
        .map((line) => JSON.parse(line) as { object?: string; reason?: string; msg: string })
        .filter(({ object, reason }) => object?.endsWith(`/${name}`) === true && reason === 'GuidInUse');
      expect(said.map(({ msg }) => msg)).toContainEqual(expect.stringContaining(`entry ${id}: VMImage `));
    }
  });

  test('whose selection computes for ever is Stalled, and holds up neither the program nor another subscription', async () => {
    publish('1', [listed(ids[0], 'keep', { more: { 'dc:description': 'a'.repeat(4096) } })]);
    // The pattern takes a quarter of a second, once for each pair of fields: 40 s, where 5 are given.
    const slow = `!entry.description.matches("${'x{1000}'.repeat(500)}")`;
    const expression = `entry.fields.all(a, entry.fields.all(b, ${slow}))`;
    let turns = 0;
    const ticker = setInterval(() => turns++, 10);
    try {
      await house.write('evil.yaml', subscription('evil', { select: { expression } }));
      await house.write('sub.yaml', subscription('egi', { select: { expression: 'entry.title != ""' } }));
      await ready('egi');
      const evil = await house.untilSubscription('evil', (each) => condition(each, 'Stalled')?.status === 'True');
      expect(condition(evil, 'Ready')).toMatchObject({
        reason: 'InvalidSpec',
        message: expect.stringMatching(/takes too long .*simpler/) as string,
      });
      expect(turns).toBeGreaterThan(50);
    } finally {
      clearInterval(ticker);
    }
    await house.ready(names[0]);
    expect(makers()).toEqual(['egi']);
  });

  test('keeps an image that a manifest of the same name would take from it', async () => {
    publish('1', [listed(ids[0], 'keep')]);
    await house.write('sub.yaml', subscription('egi'));
    const before = await house.ready(names[0]);
    await house.write('mine.yaml', vmimage(names[0], { ...before.spec, registration: { name: 'mine' } }));
    expect(house.image(names[0])?.spec).toEqual(before.spec);
    expect(house.lines.filter((line) => line.includes('is made by ImageSubscription egi'))).not.toEqual([]);
  });

  test('keeps its images when it is deleted, and one of its name takes them up again', async () => {
    publish('1', [listed(ids[0], 'keep'), listed(ids[1], 'old')]);
    await house.write('sub.yaml', subscription('egi'));
    await Promise.all(names.slice(0, 2).map((name) => house.ready(name)));
    const before = house.row(names[0], 'shelf')?.imageID;
    await house.delete('egi', 'ImageSubscription');
    await house.untilGone('ImageSubscription', 'egi');
    expect(makers()).toEqual([undefined, undefined]);
    await house.write('sub.yaml', subscription('egi', { interval: '2h' }));
    await ready('egi');
    expect(makers()).toEqual(['egi', 'egi']);
    expect(house.row(names[0], 'shelf')?.imageID).toBe(before);
  });

  test('takes its images with it where it shall', async () => {
    publish('1', [listed(ids[0], 'keep'), listed(ids[1], 'old')]);
    await house.write('sub.yaml', subscription('egi', { deletionPolicy: 'Delete' }));
    await Promise.all(names.slice(0, 2).map((name) => house.ready(name)));
    expect(images()[0]?.metadata.ownerReferences).toMatchObject([{ kind: 'ImageSubscription', name: 'egi' }]);
    await house.delete('egi', 'ImageSubscription');
    await house.untilGone('ImageSubscription', 'egi');
    expect(images()).toEqual([]);
  });

  test('asks a person before many images go that are missing from a list which nobody has signed', async () => {
    const many = Array.from({ length: 12 }, () => randomUUID());
    publish(
      '1',
      many.map((id) => listed(id, 'keep')),
    );
    await house.write('sub.yaml', subscription('egi'));
    await Promise.all(many.map((id) => house.ready(`egi-${id}`)));
    publish('2', []);
    const held = await lookAgain('egi', (each) => condition(each, 'Ready')?.reason === 'ConfirmationRequired');
    expectKstatus(held);
    expect(images().every(({ spec }) => spec.state === 'Active')).toBe(true);
    const word = /confirm-removal: "(.*?)"/.exec(condition(held, 'Ready')?.message ?? '')?.[1] ?? '';
    await house.store.annotate(
      'ImageSubscription',
      { namespace: 'default', name: 'egi' },
      { 'imageproxy.dev/confirm-removal': word },
    );
    await house.untilSubscription('egi', (each) => isTrue(each, 'Ready') && each.status.counts?.retired === 12);
    expect(images().every(({ spec }) => spec.state === 'Deactivated')).toBe(true);
  });

  test('does nothing while it is suspended', async () => {
    publish('1', [listed(ids[0], 'keep')]);
    await house.write('sub.yaml', subscription('egi', { suspend: true }));
    await house.untilSubscription('egi', (each) => each.metadata.finalizers !== undefined);
    expect(origin.requests).toEqual([]);
    await house.write('sub.yaml', subscription('egi', { suspend: false }));
    await house.ready(names[0]);
  });
});
