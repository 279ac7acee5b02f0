import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type Disk, ext4, gzipped, qcow2 } from '../../support/disks.ts';
import { condition, directorySite, House, isTrue, type Manifest, vmimage } from '../../support/house.ts';
import type { ImageSite, VMImage } from '../../../src/api/types.ts';
import { systemClock } from '../../../src/runtime/clock.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';

/** What the design promises about one image, shown on directory sites: each test is one sentence of it. */
let origin: Origin;
let house: House;
const disks = new Map<string, Disk>();

function disk(label: string): Disk {
  const made = disks.get(label) ?? qcow2(label);
  disks.set(label, made);
  origin.route(`/${label}.qcow2`, { body: made.bytes, etag: `"${label}"` });
  return made;
}

const urlOf = (label: string) => `${origin.url}/${label}.qcow2`;
const specOf = (label: string, more: Record<string, unknown> = {}) => ({
  source: { http: { urls: [urlOf(label)] } },
  checksums: { sha256: disk(label).sha256 },
  sites: [{ name: 'shelf' }],
  ...more,
});
const fetches = (label: string) =>
  origin.requests.filter((request) => request.path === `/${label}.qcow2` && request.method === 'GET').length;
const published = (folder: string) =>
  readdirSync(folder).filter((name) => !name.startsWith('.') && name !== 'index.json');
const ask = (name: string, at: string) =>
  house.store.annotate('VMImage', { namespace: 'default', name }, { 'imageproxy.dev/requestedAt': at });
/** Annotates the image with what its row asks for, to let go of what is held there. */
const confirmRemoval = ({ metadata, status }: VMImage) => {
  const word = /imageproxy\.dev\/confirm-removal: (\S+)/.exec(status.sites?.[0]?.message ?? '')?.[1] ?? '';
  const annotations = { 'imageproxy.dev/confirm-removal': word };
  return house.store.annotate('VMImage', { namespace: 'default', name: metadata.name }, annotations);
};

/** The place of the site cannot be reached, and the site knows it. */
async function siteIsAway(at: string): Promise<void> {
  renameSync(house.shelf, `${house.shelf}.away`);
  await house.store.annotate('ImageSite', { name: 'shelf' }, { 'imageproxy.dev/requestedAt': at });
  await house.untilSite('shelf', (now) => condition(now, 'Ready')?.status === 'False');
}

async function siteIsBack(at: string): Promise<void> {
  renameSync(`${house.shelf}.away`, house.shelf);
  await house.store.annotate('ImageSite', { name: 'shelf' }, { 'imageproxy.dev/requestedAt': at });
  await house.untilSite('shelf', (now) => isTrue(now, 'Ready'));
}

beforeEach(async () => {
  origin = await startOrigin();
  house = new House();
  await house.write('shelf.yaml', directorySite('shelf', house.shelf));
  await house.start();
});

afterEach(async () => {
  await house.close();
  await origin.close();
});

