import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import type { VMImage } from '../../../src/api/types.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';
import { ext4 } from '../../support/disks.ts';
import { directorySite, House, type Manifest, vmimage } from '../../support/house.ts';
import { COMPILED, type Outcome, Program } from './program.ts';

let root = '';
let state = '';
let origin: Origin;
let env: Record<string, string> = {};

beforeEach(async () => {
  root = mkdtempSync(join(tmpdir(), 'imageproxy-register-'));
  state = join(root, 'state');
  env = { ...COMPILED, IMAGEPROXY_STATE: state };
  mkdirSync(join(root, 'shelf'));
  origin = await startOrigin();
});

afterEach(async () => {
  await Program.killAll();
  await origin.close();
  rmSync(root, { recursive: true, force: true });
});

function write(name: string, ...objects: object[]): string {
  const file = join(root, name);
  writeFileSync(file, objects.map((object) => stringify(object)).join('---\n'), { mode: 0o600 });
  return file;
}

const NOVA = {
  apiVersion: 'imageproxy.dev/v1beta1',
  kind: 'ImageSite',
  metadata: { name: 'nova' },
  spec: { openstack: { secretRef: { name: 'nova' }, cloud: 'demo' } },
};

/** The Secret of that site: a cloud whose Keystone is the origin. */
function novaSecret(password: string) {
  const auth = {
    auth_url: `${origin.url}/v3`,
    username: 'imageproxy',
    password,
    user_domain_name: 'Default',
    project_name: 'images',
    project_domain_name: 'Default',
  };
  return {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: 'nova', namespace: 'imageproxy' },
    stringData: { 'clouds.yaml': stringify({ clouds: { demo: { auth } } }) },
  };
}

