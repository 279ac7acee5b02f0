import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { VMImage } from '../../../src/api/types.ts';
import { objectPath, RESOURCES } from '../../../src/stores/kubernetes/resources.ts';
import { Accounts, rule } from '../../support/accounts.ts';
import { API_SERVER_PATIENCE_MS, type ApiServer } from '../../support/apiserver.ts';
import { makeAuthority } from '../../support/authority.ts';
import { type Disk, ext4 } from '../../support/disks.ts';
import { directorySite, type Manifest, vmimage, yamlOf } from '../../support/house.ts';
import { findBinaries } from '../../support/kubernetes/binaries.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';
import { COMPILED, imageproxy, type Outcome, Program } from './program.ts';
import { openClusterWorld, type World } from './worlds.ts';

const OURS = 'imageproxy.dev';
const BIN = join(import.meta.dirname, '..', '..', '..', 'bin');

/** A cluster that is not ours (TEST_KUBECONFIG) must not be stopped, and has no accounts of ours. */
describe.skipIf((process.env['TEST_KUBECONFIG'] ?? '') !== '')('imageproxy on a cluster', () => {
  let world: World & { server: ApiServer };
  let server: ApiServer;
  let accounts: Accounts;
  let origin: Origin;
  let disk: Disk;
  let folder = '';

  beforeAll(async () => {
    [world, origin] = await Promise.all([openClusterWorld(), startOrigin()]);
    server = world.server;
    accounts = new Accounts(server, 'imageproxy');
    folder = mkdtempSync(join(tmpdir(), 'imageproxy-cluster-cli-'));
    disk = ext4('cluster');
    origin.route('/a', { body: disk.bytes, etag: '"1"' });
    await world.apply(directorySite('shelf', world.shelf), image('a'), image('t', 'team'));
    expect(await world.run('wait', 'vmimg/a', '--timeout', '60s')).toMatchObject({ code: 0 });
  }, API_SERVER_PATIENCE_MS);
  afterEach(() => Program.killAll());
  afterAll(async () => {
    await world?.close();
    await origin?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  function image(name: string, namespace = 'default', spec: Record<string, unknown> = {}): Manifest {
    const manifest = vmimage(name, {
      source: { http: { urls: [`${origin.url}/a`] } },
      checksums: { sha256: disk.sha256 },
      sites: [{ name: 'shelf' }],
      ...spec,
    });
    return { ...manifest, metadata: { name, namespace } };
  }

  const as =
    (kubeconfig: string) =>
    (...words: string[]): Promise<Outcome> =>
      imageproxy([...words, '--kubeconfig', kubeconfig], COMPILED);

  describe('with the rights of one namespace', () => {
    let kubeconfig = '';
    let run: (...words: string[]) => Promise<Outcome>;
    beforeAll(async () => {
      const verbs = ['get', 'list', 'watch', 'create', 'patch', 'delete'];
      await accounts.grant('tenant', [rule(OURS, ['vmimages'], verbs)], 'team');
      kubeconfig = await accounts.make('tenant', { namespace: 'team' });
      run = as(kubeconfig);
    });

    test('all that one does with images works there, in the namespace of the context', async () => {
      expect(await run('get', 'vmimg', '-o', 'name')).toEqual({
        code: 0,
        out: 'vmimage.imageproxy.dev/t\n',
        err: '',
      });
      expect(await run('wait', 'vmimg/t', '--timeout', '60s')).toMatchObject({ code: 0 });
      expect(await run('reconcile', 'vmimg/t')).toMatchObject({ code: 0 });
      const other = ext4('tenant');
      origin.route('/tenant', { body: other.bytes });
      const registered = await run('register', `${origin.url}/tenant`, '--sha256', other.sha256, '--site', 'shelf');
      expect(registered).toMatchObject({ code: 0, out: expect.stringMatching(/^[0-9a-f-]{36}\n$/) });
      const name = `vmimg/sha256-${other.sha256.slice(0, 32)}`;
      expect(JSON.parse((await run('get', name, '-o', 'json')).out)).toMatchObject({ metadata: { namespace: 'team' } });
      expect(await run('delete', name)).toMatchObject({ code: 0 });
    });

    test('a site that is not there is told by the image, where sites may not be seen', async () => {
      const line = ['register', `${origin.url}/none`, '--sha256', '3'.repeat(64), '--site', 'nowhere'];
      expect(await run(...line)).toMatchObject({
        code: 1,
        err: expect.stringMatching(
          /imageproxy: VMImage team\/sha256-3{32} is not registered: .*nowhere.*\(SiteNotFound\)\n$/,
        ),
      });
      expect(await run('delete', `vmimg/sha256-${'3'.repeat(32)}`)).toMatchObject({ code: 0 });
    });

    test('what may not be seen of several kinds is named, by verb and resource, and the rest is shown', async () => {
      const { code, out, err } = await run('get');
      expect([code, out]).toEqual([1, expect.stringMatching(/^NAME .*\nt .*\n$/)]);
      expect(err).toMatch(/^imageproxy: cannot list imagesites: .* cannot list resource "imagesites" in API group/m);
      expect(err).toMatch(/^imageproxy: .* cannot list resource "imagesubscriptions".*in the namespace "team"/m);
      const watching = new Program(['get', '-w', '-o', 'name', '--kubeconfig', kubeconfig], COMPILED);
      await watching.says(/cannot list resource "imagesubscriptions"/);
      expect(await watching.signal('SIGINT')).toMatchObject({ code: 130, out: 'vmimage.imageproxy.dev/t\n' });
    });

    test('events that may not be read do not hide the rest of what describe shows', async () => {
      const { code, out } = await run('describe', 'vmimg/t');
      expect(code).toBe(0);
      expect(out).toMatch(
        /Phase: +Ready[^]*Events:\n[^]*Forbidden .*cannot list resource "events" in API group "events\.k8s/,
      );
    });

    test.each([
      ['get vmimg -n default', 'list', 'in the namespace "default"'],
      ['get vmimg/a -n default', 'get', 'in the namespace "default"'],
      ['get vmimg -A', 'list', 'at the cluster scope'],
      ['watch -A', 'list', 'at the cluster scope'],
      ['wait vmimg/a -n default', 'list', 'in the namespace "default"'],
      ['delete vmimg/a -n default', 'get', 'in the namespace "default"'],
    ])('%s is refused with the verb %s', async (words, verb, where) => {
      expect(await run(...words.split(' '))).toEqual({
        code: 1,
        out: '',
        err: expect.stringMatching(
          new RegExp(
            `^imageproxy: [^\\n]*"system:serviceaccount:imageproxy:tenant" cannot ${verb} resource "vmimages" in API group "imageproxy.dev" ${where}[^\\n]*Role[^\\n]*\\n$`,
          ),
        ),
      });
    });
  });

  test('rights to one object by its name are enough to wait for it', async () => {
    const named = { ...rule(OURS, ['vmimages'], ['get', 'list', 'watch']), resourceNames: ['a'] };
    await accounts.grant('named', [named], 'default');
    const run = as(await accounts.make('named'));
    expect(await run('wait', 'vmimg/a', '--timeout', '60s')).toMatchObject({ code: 0 });
    expect(await run('get', 'vmimg', 'a', '-o', 'name')).toMatchObject({ code: 0 });
  });

  test('who may only look is told what is missing to change something', async () => {
    await accounts.grant('viewer', [rule(OURS, ['vmimages', 'imagesites'], ['get', 'list', 'watch'])]);
    const run = as(await accounts.make('viewer'));
    expect((await run('get', 'vmimg', '-A', '-o', 'name')).code).toBe(0);
    const refused = (verb: string) => ({ code: 1, err: expect.stringContaining(`cannot ${verb} resource "vmimages"`) });
    expect(await run('reconcile', 'vmimg/a')).toMatchObject(refused('patch'));
    expect(await run('delete', 'vmimg/a')).toMatchObject(refused('delete'));
    const line = ['register', `${origin.url}/x`, '--sha256', '4'.repeat(64), '--site', 'shelf'];
    expect(await run(...line)).toMatchObject(refused('patch'));
  });

  test('a kubeconfig that cannot be used is told in one line with the cure', async () => {
    const none = join(folder, 'none');
    expect(await as(none)('get')).toEqual({
      code: 1,
      out: '',
      err: expect.stringMatching(/^imageproxy: .*none cannot be read: ENOENT.*\n$/),
    });
    expect(await as(server.kubeconfig)('get', '--context', 'elsewhere')).toMatchObject({
      code: 1,
      err: 'imageproxy: the kubeconfig has no context elsewhere; it has test\n',
    });
    const home = { ...COMPILED, HOME: folder };
    expect(await imageproxy(['get', '--kubernetes'], home)).toMatchObject({
      code: 1,
      err: expect.stringContaining('no cluster is configured: give --kubeconfig FILE, set KUBECONFIG'),
    });
    expect(await as(server.kubeconfig)('get', '--state', folder)).toMatchObject({
      code: 2,
      err: 'imageproxy: --state names a directory and --kubeconfig a cluster: leave one of the two out\n',
    });
  });

  test('credentials that the server refuses, and a server that is not there, are told so', async () => {
    const expired = await server.writeConfig('expired', { token: 'long-gone' });
    expect(await as(expired)('get', 'vmimg')).toMatchObject({
      code: 1,
      err: expect.stringMatching(
        /^imageproxy: cannot list vmimages: .*does not take our credentials: log in again.*\n$/,
      ),
    });
    const away = await server.writeConfig('away', { server: 'https://127.0.0.1:1' });
    expect(await as(away)('get', 'vmimg')).toMatchObject({
      code: 1,
      err: expect.stringMatching(
        /^imageproxy: cannot list vmimages: no connection to the API server \(ECONNREFUSED\) at https:\/\/127\.0\.0\.1:1: .*\n$/,
      ),
    });
  });

  test('a server whose certificate is not trusted is told as that', async () => {
    const authority = makeAuthority();
    try {
      const config = JSON.parse(readFileSync(server.kubeconfig, 'utf8')) as { clusters: { cluster: object }[] };
      const data = Buffer.from(authority.ca).toString('base64');
      const clusters = [{ name: 'test', cluster: { server: server.url, 'certificate-authority-data': data } }];
      const file = join(folder, 'other-ca');
      writeFileSync(file, JSON.stringify({ ...config, clusters }), { mode: 0o600 });
      expect(await as(file)('get', 'vmimg')).toMatchObject({
        code: 1,
        err: expect.stringMatching(
          /no connection to the API server \(\w*CERT\w*\) at .*: the kubeconfig's certificates/,
        ),
      });
    } finally {
      authority.close();
    }
  });

  test('what only a directory has is refused with the reason', async () => {
    const file = join(folder, 'shelf.yaml');
    writeFileSync(file, yamlOf(directorySite('other', world.shelf)));
    const line = ['register', `${origin.url}/a`, '--sha256', disk.sha256, '--site', file];
    expect(await world.run(...line)).toMatchObject({
      code: 2,
      err: expect.stringMatching(
        /--site .*shelf\.yaml is a file, .*apply it with kubectl, then give the site's name\n$/,
      ),
    });
    expect(await world.run('confirm-deletions')).toMatchObject({ code: 2, err: expect.stringContaining('directory') });
  });

  test('what others apply of an image stays theirs when it is registered again', async () => {
    const other = ext4('labelled');
    origin.route('/labelled', { body: other.bytes });
    const line = ['register', `${origin.url}/labelled`, '--sha256', other.sha256, '--site', 'shelf'];
    const key = { namespace: 'default', name: `sha256-${other.sha256.slice(0, 32)}` };
    const source = { http: { urls: [`${origin.url}/labelled`] } };
    await world.apply(image(key.name, 'default', { source, checksums: { sha256: other.sha256 } }));
    const path = objectPath(RESOURCES.VMImage, key);
    const labels = { 'argocd.argoproj.io/instance': 'images' };
    await server.request({
      method: 'PATCH',
      path,
      contentType: 'application/merge-patch+json',
      body: { metadata: { labels } },
    });
    expect(await world.run(...line, '--property', 'os_distro=debian')).toMatchObject({ code: 0 });
    const { metadata } = await server.request<
      VMImage & { metadata: { managedFields: { manager: string; fieldsV1: object }[] } }
    >({
      method: 'GET',
      path,
    });
    expect(metadata.labels).toEqual(labels);
    const ours = metadata.managedFields.find(({ manager }) => manager === 'imageproxy-cli');
    expect(ours?.fieldsV1).toEqual({
      'f:spec': { 'f:registration': { 'f:properties': { '.': {}, 'f:os_distro': {} } } },
    });
    expect((await world.run('describe', `vmimg/${key.name}`)).out).toMatch(/Applied by: +Argo CD Application images\n/);
    expect(await world.run('delete', `vmimg/${key.name}`)).toMatchObject({
      code: 0,
      err: expect.stringContaining('is applied by Argo CD Application images: take it out there, else it comes again'),
    });
  });

  test('watches go on over a restart of the API server, and end when the right to them has gone', async () => {
    const rights = '/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings/leaver';
    await accounts.grant('leaver', [rule(OURS, ['vmimages'], ['list', 'watch'])], 'default');
    const leaver = await accounts.make('leaver');
    const refused = new Program(['get', 'vmimg', '-w', '-o', 'name', '--kubeconfig', leaver], COMPILED);
    await refused.says(/vmimage\.imageproxy\.dev\/a\n/);
    await server.request({ method: 'DELETE', path: rights });
    const bars = world.begin('watch', 'vmimg/late');
    await bars.says(/waiting for vmimage late/);
    const table = world.begin('get', 'vmimg', '-w', '-o', 'name');
    await table.says(/vmimage\.imageproxy\.dev\/a\n/);
    await server.killServer();
    await server.startServer();
    await world.apply(image('late'));
    await bars.says(/late +Ready/);
    await table.says(/vmimage\.imageproxy\.dev\/late\n/);
    expect(await bars.signal('SIGINT')).toMatchObject({ code: 0, err: '' });
    expect(await table.signal('SIGINT')).toMatchObject({
      code: 130,
      err: expect.stringMatching(/^imageproxy: cannot watch vmimages: [^\n]*; it is tried again\n/),
    });
    expect(await refused.done).toMatchObject({
      code: 1,
      err: expect.stringMatching(/^imageproxy: cannot watch vmimages: .* cannot \w+ resource "vmimages".*\n$/m),
    });
  });

  describe('validate with a cluster', () => {
    const judge = (text: string, ...words: string[]): Promise<Outcome> => {
      const file = join(folder, 'judged.yaml');
      writeFileSync(file, text);
      return imageproxy(['validate', file, ...words], { ...COMPILED, KUBECONFIG: server.kubeconfig });
    };

    test('tells of unknown fields and broken rules in the words that it has without one', async () => {
      const unknown = yamlOf(image('u')).replace('spec:', 'spec:\n  sourced: 1');
      const both = `${unknown}---\n${yamlOf(image('v', 'default', { checksums: undefined }))}`;
      const offline = await judge(both);
      expect(offline).toMatchObject({ code: 1, err: '1 file, 1 object: 1 error, 1 warning\n' });
      expect(offline.out).toContain(
        'warning: document 1: spec.sourced: unknown field, it is ignored: did you mean source?',
      );
      expect(await judge(both, '--kubernetes')).toEqual(offline);
      // kubectl, and so the API server, says of the broken rule what we said.
      const [, message = ''] = /error: document 2: spec(?:\.[\w.]+)?: (.*)\n/.exec(offline.out) ?? [];
      const refused = await world
        .apply(image('v', 'default', { checksums: undefined }))
        .catch((error: Error) => error.message);
      expect(message).not.toBe('');
      expect(refused).toContain(message);
    });

    test('tells what only the API server knows, by line and field, and writes nothing', async () => {
      const changed = yamlOf(image('a', 'default', { guid: 'another' }));
      expect(await judge(changed)).toMatchObject({ code: 0 });
      expect(await judge(changed, '--kubernetes')).toEqual({
        code: 1,
        out: expect.stringMatching(/judged\.yaml:\d+: error: document 1: spec(\.guid)?: the API server: .*guid.*\n$/),
        err: '1 file, 1 object: 1 error, 0 warnings\n',
      });
      const lost = yamlOf(image('a', 'nowhere'));
      expect((await judge(lost, '--kubernetes')).out).toMatch(
        /: error: document 1: metadata\.namespace: the API server: namespaces "nowhere" not found\n$/,
      );
      expect(await judge(yamlOf(image('new')), '--kubernetes')).toMatchObject({ code: 0 });
      // What names no namespace is in that of -n.
      const { metadata: _, ...homeless } = image('a');
      const there = yamlOf({ ...homeless, metadata: { name: 'a' } });
      expect((await judge(there, '--kubernetes', '-n', 'nowhere')).out).toContain('namespaces "nowhere" not found');
      expect(await world.run('get', 'vmimg/new')).toMatchObject({ code: 3 });
    });
  });

  describe('kubectl imageproxy', () => {
    const kubectl = async (...words: string[]) => {
      const { directory } = await findBinaries(['kubectl']);
      const path = [BIN, directory, dirname(process.execPath), process.env['PATH']].join(delimiter);
      const env = { ...process.env, ...COMPILED, PATH: path, KUBECONFIG: server.kubeconfig };
      return promisify(execFile)(join(directory, 'kubectl'), words, { env });
    };

    test('is the same program, on the cluster', async () => {
      expect((await kubectl('imageproxy', 'get', 'vmimages', '-o', 'name')).stdout).toContain(
        'vmimage.imageproxy.dev/a\n',
      );
      const table = (text: string) => text.replaceAll(/ +/g, ' ').replaceAll(/ \d+\w+\n/g, '\n');
      const [ours, theirs] = [await kubectl('imageproxy', 'get', 'vmimg', 'a'), await kubectl('get', 'vmimg', 'a')];
      expect(table(ours.stdout)).toBe(table(theirs.stdout));
      expect(await kubectl('imageproxy', 'get', 'vmimg', '-n', 'empty')).toMatchObject({
        stderr:
          'nothing found in the namespace empty; there is something in other namespaces: kubectl imageproxy get vmimg -A\n',
      });
      expect((await kubectl('imageproxy', 'get', '--help')).stdout).toMatch(
        /^Usage: kubectl imageproxy get [^]*\nExamples:\n {2}kubectl imageproxy get vmimg\n/,
      );
    });

    test('completes its words as kubectl does', async () => {
      const completed = async (...words: string[]) => (await kubectl('__complete', 'imageproxy', ...words)).stdout;
      expect(await completed('reg')).toBe('register\n:4\n');
      expect(await completed('get', 'vmimg', 'a')).toBe('a\n:4\n');
      expect(await completed('describe', 'imgsite')).toBe('imgsite\n:4\n');
      expect(await completed('delete', 'vmimg')).toBe('vmimg/\n:6\n');
      expect(await completed('get', '--context', '')).toBe('test\n:4\n');
      expect(await completed('get', 'vmimg', '--kubeconfig', '/nowhere', '')).toBe(':0\n');
    });
  });
});