describe('bytes', () => {
  test('are fetched once for two images with one digest', async () => {
    await house.write('two.yaml', vmimage('one', specOf('same')), vmimage('two', specOf('same')));
    await Promise.all([house.ready('one'), house.ready('two')]);
    expect(fetches('same')).toBe(1);
    expect(house.row('one', 'shelf')?.imageID).not.toBe(house.row('two', 'shelf')?.imageID);
  });

  test('that come quickly from one place end the slow download of the same bytes from another', async () => {
    const made = disk('twice');
    origin.route('/slow.qcow2', { body: made.bytes, stallAfter: 200_000 });
    await house.write(
      'slow.yaml',
      vmimage('slow', { ...specOf('twice'), source: { http: { urls: [urlOf('slow')] } } }),
    );
    await origin.stalled();
    await house.write('quick.yaml', vmimage('quick', specOf('twice')));
    await Promise.all([house.ready('slow'), house.ready('quick')]);
    expect([fetches('slow'), fetches('twice')]).toEqual([1, 1]);
  });

  test('are used again after a restart without a request to the origin', async () => {
    await house.write('a.yaml', vmimage('a', specOf('kept')));
    await house.ready('a');
    await house.stop();
    await house.start();
    await house.write('b.yaml', vmimage('b', specOf('kept')));
    await house.ready('b');
    expect(fetches('kept')).toBe(1);
  });

  test('come from the next mirror when the first serves something else, and the wrong mirror is not asked again', async () => {
    const good = disk('good');
    disk('evil');
    await house.write(
      'm.yaml',
      vmimage('m', { ...specOf('good'), source: { http: { urls: [urlOf('evil'), urlOf('good')] } } }),
    );
    await house.ready('m');
    expect(fetches('evil')).toBe(1);
    expect(house.image('m')?.status.artifacts?.[0]).toMatchObject({ digest: `sha256:${good.sha256}` });
  });

  test('fetched with credentials are not served to another namespace, which fetches them itself and may be refused', async () => {
    const secret = disk('secret');
    origin.route('/secret.qcow2', (request) =>
      request.headers.authorization === `Basic ${Buffer.from('user:pass').toString('base64')}`
        ? { body: secret.bytes }
        : { status: 401 },
    );
    const credentials: Manifest = {
      kind: 'Secret',
      metadata: { name: 'login', annotations: { 'imageproxy.dev/hosts': '127.0.0.1' } },
      stringData: { username: 'user', password: 'pass' },
    };
    await house.write(
      'a.yaml',
      credentials,
      vmimage('mine', {
        ...specOf('secret'),
        source: { http: { urls: [urlOf('secret')], secretRef: { name: 'login' } } },
      }),
    );
    origin.route('/secret.qcow2', (request) =>
      request.headers.authorization === `Basic ${Buffer.from('user:pass').toString('base64')}`
        ? { body: secret.bytes }
        : { status: 401 },
    );
    await house.ready('mine');
    const theirs = vmimage('theirs', { ...specOf('secret') });
    origin.route('/secret.qcow2', (request) =>
      request.headers.authorization === `Basic ${Buffer.from('user:pass').toString('base64')}`
        ? { body: secret.bytes }
        : { status: 401 },
    );
    await house.write('b.yaml', { ...theirs, metadata: { name: 'theirs', namespace: 'other' } });
    const refused = await house.stalled('theirs');
    expect(condition(refused, 'Ready')?.reason).toBe('Unauthorized');
    expect(house.lines.join('')).not.toContain('dXNlcjpwYXNz');
  });

  test('that another namespace has fetched are served without its address being told', async () => {
    const made = disk('shared');
    origin.route('/theirs-alone.qcow2', { body: made.bytes });
    const theirs = { ...specOf('shared'), source: { http: { urls: [urlOf('theirs-alone')] } } };
    await house.write('t.yaml', vmimage('theirs', theirs));
    await house.ready('theirs');
    const ours = vmimage('ours', specOf('shared'));
    await house.write('o.yaml', { ...ours, metadata: { name: 'ours', namespace: 'other' } });
    await house.ready('ours');
    expect(fetches('shared')).toBe(0);
    expect(JSON.stringify(house.image('ours', 'other')?.status)).not.toContain('theirs-alone');
    expect(house.image('theirs')?.status.artifacts?.[0]?.source).toBe(urlOf('theirs-alone'));
  });

  test('need a Secret that says where it may be sent', async () => {
    const without: Manifest = { kind: 'Secret', metadata: { name: 'login' }, stringData: { token: 'x-very-secret' } };
    const image = vmimage('s', {
      ...specOf('hosts'),
      source: { http: { urls: [urlOf('hosts')], secretRef: { name: 'login' } } },
    });
    await house.write('s.yaml', without, image);
    const stalled = await house.stalled('s');
    expect(condition(stalled, 'Ready')).toMatchObject({ reason: 'SecretHostsMissing' });
    expect(condition(stalled, 'Ready')?.message).toContain('imageproxy.dev/hosts');
    expect(fetches('hosts')).toBe(0);
    await house.write(
      's.yaml',
      { ...without, metadata: { name: 'login', annotations: { 'imageproxy.dev/hosts': '127.0.0.1' } } },
      image,
    );
    await house.ready('s');
    expect(JSON.stringify(house.image('s'))).not.toContain('x-very-secret');
  });

  test('that are missing a Secret wait for it by name, and go on when it is there', async () => {
    const image = vmimage('w', {
      ...specOf('waits'),
      source: { http: { urls: [urlOf('waits')], secretRef: { name: 'later' } } },
    });
    await house.write('w.yaml', image);
    const waiting = await house.until('w', (now) => condition(now, 'Ready')?.reason === 'SecretNotFound');
    expect(isTrue(waiting, 'Stalled')).toBe(false);
    await house.write('z.yaml', {
      kind: 'Secret',
      metadata: { name: 'later', annotations: { 'imageproxy.dev/hosts': '127.0.0.1' } },
      stringData: { token: 't' },
    });
    await house.ready('w');
  });

  test('of a page of HTML are refused as what they are', async () => {
    origin.route('/page', {
      body: Buffer.from(
        `<!DOCTYPE html><html><head><title>Log in</title></head><body>${' '.repeat(70_000)}</body></html>`,
      ),
    });
    await house.write(
      'p.yaml',
      vmimage('p', {
        source: { http: { urls: [`${origin.url}/page`] } },
        verification: { insecureSkipVerify: true },
        sites: [{ name: 'shelf' }],
      }),
    );
    const page = await house.stalled('p');
    expect(condition(page, 'Ready')?.reason).toBe('NotAnImage');
    expect(condition(page, 'Ready')?.message).toContain('HTML');
  });

  test('proven by sha1 alone are taken only where the image says so', async () => {
    const weak = disk('weak');
    const spec = { ...specOf('weak'), checksums: { sha1: weak.sha1 } };
    await house.write('w.yaml', vmimage('w', { ...spec, verification: { allowWeak: true } }));
    await house.ready('w');
    await house.write(
      'strict.yaml',
      directorySite('strict', join(house.root, 'strict'), { verification: { allowWeak: false } }),
    );
    mkdirSync(join(house.root, 'strict'));
    await house.write(
      'w2.yaml',
      vmimage('w2', { ...spec, verification: { allowWeak: true }, sites: [{ name: 'strict' }] }),
    );
    expect(condition(await house.stalled('w2'), 'Ready')?.reason).toBe('WeakChecksum');
  });

  test('without any checksum are taken where the image says so, once for each source', async () => {
    disk('bare');
    await house.write(
      'b.yaml',
      vmimage('b', {
        source: { http: { urls: [urlOf('bare')] } },
        verification: { insecureSkipVerify: true },
        sites: [{ name: 'shelf' }],
      }),
    );
    const first = await house.ready('b');
    await ask('b', '1');
    await house.until('b', (now) => now.status.lastHandledReconcileAt === '1' && isTrue(now, 'Ready'));
    expect(fetches('bare')).toBe(1);
    expect(house.row('b', 'shelf')?.imageID).toBe(first.status.sites?.[0]?.imageID);
  });

  test('declared only by their content are unpacked before anything is kept', async () => {
    const raw = ext4('content');
    const packed = gzipped(raw);
    origin.route('/content.gz', { body: packed.bytes });
    const spec = {
      source: { http: { urls: [`${origin.url}/content.gz`] } },
      contentChecksums: { sha256: raw.sha256 },
      sites: [{ name: 'shelf' }],
    };
    await house.write('c.yaml', vmimage('c', spec));
    await house.ready('c');
    // Said of the file, not of what is in it: what is kept must not be taken for packed.
    const other = ext4('content-too');
    origin.route('/other.gz', { body: gzipped(other).bytes });
    const said = { contentChecksums: { sha256: other.sha256 }, compression: 'Gzip', format: 'Raw' };
    await house.write(
      'e.yaml',
      vmimage('e', { ...spec, ...said, source: { http: { urls: [`${origin.url}/other.gz`] } } }),
    );
    await house.ready('e');
    await house.write('d.yaml', vmimage('d', { ...spec, contentChecksums: { sha256: 'cd'.repeat(32) } }));
    expect(condition(await house.stalled('d'), 'Ready')?.reason).toBe('DigestMismatch');
  });
});