describe('a Secret beside the site that is asked for', () => {
  it('is nowhere on the disk, also after a kill', async () => {
    origin.route('/v3/auth/tokens', { silent: true });
    const secret = novaSecret('hunter2');
    const site = write('nova.yaml', NOVA, secret);
    const line = ['register', `${origin.url}/a.raw`, '--sha256', '0'.repeat(64), '--site', site];
    const program = new Program([...line, '--allow-network', '127.0.0.0/8'], env);
    // It has been read: the cloud is asked with it.
    await origin.stalled();
    await program.signal('SIGKILL');
    const encoded = Buffer.from(secret.stringData['clouds.yaml']).toString('base64').slice(0, 64);
    const files = readdirSync(state, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
    expect(files.length).toBeGreaterThan(3);
    for (const { parentPath, name } of files) {
      const text = readFileSync(join(parentPath, name), 'latin1');
      expect(text, join(parentPath, name)).not.toContain('hunter2');
      expect(text, join(parentPath, name)).not.toContain(encoded);
    }
  });
});

describe('two commands on a state that no other process works on', () => {
  it('both come to their end: the second goes on when the first is done', async () => {
    const [first, second] = [ext4('first', 8), ext4('second', 8)];
    const [firstMay, secondMay] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    origin.route('/first', { body: first.bytes, etag: '"1"', holdAfter: { bytes: 2 ** 20, until: firstMay.promise } });
    origin.route('/second', {
      body: second.bytes,
      etag: '"1"',
      holdAfter: { bytes: 2 ** 20, until: secondMay.promise },
    });
    const site = write('shelf.yaml', { apiVersion: NOVA.apiVersion, ...directorySite('shelf', join(root, 'shelf')) });
    const begin = (path: string, sha256: string) =>
      new Program(
        ['register', `${origin.url}/${path}`, '--sha256', sha256, '--site', site, '--allow-network', '127.0.0.0/8'],
        env,
      );
    const holder = begin('first', first.sha256);
    await holder.says(/Fetching/);
    const other = begin('second', second.sha256);
    await other.says(/process \d+ does the work/);
    await other.says(/Fetching/);
    firstMay.resolve();
    expect(await holder.done).toMatchObject({ code: 0, out: expect.stringMatching(/^[0-9a-f-]{36}\n$/) });
    secondMay.resolve();
    expect(await other.done).toMatchObject({ code: 0, out: expect.stringMatching(/^[0-9a-f-]{36}\n$/) });
  });
});

describe('register beside a process that works on the state', () => {
  const disk = ext4('asked');
  const name = `sha256-${disk.sha256.slice(0, 32)}`;
  let house: House;

  beforeEach(async () => {
    house = await new House({ cacheQuotaBytes: 12 * 2 ** 20 }).start();
    env = { ...COMPILED, IMAGEPROXY_STATE: house.state };
    origin.route('/a', { body: disk.bytes, etag: '"1"' });
    await house.write('shelf.yaml', directorySite('shelf', house.shelf));
  });
  afterEach(() => house.close());

  const run = (...words: string[]): Promise<Outcome> => new Program(words, env).done;
  const register = (...more: string[]): Promise<Outcome> =>
    run('register', `${origin.url}/a`, '--sha256', disk.sha256, '--timeout', '60s', ...more);
  const image = (more: object = {}, site: object = {}): Manifest =>
    vmimage(name, {
      source: { http: { urls: [`${origin.url}/a`] } },
      checksums: { sha256: disk.sha256 },
      sites: [{ name: 'shelf', ...site }],
      ...more,
    });

  it('says at once that the image is suspended, and the cure', async () => {
    await house.write('a.yaml', image({ suspend: true }));
    expect(await register('--site', 'shelf')).toEqual({
      code: 1,
      out: '',
      err: expect.stringMatching(/is not registered: it is suspended: set spec\.suspend: false\n$/),
    });
  });

  it('gives no id of an image that is out of service, nor an empty line for one that never was in service', async () => {
    const refused = {
      code: 1,
      out: '',
      err: expect.stringMatching(/is not registered: it is Deactivated: set spec\.state: Active\n$/),
    };
    await house.write('a.yaml', image({ state: 'Deactivated' }));
    await house.until(name, ({ status }) => status?.phase === 'Deactivated');
    expect(await register('--site', 'shelf'), 'never in service').toEqual(refused);
    await house.write('a.yaml', image());
    expect(await register('--site', 'shelf')).toMatchObject({
      code: 0,
      out: expect.stringMatching(/^[0-9a-f-]{36}\n$/),
    });
    await house.write('a.yaml', image({ state: 'Deactivated' }));
    await house.until(name, ({ status }) => status?.phase === 'Deactivated');
    expect(await register('--site', 'shelf'), 'no longer in service').toEqual(refused);
  });

  it.each(['Deactivate', 'Delete'])('gives no id of an image that has expired (%s)', async (onExpiry) => {
    await house.write('a.yaml', image({ expiresAt: '2026-01-01T00:00:00Z', onExpiry }));
    await house.until(name, ({ status }) => status?.phase === 'Expired');
    expect(await register('--site', 'shelf')).toEqual({
      code: 1,
      out: '',
      err: expect.stringContaining('it is Expired since 2026-01-01T00:00:00Z: set a later spec.expiresAt'),
    });
  });

  it('says that an optional site has refused the image, if it is asked for that site', async () => {
    await house.write('small.yaml', directorySite('small', house.shelf, { maxImageSize: '1Ki' }));
    await house.write('a.yaml', image({ sites: [{ name: 'shelf' }, { name: 'small', optional: true }] }));
    expect(await register('--site', 'shelf')).toMatchObject({ code: 0 });
    expect(await register('--site', 'small')).toEqual({
      code: 1,
      out: '',
      err: expect.stringMatching(/is not registered: small: .*\(TooLarge\)\n$/),
    });
  });

  it('asks nothing of a site that is being deleted, and prints what that has already; delete says what keeps the site', async () => {
    const there = await register('--site', 'shelf');
    expect(there).toMatchObject({ code: 0 });
    const deleting = new Program(['delete', 'imgsite/shelf'], env);
    await deleting.says(
      new RegExp(`^ImageSite shelf: deletion waits for the VMImages that are registered here: default/${name}; `, 'm'),
    );
    const other = ['register', `${origin.url}/b`, '--sha256', '0'.repeat(64), '--site', 'shelf', '--timeout', '60s'];
    expect(await run(...other)).toEqual({
      code: 1,
      out: '',
      err: expect.stringMatching(
        /^imageproxy: ImageSite shelf is being deleted and takes nothing new: wait for that with "imageproxy wait imgsite\/shelf --for=delete"/,
      ),
    });
    expect(house.image(`sha256-${'0'.repeat(32)}`)).toBeUndefined();
    expect(await register('--site', 'shelf')).toMatchObject({ code: 0, out: there.out });
    await run('delete', `vmimg/${name}`);
    rmSync(join(house.manifests, 'shelf.yaml'), { force: true });
    expect(await deleting.done).toMatchObject({ code: 0, out: 'imagesite.imageproxy.dev/shelf deleted\n' });
  });

  it('makes no site whose Secret that process has not, for it is handed over to nobody', async () => {
    const site = write('nova.yaml', NOVA, novaSecret('hunter2'));
    const refused = await register('--site', site, '--no-wait');
    expect(refused).toEqual({
      code: 1,
      out: '',
      err: `imageproxy: process ${process.pid} does the work on ${house.state} and has no Secret imageproxy/nova: put it into the manifests of that process, or run the command again when that has ended\n`,
    });
    expect([house.site('nova'), house.image(name)]).toEqual([undefined, undefined]);
    await house.write('secret.yaml', novaSecret('hunter2'));
    expect(await register('--site', site, '--no-wait')).toMatchObject({ code: 0 });
    expect(house.site('nova')).toBeDefined();
  });

  it('does not take the place of that process, which somebody has ended', async () => {
    const { promise: until, resolve: goOn } = Promise.withResolvers<void>();
    origin.route('/a', { body: disk.bytes, etag: '"1"', holdAfter: { bytes: 1024, until } });
    const waiting = new Program(['register', `${origin.url}/a`, '--sha256', disk.sha256, '--site', 'shelf'], env);
    await waiting.says(/Fetching/);
    await house.stop();
    goOn();
    expect(await waiting.done).toEqual({
      code: 1,
      out: '',
      err: expect.stringMatching(
        /process \d+, which worked on .*, has ended; nothing is lost: run the command again\n$/,
      ),
    });
  });

  it('waits for room in the cache, and says what has it', async () => {
    const [first, second] = [ext4('first', 8), ext4('second', 8)];
    const { promise: until, resolve: goOn } = Promise.withResolvers<void>();
    origin.route('/first', { body: first.bytes, etag: '"1"', holdAfter: { bytes: 2 ** 20, until } });
    origin.route('/second', { body: second.bytes, etag: '"1"' });
    const begin = (path: string, sha256: string) =>
      new Program(['register', `${origin.url}/${path}`, '--sha256', sha256, '--site', 'shelf'], env);
    const holding = begin('first', first.sha256);
    // Its size is told when it has its room.
    const isUnderWay = ({ status }: VMImage) => status.progress?.totalBytes === first.bytes.length;
    await house.until(`sha256-${first.sha256.slice(0, 32)}`, isUnderWay, 'under way');
    const waiting = begin('second', second.sha256);
    await waiting.says(/waiting for room: 8\.0 MiB wanted, .*\(CacheFull\)\n/);
    goOn();
    const outcomes = await Promise.all([holding.done, waiting.done]);
    expect(outcomes).toMatchObject([{ code: 0 }, { code: 0, out: expect.stringMatching(/^[0-9a-f-]{36}\n$/) }]);
  });
});
