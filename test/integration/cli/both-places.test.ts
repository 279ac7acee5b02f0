import { existsSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { VMImage } from '../../../src/api/types.ts';
import { API_SERVER_PATIENCE_MS } from '../../support/apiserver.ts';
import { type Disk, ext4 } from '../../support/disks.ts';
import { directorySite, type Manifest, vmimage } from '../../support/house.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';
import { Program } from './program.ts';
import { openClusterWorld, openDirectoryWorld, type World } from './worlds.ts';

interface Row {
  words: string;
  code: number;
  /** `TITLE` stands for what messages call the place. */
  out?: string | RegExp;
  err?: string | RegExp;
  /** It shows what is written after the status that was waited for. */
  comesLate?: true;
}

/** In this order: what is asked, and what is told on either place, word for word but for the name of the place. */
const TABLE: readonly Row[] = [
  { words: 'wait imgsite/shelf --for=create --timeout 60s', code: 0, out: 'imagesite.imageproxy.dev/shelf created\n' },
  {
    words: 'wait vmimg/a --for=condition=Ready --timeout 60s',
    code: 0,
    out: 'vmimage.imageproxy.dev/a condition met\n',
    err: '',
  },
  {
    words: 'wait vmimg/bad --timeout 60s',
    code: 1,
    out: '',
    err: /^imageproxy: VMImage default\/bad is stalled: .*declared is 0{64}.*\n$/,
  },
  { words: 'wait vmimg/b -n team --timeout 60s', code: 0 },
  { words: 'wait vmimg/a --for=jsonpath={.status.phase}=Ready --timeout 60s', code: 0, out: /condition met\n$/ },
  {
    words: 'wait vmimg/a vmimg/bad imgsite/shelf --for=create --timeout 60s',
    code: 0,
    out: 'vmimage.imageproxy.dev/a created\nvmimage.imageproxy.dev/bad created\nimagesite.imageproxy.dev/shelf created\n',
    err: '',
  },
  { words: 'wait vmimg/none --timeout 60s', code: 3, err: /there is no VMImage default\/none; --for=create waits for/ },
  {
    words: 'wait vmimg/none --for=create --timeout 1s',
    code: 4,
    err: /timed out waiting for create of VMImage default/,
  },
  {
    words: 'get vmimg a',
    code: 0,
    out: /^NAME +READY +PHASE +PROGRESS +IMAGE ID +SITES +MESSAGE +AGE\na +True +Ready +100% +[0-9a-f-]{36} +1\/1 +registered at shelf +\S+\n$/,
  },
  {
    words: 'get vmimages -o name',
    code: 0,
    out: 'vmimage.imageproxy.dev/a\nvmimage.imageproxy.dev/bad\n',
  },
  {
    words: 'get vmimg -A',
    code: 0,
    out: /^NAMESPACE +NAME .*\ndefault +a .*\ndefault +bad .*\nteam +b .*\n$/,
  },
  { words: 'get imgsite', code: 0, out: /^NAME +READY .*\nshelf +True .*\n$/ },
  { words: 'get', code: 0, out: /vmimage\.imageproxy\.dev\/bad +False[^]*imagesite\.imageproxy\.dev\/shelf +True/ },
  {
    words: 'get vmimg -n empty',
    code: 0,
    out: '',
    err: 'nothing found in the namespace empty; there is something in other namespaces: imageproxy get vmimg -A\n',
  },
  { words: 'get imgsub -A', code: 0, out: '', err: 'nothing found\n' },
  {
    words: 'get vmimg/none',
    code: 3,
    out: '',
    err: 'imageproxy: there is no VMImage default/none in TITLE: see "imageproxy get vmimages -A"\n',
  },
  { words: 'get pods', code: 2, err: /one of vmimages \(vmimg\)/ },
  {
    words: 'describe vmimg bad',
    code: 0,
    out: /^Name: +bad\nNamespace: +default\nKind: +VMImage\n[^]*Phase: +Failed\n[^]*Conditions:\n[^]*Ready +False +DigestMismatch[^]*Events:\n[^]*Warning +DigestMismatch[^]*What to do next:\n[^]*imageproxy reconcile vmimg\/bad\n$/,
    comesLate: true,
  },
  { words: 'describe vmimg b -n team', code: 0, out: /What to do next:\n +Nothing: it is as asked for\.\n$/ },
  { words: 'describe imgsite/shelf', code: 0, out: /Identity: +\S+[^]*Images: +\S/ },
  { words: 'describe vmimg none', code: 3, err: 'imageproxy: there is no VMImage default/none in TITLE\n' },
  {
    words: 'reconcile vmimg/a --timeout 60s',
    code: 0,
    out: 'vmimage.imageproxy.dev/a reconciled: registered at shelf\n',
  },
  { words: 'reconcile vmimg/bad --timeout 60s', code: 1, err: /VMImage default\/bad is stalled/ },
  { words: 'reconcile imgsite/shelf --no-wait', code: 0, out: 'imagesite.imageproxy.dev/shelf reconcile requested\n' },
  { words: 'reconcile vmimg/none', code: 3, err: 'imageproxy: there is no VMImage default/none in TITLE\n' },
  {
    words: 'confirm-removal vmimg/a shelf',
    code: 2,
    err: /VMImage default\/a asks for the site "shelf" in spec\.sites: take it out there/,
  },
  { words: 'confirm-removal vmimg/a', code: 2, err: 'imageproxy: name the site: confirm-removal vmimg/a SITE\n' },
  { words: 'confirm-removal imgsite/shelf', code: 2, err: /write vmimg\/NAME shelf/ },
  { words: 'confirm-removal vmimg/a elsewhere', code: 3, err: /is not at the site "elsewhere": it is at shelf/ },
  { words: '__complete -- get vmimg b', code: 0, out: 'bad\n' },
  { words: '__complete -- describe -n team vmimg/', code: 0, out: 'vmimg/b\n' },
  { words: '__complete -- register https://x --site s', code: 0, out: 'shelf\n' },
  { words: '__complete -- get -n te', code: 0, out: 'team\n' },
  { words: 'delete vmimg/none', code: 3, err: 'imageproxy: there is no VMImage default/none in TITLE\n' },
];

describe.each([
  ['a directory', openDirectoryWorld],
  ['a cluster', openClusterWorld],
] as const)('the same commands on %s', (_, open) => {
  let world: World;
  let origin: Origin;
  let disk: Disk;

  beforeAll(async () => {
    [world, origin] = await Promise.all([open(), startOrigin()]);
    disk = ext4('both');
    origin.route('/a', { body: disk.bytes, etag: '"1"' });
    await world.apply(directorySite('shelf', world.shelf));
    await world.apply(image('a', disk.sha256));
    await world.apply(image('bad', '0'.repeat(64)));
    await world.apply(image('b', disk.sha256, 'team'));
  }, API_SERVER_PATIENCE_MS);
  afterAll(async () => {
    await Program.killAll();
    await world?.close();
    await origin?.close();
  });

  function image(name: string, sha256: string, namespace?: string): Manifest {
    const spec = { source: { http: { urls: [`${origin.url}/a`] } }, checksums: { sha256 }, sites: [{ name: 'shelf' }] };
    const manifest = vmimage(name, spec);
    return namespace === undefined ? manifest : { ...manifest, metadata: { name, namespace } };
  }

  test.each(TABLE)('$words', async ({ words, code, out, err, comesLate = false }) => {
    const outcome = () => world.run(...words.split(' '));
    const said = (text: string | RegExp | undefined) =>
      text === undefined
        ? expect.any(String)
        : typeof text === 'string'
          ? text.replaceAll('TITLE', world.title)
          : expect.stringMatching(text);
    const told = { code, out: said(out), err: said(err) };
    if (comesLate) await expect.poll(outcome).toEqual(told);
    else expect(await outcome()).toEqual(told);
  });

  test('register prints the id, and the same one at once when asked again', async () => {
    const other = ext4('registered');
    origin.route('/r', { body: other.bytes, etag: '"1"' });
    const line = ['register', `${origin.url}/r`, '--sha256', other.sha256, '--site', 'shelf'];
    const first = await world.run(...line);
    expect(first).toEqual({
      code: 0,
      out: expect.stringMatching(/^[0-9a-f-]{36}\n$/),
      err: expect.stringMatching(/^sha256-[0-9a-f]+ +Ready +█+ +100%/m),
    });
    expect(existsSync(join(world.shelf, `${first.out.trim()}.raw`))).toBe(true);
    expect(await world.run(...line)).toEqual({ code: 0, out: first.out, err: '' });
    const object = JSON.parse((await world.run(...line, '-o', 'json')).out) as VMImage;
    expect(object.status.summary?.imageID).toBe(first.out.trim());
    // What was not said before is added: it is the same image.
    const named = await world.run(...line, '--property', 'os_distro=debian', '-o', 'json');
    expect((JSON.parse(named.out) as VMImage).spec.registration.properties).toEqual({ os_distro: 'debian' });
    expect(origin.requests.filter(({ path }) => path === '/r')).toHaveLength(1);
  });

  test('register refuses wrong bytes with the reason, and what the schema refuses in its words', async () => {
    const line = ['register', `${origin.url}/a`, '--site', 'shelf'];
    expect(await world.run(...line, '--sha256', '1'.repeat(64))).toMatchObject({
      code: 1,
      out: '',
      err: expect.stringMatching(new RegExp(`imageproxy: .*${disk.sha256}.*\\(DigestMismatch\\)\\n$`)),
    });
    expect(await world.run(...line, '--sha256', '2'.repeat(64), '--property', 'imageproxy_owner=me')).toMatchObject({
      code: 2,
      err: expect.stringMatching(/^imageproxy: spec\.registration\.properties.*: .+\n$/),
    });
    expect(await world.run(...line.slice(0, 2), '--sha256', disk.sha256, '--site', 'nowhere')).toMatchObject({
      code: 3,
      err: expect.stringContaining('--site nowhere is neither a file nor a known ImageSite (known are shelf)'),
    });
  });

  test('register says at once that a site has been in trouble that only a person can end', async () => {
    await world.apply(directorySite('gone', join(world.shelf, 'not-there')));
    expect(await world.run('wait', 'imgsite/gone', '--for=condition=Ready=False', '--timeout', '60s')).toMatchObject({
      code: 0,
    });
    const line = ['register', `${origin.url}/a`, '--sha256', '5'.repeat(64), '--site', 'gone', '--timeout', '60s'];
    expect(await world.run(...line)).toMatchObject({
      code: 1,
      err: expect.stringMatching(/^imageproxy: ImageSite gone is not ready: .*not-there.*\n$/m),
    });
    await world.run('delete', `vmimg/sha256-${'5'.repeat(32)}`, 'imgsite/gone');
  });

  test('watch and get --watch tell changes until they are interrupted', async () => {
    const watching = world.begin('watch', 'vmimg/w');
    await watching.says(/waiting for vmimage w …/);
    const table = world.begin('get', 'vmimg', '-w', '-o', 'name');
    await table.says(/vmimage\.imageproxy\.dev\/a\n/);
    await world.apply(image('w', disk.sha256));
    await watching.says(/^w +Ready +█+ +100% +[0-9a-f-]{36}\n/m);
    await table.says(/vmimage\.imageproxy\.dev\/w\n/);
    expect(await world.run('delete', 'vmimg/w')).toMatchObject({ code: 0, out: 'vmimage.imageproxy.dev/w deleted\n' });
    await watching.says(/w is gone/);
    expect(await watching.signal('SIGINT')).toMatchObject({ code: 0, err: '' });
    expect((await table.signal('SIGTERM')).code).toBe(143);
  });

  test('watch and register show how far the bytes have come, while they come', async () => {
    const slow = ext4('slow', 8);
    const { promise: until, resolve: goOn } = Promise.withResolvers<void>();
    origin.route('/slow', { body: slow.bytes, etag: '"1"', holdAfter: { bytes: 4 * 2 ** 20, until } });
    // A line at every quarter, wherever in it the news comes.
    const watching = world.begin('watch', '-A');
    const registering = world.begin('register', `${origin.url}/slow`, '--sha256', slow.sha256, '--site', 'shelf');
    const halfway = new RegExp(
      `^(?:default/)?sha256-${slow.sha256.slice(0, 32)} +Fetching +█+░+ +(?:[2-4]\\d|50)% +\\S+ MiB of 8\\.0 MiB`,
      'm',
    );
    await watching.says(halfway);
    await registering.says(halfway);
    goOn();
    expect(await registering.done).toMatchObject({ code: 0, out: expect.stringMatching(/^[0-9a-f-]{36}\n$/) });
    await watching.says(/Ready +█+ +100%/);
    await watching.signal('SIGINT');
    await world.run('delete', `vmimg/sha256-${slow.sha256.slice(0, 32)}`);
  });

  test('confirm-removal lets go of a site that matches no more', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'imageproxy-other-shelf-'));
    /** It has failed once, and nobody knew at which step. */
    const succeeds = async (...words: string[]) => {
      const outcome = await world.run(...words);
      if (outcome.code === 0) return outcome;
      const { out } = await world.run('describe', 'vmimg/c');
      throw new Error([words.join(' '), JSON.stringify(outcome), out, ...world.lines.slice(-50)].join('\n'));
    };
    try {
      const site = directorySite('other', folder);
      await world.apply({ ...site, metadata: { name: 'other', labels: { tier: 'one' } } });
      // Each kind is watched by itself: an image that is seen before the site is asked for at none, and that is Ready.
      await succeeds('wait', 'imgsite/other', '--timeout', '90s');
      const { metadata, spec } = image('c', disk.sha256);
      const selecting = { ...(spec as object), sites: undefined, siteSelector: { matchLabels: { tier: 'one' } } };
      await world.apply({ kind: 'VMImage', metadata, spec: selecting });
      await succeeds('wait', 'vmimg/c', '--timeout', '90s');
      await world.apply(site);
      const held = '--for=jsonpath={.status.sites[0].reason}=ConfirmationRequired';
      await succeeds('wait', 'vmimg/c', held, '--timeout', '90s');
      expect(readdirSync(folder).filter((name) => name.endsWith('.raw'))).toHaveLength(1);
      const removed = await succeeds('confirm-removal', 'vmimg/c', 'other');
      expect(removed.out).toBe('vmimage.imageproxy.dev/c removed from other\n');
      expect(readdirSync(folder).filter((name) => name.endsWith('.raw'))).toEqual([]);
      await succeeds('delete', 'vmimg/c', 'imgsite/other');
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }, 400_000);

  test('confirm-removal lets go of a site that is listed, and takes images of the namespace no more', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'imageproxy-closed-shelf-'));
    try {
      await world.apply(directorySite('closed', folder));
      const { metadata, spec } = image('d', disk.sha256);
      await world.apply({ kind: 'VMImage', metadata, spec: { ...(spec as object), sites: [{ name: 'closed' }] } });
      expect(await world.run('wait', 'vmimg/d', '--timeout', '90s')).toMatchObject({ code: 0 });
      expect(await world.run('confirm-removal', 'vmimg/d', 'closed')).toMatchObject({ code: 2 });
      await world.apply(directorySite('closed', folder, { allowedNamespaces: ['other'] }));
      const held = '--for=jsonpath={.status.sites[0].reason}=NamespaceNotAllowed';
      expect(await world.run('wait', 'vmimg/d', held, '--timeout', '90s')).toMatchObject({ code: 0 });
      expect(await world.run('confirm-removal', 'vmimg/d', 'closed')).toMatchObject({
        code: 0,
        out: 'vmimage.imageproxy.dev/d removed from closed\n',
      });
      expect(readdirSync(folder).filter((name) => name.endsWith('.raw'))).toEqual([]);
      for (const object of ['vmimg/d', 'imgsite/closed'])
        expect(await world.run('delete', object)).toMatchObject({ code: 0 });
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }, 400_000);

  test('confirm-removal leaves behind what is at the place that a listed site was', async () => {
    const [before, after] = [
      mkdtempSync(join(tmpdir(), 'imageproxy-was-')),
      mkdtempSync(join(tmpdir(), 'imageproxy-is-')),
    ];
    const raws = (folder: string) => readdirSync(folder).filter((name) => name.endsWith('.raw'));
    const succeeds = async (...words: string[]) => {
      const outcome = await world.run(...words, '--timeout', '90s');
      expect(outcome, `${words.join(' ')}: ${outcome.err}`).toMatchObject({ code: 0 });
      return outcome.out;
    };
    try {
      await world.apply(directorySite('moved', before), directorySite('scout', after));
      const { metadata, spec } = image('e', disk.sha256);
      await world.apply({ kind: 'VMImage', metadata, spec: { ...(spec as object), sites: [{ name: 'moved' }] } });
      await succeeds('wait', 'vmimg/e');
      await succeeds('wait', 'imgsite/scout');
      // The folder keeps its identity when the site that had it is gone.
      await succeeds('delete', 'imgsite/scout');
      const site = directorySite('moved', after);
      await world.apply(site);
      await succeeds('wait', 'imgsite/moved', '--for=condition=Stalled');
      const { out } = await world.run('get', 'imgsite/moved', '-o', 'json');
      const identity = /and is (directory [0-9a-f-]+) now/.exec(out)?.[1] ?? '';
      const annotations = { 'imageproxy.dev/confirm-identity': identity };
      await world.apply({ ...site, metadata: { name: 'moved', annotations } });
      // Until the word is heard it is Stalled, and `wait` for Ready would say so at once.
      await succeeds('wait', 'imgsite/moved', `--for=jsonpath={.status.identity}=${identity}`);
      await succeeds('wait', 'imgsite/moved');
      await succeeds('wait', 'vmimg/e', '--for=jsonpath={.status.sites[0].heldSince}');
      expect(await succeeds('confirm-removal', 'vmimg/e', 'moved')).toMatch(
        /^vmimage\S+\/e left behind at directory \S+\n$/,
      );
      await succeeds('wait', 'vmimg/e');
      await expect.poll(() => [raws(before).length, raws(after).length]).toEqual([1, 1]);
      await succeeds('delete', 'vmimg/e');
      await succeeds('delete', 'imgsite/moved');
    } finally {
      for (const folder of [before, after]) rmSync(folder, { recursive: true, force: true });
    }
  }, 400_000);

  test('delete tells what holds it up, and ends when that is repaired', async () => {
    await world.apply(image('held', disk.sha256));
    expect(await world.run('wait', 'vmimg/held', '--timeout', '60s')).toMatchObject({ code: 0 });
    renameSync(world.shelf, `${world.shelf}-away`);
    try {
      const deleting = world.begin('delete', 'vmimg/held', '--timeout', '300s');
      await deleting.says(/^VMImage default\/held: .*shelf.*\n/m);
      renameSync(`${world.shelf}-away`, world.shelf);
      await world.run('reconcile', 'imgsite/shelf');
      expect(await deleting.done).toMatchObject({ code: 0, out: 'vmimage.imageproxy.dev/held deleted\n' });
    } finally {
      if (existsSync(`${world.shelf}-away`)) renameSync(`${world.shelf}-away`, world.shelf);
    }
  }, 400_000);

  test('delete takes objects away, and their images out of the clouds', async () => {
    const deleted = await world.run('delete', 'vmimg/a', 'vmimg/bad', '--timeout', '60s');
    expect(deleted).toMatchObject({
      code: 0,
      out: 'vmimage.imageproxy.dev/a deleted\nvmimage.imageproxy.dev/bad deleted\n',
    });
    expect(await world.run('delete', 'vmimg/b', '-n', 'team', '--no-wait')).toMatchObject({
      code: 0,
      out: 'vmimage.imageproxy.dev/b is being deleted\n',
    });
    expect(await world.run('wait', 'vmimg/b', '-n', 'team', '--for=delete', '--timeout', '60s')).toMatchObject({
      code: 0,
      out: 'vmimage.imageproxy.dev/b deleted\n',
    });
    expect(await world.run('get', 'vmimg', '-A', '-o', 'name')).toMatchObject({
      out: expect.stringMatching(/^(?:vmimage\.imageproxy\.dev\/sha256-\w+\n)+$/),
    });
    expect(readdirSync(world.shelf).filter((name) => name.endsWith('.raw'))).toHaveLength(1);
  });
});