describe('wrong bytes', () => {
  test.each([
    ['only one', []],
    ['beside one that has nothing', ['nowhere']],
  ])(
    'of one mirror, %s, are not fetched again until it says that it has others; it is asked every 6 hours, without a byte',
    async (_, others) => {
      let hours = 0;
      await house.close();
      house = new House({ clock: { ...systemClock, now: () => Date.now() + hours * 3_600_000 } });
      await house.write('shelf.yaml', directorySite('shelf', house.shelf));
      await house.start();
      const [wrong, right] = [disk('stale'), disk('fresh')];
      const spec = { ...specOf('fresh'), source: { http: { urls: ['stale', ...others].map(urlOf) } } };
      await house.write('s.yaml', vmimage('s', spec));
      await house.stalled('s');
      expect(fetches('stale')).toBe(1);
      const later = async (note: string) => {
        hours += 7;
        await house.store.annotate('VMImage', { namespace: 'default', name: 's' }, { note });
      };
      const before = house.image('s')?.status.failure?.nextAttemptTime;
      await later('seven hours later');
      await house.until('s', (now) => now.status.failure?.nextAttemptTime !== before, 'another look in six hours');
      expect(fetches('stale')).toBe(2);
      expect(isTrue(house.image('s') as never, 'Stalled')).toBe(true);
      origin.route('/stale.qcow2', { body: right.bytes, etag: '"mended"' });
      await later('fourteen hours later');
      await house.ready('s');
      expect(wrong.sha256).not.toBe(right.sha256);
    },
  );
});

describe('sites', () => {
  test('that are away give no old failure as the answer to a corrected spec', async () => {
    const limits = { visibilities: ['Private'] };
    await house.write('shelf.yaml', directorySite('shelf', house.shelf, { limits }));
    await house.write('c.yaml', vmimage('c', { ...specOf('corrected'), registration: { visibility: 'Public' } }));
    expect(condition(await house.stalled('c'), 'Ready')?.message).toContain('spec.registration.visibility');
    await siteIsAway('1');
    const [answer] = await Promise.all([
      house.until('c', (now) => now.status.observedGeneration === 2),
      house.write('c.yaml', vmimage('c', specOf('corrected'))),
    ]);
    expect(condition(answer, 'Ready')).toMatchObject({ status: 'False', reason: 'SiteNotReady' });
    expect(isTrue(answer, 'Stalled')).toBe(false);
    await siteIsBack('2');
    await house.ready('c');
  });

  test('that are optional do not keep an image from being Ready; required ones do, and Available tells whether an old image serves', async () => {
    await house.write(
      'o.yaml',
      vmimage('o', { ...specOf('optional'), sites: [{ name: 'shelf' }, { name: 'nowhere', optional: true }] }),
    );
    const image = await house.ready('o');
    expect(image.status.summary?.sites).toBe('1/2');
    expect(house.row('o', 'nowhere')).toMatchObject({ phase: 'Pending', reason: 'SiteNotFound' });
    await house.write('o.yaml', vmimage('o', { ...specOf('missing-yet'), checksums: { sha256: 'ee'.repeat(32) } }));
    const stalled = await house.stalled('o');
    expect(isTrue(stalled, 'Ready')).toBe(false);
    expect(isTrue(stalled, 'Available')).toBe(true);
  });

  test('are chosen by labels; one that no longer matches keeps its image until a person confirms', async () => {
    await house.write('shelf.yaml', {
      ...directorySite('shelf', house.shelf),
      metadata: { name: 'shelf', labels: { zone: 'a' } },
    });
    const { sites: _, ...spec } = specOf('selected');
    await house.write('s.yaml', vmimage('s', { ...spec, siteSelector: { matchLabels: { zone: 'a' } } }));
    await house.ready('s');
    await house.write('shelf.yaml', {
      ...directorySite('shelf', house.shelf),
      metadata: { name: 'shelf', labels: { zone: 'b' } },
    });
    const held = await house.until('s', (now) => now.status.sites?.[0]?.reason === 'ConfirmationRequired');
    expect(published(house.shelf)).toHaveLength(1);
    await confirmRemoval(held);
    await house.until('s', (now) => now.status.sites?.length === 0);
    expect(published(house.shelf)).toEqual([]);
  });

  test.each([
    ['no longer match', { labels: { zone: 'a' } }, {}, 'ConfirmationRequired', 'that the message spells out'],
    ['no longer match', { labels: { zone: 'a' } }, {}, 'ConfirmationRequired', 'shelf'],
    ['no longer admit the namespace', {}, { allowedNamespaces: ['other'] }, 'NamespaceNotAllowed', 'shelf'],
  ] as const)(
    'that %s are cleaned up once for each word, which stays where it is',
    async (_, well, closing, reason, word) => {
      const place = (isOpen: boolean) => ({
        ...directorySite('shelf', house.shelf, isOpen ? {} : closing),
        metadata: { name: 'shelf', ...(isOpen ? well : {}) },
      });
      const { sites: _sites, ...spec } = specOf('once');
      const siteSelector = 'labels' in well ? { matchLabels: well.labels } : {};
      await house.write('shelf.yaml', place(true));
      await house.write('once.yaml', vmimage('once', { ...spec, siteSelector }));
      await house.ready('once');
      await house.write('shelf.yaml', place(false));
      const held = await house.until('once', (now) => now.status.sites?.[0]?.reason === reason);
      if (word === 'shelf') {
        const key = { namespace: 'default', name: 'once' };
        await house.store.annotate('VMImage', key, { 'imageproxy.dev/confirm-removal': word });
      } else await confirmRemoval(held);
      await house.until('once', (now) => now.status.sites?.length === 0);
      await house.write('shelf.yaml', place(true));
      await house.until('once', (now) => isTrue(now, 'Ready') && now.status.sites?.[0]?.imageID !== undefined);
      expect(published(house.shelf)).toHaveLength(1);
      // A slip of the hand, while the word of the last time is still there.
      await house.write('shelf.yaml', place(false));
      const again = await house.until(
        'once',
        (now) => now.status.sites?.length === 0 || now.status.sites?.[0]?.reason === reason,
      );
      expect(again.metadata.annotations?.['imageproxy.dev/confirm-removal']).toMatch(/^shelf/);
      expect(again.status.sites).toMatchObject([{ name: 'shelf', reason }]);
      expect(published(house.shelf)).toHaveLength(1);
      // What a person says of it now counts as it did the first time.
      await confirmRemoval(again);
      await house.until('once', (now) => now.status.sites?.length === 0);
      expect(published(house.shelf)).toEqual([]);
    },
  );

  test('taken out of spec.sites lose the image only after the remaining ones are Ready', async () => {
    const second = join(house.root, 'second');
    mkdirSync(second);
    await house.write('second.yaml', directorySite('second', second));
    await house.write('r.yaml', vmimage('r', specOf('moved')));
    await house.ready('r');
    await house.write('r.yaml', vmimage('r', { ...specOf('moved'), sites: [{ name: 'absent' }] }));
    await house.until(
      'r',
      (now) => now.status.sites?.some((row) => row.name === 'shelf' && row.reason === 'WaitsForOthers') === true,
    );
    expect(published(house.shelf)).toHaveLength(1);
    await house.write('r.yaml', vmimage('r', { ...specOf('moved'), sites: [{ name: 'second' }] }));
    await house.until(
      'r',
      (now) => now.status.sites?.every((row) => row.name === 'second') === true && isTrue(now, 'Ready'),
    );
    expect(published(house.shelf)).toEqual([]);
    expect(published(second)).toHaveLength(1);
  });

  test('that are all optional take the place of one that was taken out only when one of them serves', async () => {
    const second = join(house.root, 'second');
    await house.write('r.yaml', vmimage('r', specOf('all-optional')));
    await house.ready('r');
    const sites = [{ name: 'second', optional: true }];
    await house.write('r.yaml', vmimage('r', { ...specOf('all-optional'), sites }));
    await house.until(
      'r',
      (now) => now.status.sites?.some((row) => row.name === 'shelf' && row.reason === 'WaitsForOthers') === true,
    );
    expect(published(house.shelf)).toHaveLength(1);
    mkdirSync(second);
    await house.write('second.yaml', directorySite('second', second));
    await house.until('r', (now) => now.status.sites?.every((row) => row.name === 'second') === true);
    expect(published(second)).toHaveLength(1);
    expect(published(house.shelf)).toEqual([]);
  });

  test('that do not admit the namespace get nothing', async () => {
    await house.write('shelf.yaml', directorySite('shelf', house.shelf, { allowedNamespaces: ['prod-*'] }));
    await house.write('n.yaml', vmimage('n', specOf('ns')));
    await house.until('n', (now) => now.status.sites?.[0]?.reason === 'NamespaceNotAllowed');
    expect(published(house.shelf)).toEqual([]);
  });

  test('limit visibility and size, with a message that names the field', async () => {
    await house.write(
      'shelf.yaml',
      directorySite('shelf', house.shelf, { limits: { visibilities: ['Private'] }, maxImageSize: '1Ki' }),
    );
    await house.write(
      'v.yaml',
      vmimage('v', { ...specOf('limits'), registration: { visibility: 'Public' } }),
      vmimage('big', specOf('limits')),
    );
    expect(condition(await house.stalled('v'), 'Ready')?.message).toContain('spec.registration.visibility');
    expect(condition(await house.stalled('big'), 'Ready')?.reason).toBe('TooLarge');
  });

  test('that are closed to a namespace or tightened later keep what they have, and let it be cleaned up', async () => {
    await house.write(
      't.yaml',
      vmimage('t', { ...specOf('tight'), registration: { tags: ['blue'] } }),
      vmimage('u', specOf('tight')),
    );
    await house.ready('t');
    await house.ready('u');
    const closed = { allowedNamespaces: ['nobody'], limits: { visibilities: ['Public'] } };
    await house.write('shelf.yaml', directorySite('shelf', house.shelf, closed));
    const told = await house.until('t', (now) => now.status.sites?.[0]?.reason === 'NamespaceNotAllowed');
    expect(isTrue(told, 'Ready')).toBe(true);
    await house.delete('t');
    await house.gone('t');
    expect(published(house.shelf)).toHaveLength(1);
    await confirmRemoval(await house.until('u', (now) => now.status.sites?.[0]?.reason === 'NamespaceNotAllowed'));
    await house.until('u', (now) => now.status.sites?.[0]?.imageID === undefined);
    expect(published(house.shelf)).toEqual([]);
  });

  test('whose limits are tightened keep serving what they serve', async () => {
    await house.write(
      'k.yaml',
      vmimage('k', { ...specOf('limits-later'), registration: { properties: { colour: 'red' } } }),
    );
    await house.ready('k');
    await house.write('shelf.yaml', directorySite('shelf', house.shelf, { limits: { propertyKeys: ['shape'] } }));
    await ask('k', '1');
    await house.until('k', (now) => now.status.lastHandledReconcileAt === '1' && isTrue(now, 'Ready'));
    await house.write(
      'k.yaml',
      vmimage('k', { ...specOf('limits-later'), registration: { properties: { colour: 'blue' } } }),
    );
    expect(condition(await house.stalled('k'), 'Ready')?.message).toContain('"colour"');
  });

  test('that are somewhere else all of a sudden are IdentityChanged, and nothing there is made or deleted', async () => {
    await house.write('i.yaml', vmimage('i', specOf('identity')));
    await house.ready('i');
    renameSync(join(house.shelf, '.imageproxy-site.json'), join(house.root, 'marker'));
    const other = new House();
    await other.write('shelf.yaml', directorySite('shelf', other.shelf));
    await other.start();
    await other.untilSite('shelf', (site) => isTrue(site, 'Ready'));
    await other.stop();
    rmSync(join(house.shelf, '.imageproxy-site.json'), { force: true });
    renameSync(join(other.shelf, '.imageproxy-site.json'), join(house.shelf, '.imageproxy-site.json'));
    await house.store.annotate('ImageSite', { name: 'shelf' }, { 'imageproxy.dev/requestedAt': '1' });
    const site = await house.untilSite('shelf', (now) => condition(now, 'Ready')?.reason === 'IdentityChanged');
    expect(isTrue(site, 'Stalled')).toBe(true);
    await ask('i', '1');
    await house.until('i', (now) => now.status.sites?.[0]?.reason === 'IdentityChanged');
    expect(published(house.shelf)).toHaveLength(1);
    await other.close();
  });

  test('and their images are looked at when Flux asks, though somebody else has asked before', async () => {
    await house.write('f.yaml', vmimage('f', specOf('flux')));
    await house.ready('f');
    const annotate = (annotations: Record<string, string>) =>
      Promise.all([
        house.store.annotate('VMImage', { namespace: 'default', name: 'f' }, annotations),
        house.store.annotate('ImageSite', { name: 'shelf' }, annotations),
      ]);
    const handled = (at: string) =>
      Promise.all([
        house.until('f', (now) => now.status.lastHandledReconcileAt === at && isTrue(now, 'Ready')),
        house.untilSite('shelf', (now) => now.status.lastHandledReconcileAt === at && isTrue(now, 'Ready')),
      ]);
    await annotate({ 'imageproxy.dev/requestedAt': '2026-11-21T12:00:00.000Z' });
    await handled('2026-11-21T12:00:00.000Z');
    await annotate({ 'reconcile.fluxcd.io/requestedAt': '2026-11-21T12:05:00.123456789Z' });
    await handled('2026-11-21T12:05:00.123456789Z');
    await annotate({ 'imageproxy.dev/requestedAt': '2026-11-21T12:10:00.000Z' });
    await handled('2026-11-21T12:10:00.000Z');
  });

  test('that come back from a pause, or are made again under the same name, are probed at once', async () => {
    await house.untilSite('shelf', (site) => isTrue(site, 'Ready'));
    await house.write('shelf.yaml', directorySite('shelf', house.shelf, { suspend: true }));
    await house.untilSite('shelf', (site) => condition(site, 'Ready')?.reason === 'Suspended');
    await house.write('shelf.yaml', directorySite('shelf', house.shelf));
    await house.untilSite('shelf', (site) => isTrue(site, 'Ready'));
    const { uid } = house.site('shelf')?.metadata ?? {};
    await house.store.delete('ImageSite', { name: 'shelf' });
    await house.store.scan();
    await house.untilSite('shelf', (site) => site.metadata.uid !== uid && isTrue(site, 'Ready'));
  });

  test('that take less than others do not keep the image from those', async () => {
    const wide = join(house.root, 'wide');
    mkdirSync(wide);
    await house.write(
      'shelf.yaml',
      directorySite('shelf', house.shelf, { maxImageSize: '64Ki' }),
      directorySite('wide', wide),
    );
    const made = disk('shared-bound');
    const spec = specOf('shared-bound');
    origin.route('/shared-bound.qcow2', { body: made.bytes, bytesPerSecond: 4_000_000 });
    await house.write('both.yaml', vmimage('narrow', spec), vmimage('wide', { ...spec, sites: [{ name: 'wide' }] }));
    expect(condition(await house.stalled('narrow'), 'Ready')?.reason).toBe('TooLarge');
    await house.ready('wide');
    expect(published(wide)).toHaveLength(1);
  });

  test('that are another place now, as confirmed, get the image anew once a person lets go of what is left behind', async () => {
    await house.write('c.yaml', vmimage('c', specOf('elsewhere')));
    const before = await house.ready('c');
    // Another site's folder, with a marker of its own.
    const other = new House();
    await other.write('shelf.yaml', directorySite('shelf', other.shelf));
    await other.start();
    await other.untilSite('shelf', (now) => isTrue(now, 'Ready'));
    await other.stop();
    const fresh = other.shelf;
    await house.write('shelf.yaml', directorySite('shelf', fresh));
    const site = await house.untilSite('shelf', (now) => condition(now, 'Ready')?.reason === 'IdentityChanged');
    const identity = /and is (directory \S+) now/.exec(condition(site, 'Ready')?.message ?? '')?.[1] ?? '';
    await house.store.annotate('ImageSite', { name: 'shelf' }, { 'imageproxy.dev/confirm-identity': identity });
    await house.untilSite('shelf', (now) => isTrue(now, 'Ready'));
    await confirmRemoval(
      await house.until(
        'c',
        (now) => now.status.sites?.[0]?.message?.includes('imageproxy.dev/confirm-removal: shelf') === true,
      ),
    );
    await house.until('c', (now) => isTrue(now, 'Ready') && now.status.sites?.[0]?.siteIdentity === identity);
    expect(published(fresh)).toEqual([`${house.row('c', 'shelf')?.imageID}.qcow2`]);
    expect(published(house.shelf)).toEqual([`${before.status.sites?.[0]?.imageID}.qcow2`]);
    await other.close();
  });

  test('are kept from deletion while images are registered there', async () => {
    await house.write('d.yaml', vmimage('d', specOf('in-use')));
    await house.ready('d');
    await house.store.delete('ImageSite', { name: 'shelf' });
    const site = await house.untilSite('shelf', (now) => isTrue(now, 'DeletionHeld'));
    expect(condition(site, 'DeletionHeld')?.message).toContain('default/d');
    await house.delete('d');
    await house.gone('d');
    expect(published(house.shelf)).toEqual([]);
  });
});

describe('registrations', () => {
  test('are never shared: the older image with a guid serves, the younger is Stalled, and takes over without an upload when the older goes', async () => {
    await house.write('old.yaml', vmimage('old', { ...specOf('guid'), guid: 'the-guid' }));
    const old = await house.ready('old');
    await house.write('young.yaml', vmimage('young', { ...specOf('guid'), guid: 'the-guid' }));
    const young = await house.stalled('young');
    expect(condition(young, 'Ready')).toMatchObject({ reason: 'GuidInUse' });
    const files = published(house.shelf);
    await house.delete('old');
    await house.gone('old');
    const taken = await house.ready('young');
    expect(taken.status.sites?.[0]?.imageID).toBe(old.status.sites?.[0]?.imageID);
    expect(published(house.shelf)).toEqual(files);
  });

  test('that went to a younger image which never gets its bytes are removed with that one', async () => {
    await house.write('old.yaml', vmimage('old', { ...specOf('left'), guid: 'left-guid' }));
    await house.ready('old');
    const source = { http: { urls: [urlOf('nowhere')] } };
    await house.write('young.yaml', vmimage('young', { ...specOf('left'), source, guid: 'left-guid' }));
    await house.stalled('young');
    const files = published(house.shelf);
    await house.delete('old');
    await house.gone('old');
    expect(published(house.shelf)).toEqual(files);
    await house.delete('young');
    await house.gone('young');
    expect(published(house.shelf)).toEqual([]);
  });

  test('are found again when the state is lost and the instance keeps its name', async () => {
    await house.close();
    house = new House();
    await house.write('shelf.yaml', directorySite('shelf', house.shelf));
    await house.start({ instance: 'my-site' });
    await house.write('l.yaml', vmimage('l', specOf('lost')));
    const before = await house.ready('l');
    await house.stop();
    rmSync(house.state, { recursive: true });
    await house.start({ instance: 'my-site' });
    const after = await house.ready('l');
    expect(after.metadata.uid).not.toBe(before.metadata.uid);
    expect(after.status.sites?.[0]?.imageID).toBe(before.status.sites?.[0]?.imageID);
    expect(published(house.shelf)).toHaveLength(1);
  });

  test('of another instance are never taken', async () => {
    await house.write('x.yaml', vmimage('x', { ...specOf('theirs'), guid: 'one-guid' }));
    const mine = await house.ready('x');
    await house.stop();
    const state = house.state;
    renameSync(state, `${state}.first`);
    await house.start({ instance: 'somebody-else' });
    const theirs = await house.ready('x');
    expect(theirs.status.sites?.[0]?.imageID).not.toBe(mine.status.sites?.[0]?.imageID);
    expect(published(house.shelf)).toHaveLength(2);
  });

  test('are kept when the policy is changed to Retain while the deletion is held', async () => {
    await house.write('k.yaml', vmimage('k', specOf('held')));
    await house.ready('k');
    const folder = `${house.shelf}.away`;
    renameSync(house.shelf, folder);
    await house.store.annotate('ImageSite', { name: 'shelf' }, { 'imageproxy.dev/requestedAt': '1' });
    await house.untilSite('shelf', (now) => condition(now, 'Ready')?.status === 'False');
    await house.delete('k');
    const held = await house.until('k', (now) => condition(now, 'Ready')?.reason === 'DeletionHeld');
    for (const way of ['repair the site', 'Retain', 'abandoned'])
      expect(condition(held, 'Ready')?.message).toContain(way);
    await house.write('k.yaml', vmimage('k', { ...specOf('held'), deletionPolicy: 'Retain' }));
    await house.gone('k');
    expect(published(folder)).toHaveLength(1);
  });

  test('that were altered stay so while their site is away, and after it', async () => {
    await house.write('t.yaml', vmimage('t', specOf('altered')));
    await house.ready('t');
    const [file = ''] = published(house.shelf);
    rmSync(join(house.shelf, file));
    writeFileSync(join(house.shelf, file), 'other bytes');
    await ask('t', '1');
    await house.until('t', (now) => now.status.sites?.[0]?.reason === 'Tampered');
    const said = new Set<string | undefined>();
    house.store.subscribe<VMImage>('VMImage', ({ object }) => void said.add(condition(object, 'Ready')?.reason));
    await siteIsAway('1');
    await ask('t', '2');
    await siteIsBack('2');
    await ask('t', '3');
    const handled = await house.until('t', (now) => now.status.lastHandledReconcileAt === '3');
    expect([...said]).toEqual(['Tampered']);
    expect(isTrue(handled, 'Available')).toBe(false);
  });

  test('at an abandoned site are forgotten, so that the deletion ends', async () => {
    await house.write('a.yaml', vmimage('a', specOf('abandoned')));
    await house.ready('a');
    renameSync(house.shelf, `${house.shelf}.away`);
    await house.write('shelf.yaml', directorySite('shelf', house.shelf, { abandoned: true }));
    await house.untilSite('shelf', (now) => condition(now, 'Ready')?.reason === 'Abandoned');
    await house.delete('a');
    await house.gone('a');
  });

  test('are looked at in every interval without a word in their status, and one that is lost is made again', async () => {
    let minutes = 0;
    await house.close();
    house = new House({ clock: { ...systemClock, now: () => Date.now() + minutes * 60_000 } });
    await house.write('shelf.yaml', directorySite('shelf', house.shelf));
    await house.start();
    await house.write('r.yaml', vmimage('r', specOf('resting')), vmimage('stays', specOf('stays')));
    await house.ready('r');
    await house.ready('stays');
    await house.untilSite('shelf', (now) => now.status.counts?.registered === 2);
    const said = new Set<string>();
    const saidOfSites = new Set<string>();
    house.store.subscribe<VMImage>('VMImage', ({ object }) => {
      said.add(`${object.metadata.name} ${JSON.stringify(object.status)}`);
    });
    house.store.subscribe<ImageSite>('ImageSite', ({ object }) => void saidOfSites.add(JSON.stringify(object.status)));
    // Whatever wakes them, time is all that has changed.
    const later = async () => {
      minutes += 46;
      const note = { note: String(minutes) };
      for (const name of ['r', 'stays']) await house.store.annotate('VMImage', { namespace: 'default', name }, note);
      await house.store.annotate('ImageSite', { name: 'shelf' }, note);
    };
    const rounds = async () => {
      const { body } = await house.controller.metrics.expose();
      return Number(/^imageproxy_reconcile_total\{kind="VMImage"\} (\d+)$/m.exec(body)?.[1]);
    };
    for (let interval = 0; interval < 5; interval++) {
      const before = await rounds();
      await later();
      // Of each image one round that begins the look, and one that hears what it has found.
      await expect.poll(rounds).toBeGreaterThanOrEqual(before + 4);
      await expect.poll(() => house.controller.jobsRunning).toBe(0);
    }
    expect([said.size, saidOfSites.size]).toEqual([2, 1]);
    const id = house.row('r', 'shelf')?.imageID ?? '';
    for (const folder of [house.shelf, join(house.shelf, '.records')])
      for (const name of readdirSync(folder)) if (name.startsWith(id)) rmSync(join(folder, name), { recursive: true });
    // A look that was still on its way saw the image as it was: then the next one finds the loss.
    const losses = async () => {
      await later();
      return house.row('r', 'shelf')?.losses?.length;
    };
    await expect.poll(losses, { interval: 300 }).toBe(1);
    await house.ready('r');
  });

  test('that are gone are only told where the site says so, and made again when somebody asks', async () => {
    await house.write('shelf.yaml', directorySite('shelf', house.shelf, { drift: { policy: 'Report' } }));
    await house.write('l.yaml', vmimage('l', specOf('lost')));
    await house.ready('l');
    const id = house.row('l', 'shelf')?.imageID ?? '';
    for (const folder of [house.shelf, join(house.shelf, '.records')])
      for (const name of readdirSync(folder)) if (name.startsWith(id)) rmSync(join(folder, name), { recursive: true });
    await ask('l', '1');
    const lost = await house.until('l', (now) => condition(now, 'Ready')?.reason === 'Lost');
    expect(condition(lost, 'Ready')?.message).toMatch(/^shelf: .* is gone from shelf, .*\(imageproxy reconcile\)$/);
    expect(isTrue(lost, 'Available')).toBe(false);
    expect(published(house.shelf)).toEqual([]);
    await ask('l', '2');
    await house.until('l', (now) => isTrue(now, 'Ready') && now.status.sites?.[0]?.losses?.length === 1);
    expect(published(house.shelf)).toHaveLength(1);
  });

  test('are not made again when many are gone at once, until a person confirms', async () => {
    const labels = ['m1', 'm2', 'm3', 'm4', 'm5'];
    await house.write('many.yaml', ...labels.map((label) => vmimage(label, specOf(label))));
    for (const label of labels) await house.ready(label);
    const index = JSON.parse(readFileSync(join(house.shelf, 'index.json'), 'utf8')) as unknown;
    expect(index).toBeTruthy();
    for (const name of readdirSync(house.shelf))
      if (!name.startsWith('.imageproxy-')) rmSync(join(house.shelf, name), { recursive: true });
    for (const label of labels) await ask(label, '1');
    const lost = await house.until('m1', (now) => now.status.sites?.[0]?.reason === 'MassLoss');
    expect(lost.status.sites?.[0]?.message).toContain('5 of 5');
    expect(published(house.shelf)).toEqual([]);
    await house.store.annotate(
      'ImageSite',
      { name: 'shelf' },
      { 'imageproxy.dev/confirm-loss': new Date(Date.now() + 60_000).toISOString() },
    );
    for (const label of labels) await ask(label, '2');
    for (const label of labels) await house.ready(label);
    expect(published(house.shelf)).toHaveLength(5);
  });

  test('that vanish are made again at most three times a day', async () => {
    await house.write('v.yaml', vmimage('v', specOf('vanishing')), vmimage('stays', specOf('stays')));
    await house.ready('v');
    await house.ready('stays');
    for (let time = 1; time <= 4; time++) {
      const id = house.row('v', 'shelf')?.imageID ?? '';
      for (const folder of [house.shelf, join(house.shelf, '.records')]) {
        for (const name of readdirSync(folder))
          if (name.startsWith(id)) rmSync(join(folder, name), { recursive: true });
      }
      await ask('v', `look-${time}`);
      if (time < 4)
        await house.until('v', (now) => (now.status.sites?.[0]?.losses?.length ?? 0) === time && isTrue(now, 'Ready'));
    }
    const limited = await house.until('v', (now) => now.status.sites?.[0]?.reason === 'LossLimit');
    expect(isTrue(limited, 'Available')).toBe(false);
  });

  test('of several parts carry three ids; the same metafile asked for twice is one download and the same ids', async () => {
    const [root, kernel, ramdisk] = [disk('root'), gzipped(ext4('kernel')), gzipped(ext4('ramdisk'))];
    origin.route('/vmlinuz', { body: kernel.bytes });
    origin.route('/initrd', { body: ramdisk.bytes });
    const part = (type: string, path: string, sha1: string) =>
      `<image><type>${type}</type><signature>${sha1.toUpperCase()}</signature><url>${origin.url}/${path}</url></image>`;
    const xml = Buffer.from(
      `<images>${part('QCOW2', 'root.qcow2', root.sha1)}${part('KERNEL', 'vmlinuz', kernel.sha1)}${part('RAMDISK', 'initrd', ramdisk.sha1)}</images>`,
    );
    origin.route('/image.xml', { body: xml });
    const { createHash } = await import('node:crypto');
    const sha1 = createHash('sha1').update(xml).digest('hex');
    const spec = {
      source: { metafile: { url: `${origin.url}/image.xml`, sha1 } },
      verification: { allowWeak: true },
      sites: [{ name: 'shelf' }],
    };
    const phases: (string | undefined)[] = [];
    const end = house.store.subscribe('VMImage', () =>
      phases.push(house.row('orca', 'shelf')?.operation?.kind ?? house.row('orca', 'shelf')?.phase),
    );
    await house.write('orca.yaml', vmimage('orca', spec));
    const image = await house.ready('orca');
    end();
    // Nothing is begun at the site before the metafile has said what the parts are.
    expect(phases.indexOf('Register')).toBeGreaterThan(phases.lastIndexOf('Fetching'));
    const row = image.status.sites?.[0];
    expect([row?.imageID, row?.kernelID, row?.ramdiskID].filter((id) => id !== undefined)).toHaveLength(3);
    expect(row?.digest).toBe(`sha1:${sha1}`);
    await house.write('again.yaml', vmimage('orca', spec));
    await ask('orca', '1');
    const again = await house.until('orca', (now) => now.status.lastHandledReconcileAt === '1' && isTrue(now, 'Ready'));
    expect(again.status.sites?.[0]).toMatchObject({
      imageID: row?.imageID,
      kernelID: row?.kernelID,
      ramdiskID: row?.ramdiskID,
    });
    expect(fetches('root')).toBe(1);
    await house.delete('orca');
    await house.gone('orca');
    expect(published(house.shelf)).toEqual([]);
  });

  test('are the same whether a digest is added, taken back or exchanged for another of the same bytes', async () => {
    const { sha256, sha512 } = disk('added');
    const declared: [Record<string, string>, string][] = [
      [{ sha256, sha512 }, `sha512:${sha512}`],
      [{ sha256 }, `sha256:${sha256}`],
      [{ sha512 }, `sha512:${sha512}`],
      [{ sha256, sha512 }, `sha512:${sha512}`],
    ];
    const ids = new Set<string | undefined>();
    for (const [n, [checksums, known]] of declared.entries()) {
      await house.write('s.yaml', vmimage('s', { ...specOf('added'), checksums }));
      const image = await house.until(
        's',
        (now) =>
          now.status.observedGeneration === n + 1 &&
          isTrue(now, 'Ready') &&
          now.status.sites?.[0]?.artifacts?.[0]?.digest === known,
      );
      ids.add(image.status.sites?.[0]?.imageID);
      expect(image.status.sites?.[0]?.previous).toBeUndefined();
    }
    expect(ids.size).toBe(1);
    expect(fetches('added')).toBe(1);
    // The bytes are not needed any more: after a lost cache nothing is fetched again.
    await house.stop();
    rmSync(join(house.state, 'cache'), { recursive: true });
    await house.start();
    await ask('s', '1');
    await house.until('s', (now) => now.status.lastHandledReconcileAt === '1' && isTrue(now, 'Ready'));
    expect(fetches('added')).toBe(1);
  });
});

describe('people', () => {
  test('can suspend an image while its bytes are on their way, and nothing is registered until they take that back', async () => {
    const made = disk('suspended');
    origin.route('/suspended.qcow2', (_, count) =>
      count === 1 ? { body: made.bytes, stallAfter: 100_000 } : { body: made.bytes },
    );
    const spec = specOf('suspended');
    origin.route('/suspended.qcow2', (_, count) =>
      count === 1 ? { body: made.bytes, stallAfter: 100_000 } : { body: made.bytes },
    );
    await house.write('s.yaml', vmimage('s', spec));
    await origin.stalled();
    await house.write('s.yaml', vmimage('s', { ...spec, suspend: true }));
    await house.until('s', (now) => now.status.phase === 'Suspended');
    expect(published(house.shelf)).toEqual([]);
    await house.write('s.yaml', vmimage('s', spec));
    await house.ready('s');
  });

  test('who delete an image while it is downloading leave nothing behind', async () => {
    const made = disk('deleted');
    const spec = specOf('deleted');
    origin.route('/deleted.qcow2', { body: made.bytes, stallAfter: 100_000 });
    await house.write('d.yaml', vmimage('d', spec));
    await origin.stalled();
    await house.delete('d');
    await house.gone('d');
    expect(published(house.shelf)).toEqual([]);
  });

  test('who ask for another try get it at once, whatever the back-off', async () => {
    const made = disk('retry');
    const spec = specOf('retry');
    let healthy = false;
    origin.route('/retry.qcow2', () =>
      healthy ? { body: made.bytes } : { status: 503, headers: { 'retry-after': '3600' } },
    );
    await house.write('r.yaml', vmimage('r', spec));
    const waiting = await house.until('r', (now) => now.status.failure?.reason === 'ServerError');
    expect(Date.parse(waiting.status.failure?.nextAttemptTime ?? '') - Date.now()).toBeGreaterThan(3_000_000);
    healthy = true;
    await ask('r', '1');
    await house.ready('r');
  });

  test('who ask have their answer when it was looked: what is gone is not called Ready, and comes back', async () => {
    const spec = specOf('looked');
    await house.write('l.yaml', vmimage('l', spec));
    await house.ready('l');
    const [file = ''] = published(house.shelf);
    rmSync(join(house.shelf, file));
    await ask('l', '1');
    const answer = await house.until('l', (now) => now.status.lastHandledReconcileAt === '1');
    expect(isTrue(answer, 'Ready')).toBe(false);
    await house.ready('l');
    expect(published(house.shelf)).toHaveLength(1);
    // Asked before the site has been tried: after a start nothing is known of it.
    const [again = ''] = published(house.shelf);
    await house.stop();
    rmSync(join(house.shelf, again));
    const asked = { 'imageproxy.dev/requestedAt': '2' };
    await house.write('l.yaml', { ...vmimage('l', spec), metadata: { name: 'l', annotations: asked } });
    await house.start();
    await house.until('l', (now) => now.status.lastHandledReconcileAt === '2');
    await house.ready('l');
    expect(published(house.shelf)).toHaveLength(1);
  });

  test('who ask while the site is away are answered, and once it is back nothing is asked of it twice', async () => {
    await house.write('l.yaml', vmimage('l', specOf('away')));
    await house.ready('l');
    await siteIsAway('1');
    await ask('l', '1');
    const answer = await house.until('l', (now) => now.status.lastHandledReconcileAt === '1');
    expect(answer.status.sites).toMatchObject([{ phase: 'Ready', reason: 'SiteNotReady' }]);
  });

  test('see that a served image stays Ready when its source is gone, which nobody asks', async () => {
    await house.write('g.yaml', vmimage('g', specOf('source-gone')));
    await house.ready('g');
    origin.route('/source-gone.qcow2', { status: 404 });
    await ask('g', '1');
    await house.until('g', (now) => now.status.lastHandledReconcileAt === '1' && isTrue(now, 'Ready'));
    expect(fetches('source-gone')).toBe(1);
  });

  test.each([
    [
      'Secret',
      { secretRef: { name: 'gone' } },
      { metadata: { name: 'gone', annotations: { 'imageproxy.dev/hosts': '127.0.0.1' } }, stringData: { token: 't' } },
    ],
    [
      'ConfigMap',
      { caRef: { kind: 'ConfigMap', name: 'gone' } },
      { metadata: { name: 'gone' }, data: { 'ca.crt': '' } },
    ],
  ] as const)(
    'see that a served image stays Ready, and is looked after, when its %s is gone; what is missed is told once it is needed',
    async (kind, references, named) => {
      const object: Manifest = { kind, ...named };
      const source = { http: { urls: [urlOf('served')], ...references } };
      await house.write('g.yaml', vmimage('g', { ...specOf('served'), source }), vmimage('stays', specOf('stays')));
      await house.write('gone.yaml', object);
      await house.ready('g');
      await house.ready('stays');
      rmSync(join(house.manifests, 'gone.yaml'));
      const key = { namespace: 'default', name: 'gone' };
      const there = () => (kind === 'Secret' ? house.store.secret(key) : house.store.configMap(key));
      await expect.poll(there).toBeUndefined();
      await ask('g', '1');
      await house.until('g', (now) => now.status.lastHandledReconcileAt === '1' && isTrue(now, 'Ready'));

      const id = house.row('g', 'shelf')?.imageID ?? '';
      for (const folder of [house.shelf, join(house.shelf, '.records')])
        for (const name of readdirSync(folder))
          if (name.startsWith(id)) rmSync(join(folder, name), { recursive: true });
      await ask('g', '2');
      const lost = await house.until('g', (now) => now.status.sites?.[0]?.losses?.length === 1);
      expect(condition(lost, 'Ready')).toMatchObject({ status: 'False', reason: `${kind}NotFound` });
      await house.write('gone.yaml', object);
      await house.ready('g');
    },
  );
});
