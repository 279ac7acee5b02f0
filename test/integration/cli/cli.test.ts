import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { VMImage } from '../../../src/api/types.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';
import { COMPILED, imageproxy, Program } from './program.ts';

/** A raw disk by its MBR; the rest does not repeat. */
function disk(bytes: number): Buffer {
  const image = randomBytes(bytes);
  image.fill(0, 0, 510);
  image.set([0x80, 0, 2, 0, 0x83, 0, 0, 0, 1, 0, 0, 0], 446);
  image.writeUInt32LE(Math.floor(bytes / 512) - 1, 458);
  image.writeUInt16LE(0xaa55, 510);
  return image;
}

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
const LAUNCHER = join(import.meta.dirname, '..', '..', '..', 'bin', 'imageproxy');
const LOOPBACK = ['--allow-network', '127.0.0.0/8'];

let root = '';
let origin: Origin;
let manifests = '';
let shelf = '';
let env: Record<string, string> = {};

beforeEach(async () => {
  root = mkdtempSync(join(tmpdir(), 'imageproxy-cli-'));
  manifests = join(root, 'manifests');
  shelf = join(root, 'shelf');
  mkdirSync(manifests);
  mkdirSync(shelf);
  env = { IMAGEPROXY_STATE: join(root, 'state'), ...COMPILED };
  origin = await startOrigin();
});

afterEach(async () => {
  await Program.killAll();
  await origin.close();
  rmSync(root, { recursive: true, force: true });
});

function siteManifest(name = 'shelf', path = shelf): string {
  return `apiVersion: imageproxy.dev/v1beta1\nkind: ImageSite\nmetadata: { name: ${name} }\nspec: { directory: { path: ${path} } }\n`;
}

function imageManifest(name: string, path: string, digest: string): string {
  return `apiVersion: imageproxy.dev/v1beta1
kind: VMImage
metadata: { name: ${name} }
spec:
  source: { http: { urls: ["${origin.url}${path}"] } }
  checksums: { sha256: "${digest}" }
  sites: [{ name: shelf }]
`;
}

async function start(...more: string[]): Promise<Program> {
  const program = new Program(
    ['run', '--manifests', manifests, '--telemetry', '127.0.0.1:0', '--log-format', 'json', ...LOOPBACK, ...more],
    env,
  );
  await program.says(/imageproxy runs/);
  return program;
}

function siteFile(): string {
  const file = join(root, 'shelf.yaml');
  writeFileSync(file, siteManifest());
  return file;
}

const run = (...words: string[]) => imageproxy(words, env);

/** Bytes of the unfinished download that the cache's journal names, read from a copy: its own file is locked. */
function journalled(): number {
  const copy = mkdtempSync(join(root, 'journal-'));
  for (const file of ['cache.db', 'cache.db-wal']) {
    const path = join(root, 'state', 'cache', file);
    if (existsSync(path)) copyFileSync(path, join(copy, file));
  }
  const database = new DatabaseSync(join(copy, 'cache.db'));
  try {
    return Number(database.prepare('select max(watermark) as bytes from partials').get()?.['bytes'] ?? 0);
  } finally {
    database.close();
  }
}

describe('imageproxy run', () => {
  it('takes manifests while it runs, tells of them, and takes them back', async () => {
    const first = disk(2 * 2 ** 20);
    origin.route('/a.raw', { body: first, etag: '"1"' });
    writeFileSync(join(manifests, 'shelf.yaml'), siteManifest());
    const program = await start();

    writeFileSync(
      join(manifests, 'a.yaml'),
      `# kept\n${imageManifest('a', '/a.raw', sha256(first))}---\n${imageManifest('bad', '/a.raw', '0'.repeat(64))}`,
    );
    expect(await run('wait', 'vmimg/a', '--for=create', '--timeout', '60s')).toMatchObject({ code: 0, err: '' });
    const waited = await run('wait', 'vmimg/a', '--for=condition=Ready', '--timeout', '60s');
    expect(waited).toEqual({ code: 0, out: 'vmimage.imageproxy.dev/a condition met\n', err: '' });

    const table = await run('get', 'vmimg', 'a');
    expect(table.out).toMatch(
      /^NAME +READY +PHASE +PROGRESS +IMAGE ID +SITES +MESSAGE +AGE\na +True +Ready +100% +[0-9a-f-]{36} +1\/1 +registered at shelf +\S+\n$/,
    );
    const object = JSON.parse((await run('get', 'vmimg/a', '-o', 'json')).out) as VMImage;
    const id = object.status.sites?.[0]?.imageID ?? '';
    expect(readFileSync(join(shelf, `${id}.raw`)).equals(first)).toBe(true);
    const list = JSON.parse((await run('get', 'vmimg', '-o', 'json')).out) as { kind: string; items: VMImage[] };
    expect(list).toMatchObject({ kind: 'List', items: [{ metadata: { name: 'a' } }, { metadata: { name: 'bad' } }] });
    expect((await run('get', 'imgsite', '-o', 'name')).out).toBe('imagesite.imageproxy.dev/shelf\n');

    expect(await run('wait', 'vmimg/bad', '--timeout', '60s')).toMatchObject({
      code: 1,
      err: expect.stringMatching(/^imageproxy: VMImage default\/bad is stalled: .*declared is 0{64}.*\n$/),
    });
    // Events are written after the status that they tell of.
    const describe = async () => (await run('describe', 'vmimg', 'bad')).out;
    await expect.poll(describe).toMatch(/Events:[^]*Warning +DigestMismatch/);
    const page = await describe();
    expect(page.match(/declared is 0{64}/g), 'the reason is told once').toHaveLength(1);
    expect(page).toMatch(/Conditions:[^]*Ready +False +DigestMismatch/);
    expect(page).toMatch(/What to do next:[^]*imageproxy reconcile vmimg\/bad/);
    expect(await run('reconcile', 'vmimg/a', '--timeout', '60s')).toMatchObject({
      code: 0,
      out: 'vmimage.imageproxy.dev/a reconciled: registered at shelf\n',
    });
    expect(await run('reconcile', 'vmimg/bad', '--timeout', '60s')).toMatchObject({ code: 1 });

    const deleted = await run('delete', 'vmimg/a', 'vmimg/bad', '--timeout', '60s');
    expect(deleted).toMatchObject({
      code: 0,
      out: 'vmimage.imageproxy.dev/a deleted\nvmimage.imageproxy.dev/bad deleted\n',
    });
    expect(deleted.err).toContain(`removed VMImage default/a from ${join(manifests, 'a.yaml')}`);
    expect(existsSync(join(manifests, 'a.yaml'))).toBe(false);
    expect(readdirSync(shelf).filter((name) => name.endsWith('.raw'))).toEqual([]);
    expect(await run('get', 'vmimg/a')).toMatchObject({
      code: 3,
      err: expect.stringContaining('there is no VMImage default/a'),
    });
    expect(await run('wait', 'vmimg/a', '--for=delete', '--timeout', '60s')).toMatchObject({ code: 0 });
    expect((await program.signal('SIGTERM')).code).toBe(0);
  });

  it('lets reconcile say at once what nothing but a person can mend', async () => {
    writeFileSync(join(manifests, 'a.yaml'), imageManifest('a', '/a.raw', '0'.repeat(64)));
    await start();
    expect(await run('wait', 'vmimg/a', '--for=create', '--timeout', '60s')).toMatchObject({ code: 0 });
    expect(await run('reconcile', 'vmimg/a', '--timeout', '10m')).toMatchObject({
      code: 1,
      err: expect.stringMatching(
        /^imageproxy: VMImage default\/a waits for somebody to act: shelf: there is no ImageSite shelf: create it, .*\n$/,
      ),
    });
  });

  it('answers for its health, and a second one on the same state is refused with who has it', async () => {
    const program = await start();
    const [, telemetry] = await program.says(/"telemetry":"([^"]+)"/);
    for (const path of ['healthz', 'readyz']) {
      const answer = await fetch(`${telemetry}/${path}`);
      expect([answer.status, await answer.text()]).toEqual([200, expect.stringMatching(/^ok\n/)]);
    }
    expect(await (await fetch(`${telemetry}/metrics`)).text()).toContain('imageproxy_build_info{version=');

    const second = await run('run', '--manifests', manifests, '--telemetry', 'off');
    expect(second).toMatchObject({
      code: 5,
      err: expect.stringMatching(new RegExp(`^imageproxy: .*process ${program.child.pid} on .*another --state\\n$`)),
    });
    expect((await program.signal('SIGTERM')).code).toBe(0);
  });

  it('ends at SIGTERM in the middle of a download, and does not wait for what the origin owes', async () => {
    const body = disk(4 * 2 ** 20);
    origin.route('/a.raw', { body, etag: '"1"', stallAfter: 2 ** 20 });
    writeFileSync(join(manifests, 'all.yaml'), `${siteManifest()}---\n${imageManifest('a', '/a.raw', sha256(body))}`);
    const program = await start();
    await origin.stalled();
    const begun = performance.now();
    const ended = await program.signal('SIGTERM');
    // A silent origin is given up after a minute.
    expect(performance.now() - begun).toBeLessThan(30_000);
    expect(ended.code).toBe(0);
    expect(ended.err).toMatch(/"msg":"stopped"/);
  });

  it('goes on with a download after SIGKILL from where it was', async () => {
    // The watermark that survives a crash is moved every 64 MiB.
    const body = disk(72 * 2 ** 20);
    const stallAfter = 70 * 2 ** 20;
    origin.route('/a.raw', (_, count) => ({ body, etag: '"1"', ...(count === 1 ? { stallAfter } : {}) }));
    writeFileSync(join(manifests, 'all.yaml'), `${siteManifest()}---\n${imageManifest('a', '/a.raw', sha256(body))}`);
    const program = await start();
    await origin.stalled();
    await expect.poll(journalled, { interval: 100 }).toBeGreaterThan(0);
    expect((await program.signal('SIGKILL')).code).toBeNull();

    await start();
    expect(await run('wait', 'vmimg/a', '--timeout', '60s')).toMatchObject({ code: 0 });
    const gets = origin.requests.filter(({ path }) => path === '/a.raw');
    expect(gets).toHaveLength(2);
    const from = Number(/^bytes=(\d+)-/.exec(gets[1]?.headers.range ?? '')?.[1] ?? 0);
    expect(from).toBeGreaterThanOrEqual(64 * 2 ** 20);
    expect(gets[1]?.headers['if-range']).toBe('"1"');
    const id = (JSON.parse((await run('get', 'vmimg/a', '-o', 'json')).out) as VMImage).status.summary?.imageID;
    expect(sha256(readFileSync(join(shelf, `${id}.raw`)))).toBe(sha256(body));
  });

  it('tells a folder that is not there, and an address in use, in one line with the cure', async () => {
    expect(await run('run')).toMatchObject({ code: 2, err: expect.stringContaining('--manifests DIR') });
    expect(await run('run', '--manifests', join(root, 'no'))).toMatchObject({
      code: 3,
      err: expect.stringMatching(/^imageproxy: --manifests: .*\/no is not there: make it, or name another\n$/),
    });
    const taken = `127.0.0.1:${origin.port}`;
    const refused = await run('run', '--manifests', manifests, '--log-level', 'silent', '--telemetry', taken);
    expect(refused).toMatchObject({
      code: 1,
      err: expect.stringMatching(new RegExp(`^imageproxy: [^\\n]*${taken}[^\\n]*--telemetry[^\\n]*\\n$`)),
    });
  });
});

describe('imageproxy run without a word of where', () => {
  const noCluster = () => ({ KUBECONFIG: join(root, 'no-kubeconfig') });

  it.each([
    ['alone', {}, []],
    ['with a folder for its cache', {}, ['--state', 'own']],
    ['beside IMAGEPROXY_MANIFESTS', { IMAGEPROXY_MANIFESTS: 'manifests' }, []],
  ])('works on the cluster that IMAGEPROXY_KUBERNETES means, %s', async (_how, more, options) => {
    Object.assign(env, noCluster(), { IMAGEPROXY_KUBERNETES: 'true', ...more });
    expect(await run('run', '--telemetry', 'off', ...options)).toMatchObject({
      code: 1,
      err: expect.stringContaining('no-kubeconfig cannot be read'),
    });
  });

  it('works on the folder that is typed, whatever the environment means', async () => {
    Object.assign(env, noCluster(), { IMAGEPROXY_KUBERNETES: 'true' });
    expect(await run('run', '--manifests', join(root, 'no'))).toMatchObject({
      code: 3,
      err: expect.stringContaining('/no is not there'),
    });
  });
});

describe('imageproxy register', () => {
  it('prints the id of the image, and the same one at once when it is asked again', async () => {
    const body = disk(2 ** 20);
    origin.route('/a.raw', { body, etag: '"1"' });
    const line = ['register', `${origin.url}/a.raw`, '--sha256', sha256(body).toUpperCase(), ...LOOPBACK];
    const first = await run(...line, '--site', siteFile());
    expect(first).toMatchObject({ code: 0, out: expect.stringMatching(/^[0-9a-f-]{36}\n$/) });
    expect(existsSync(join(shelf, `${first.out.trim()}.raw`))).toBe(true);

    const again = await run(...line, '--site', 'shelf');
    expect(again).toEqual({ code: 0, out: first.out, err: '' });
    expect((await run(...line, '--site', 'shelf', '-o', 'name')).out).toBe(
      `vmimage.imageproxy.dev/sha256-${sha256(body).slice(0, 32)}\n`,
    );
    const object = JSON.parse((await run(...line, '--site', 'shelf', '-o', 'json')).out) as VMImage;
    expect(object.status.summary?.imageID).toBe(first.out.trim());
    expect(origin.requests).toHaveLength(1);
  });

  it('refuses a wrong checksum with the reason, and what is corrected at the origin on the next time', async () => {
    const [right, wrong] = [disk(2 ** 20), disk(2 ** 20)];
    origin.route('/a.raw', { body: wrong, etag: '"1"' });
    const line = ['register', `${origin.url}/a.raw`, '--sha256', sha256(right), '--site', siteFile(), ...LOOPBACK];
    const refused = await run(...line);
    expect(refused).toMatchObject({
      code: 1,
      out: '',
      err: expect.stringMatching(new RegExp(`imageproxy: .*${sha256(wrong)}.*\\(DigestMismatch\\)\\n$`)),
    });
    origin.route('/a.raw', { body: right, etag: '"2"' });
    expect(await run(...line)).toMatchObject({ code: 0 });
  });

  it('is followed by reconcile, which looks at what is there before it answers', async () => {
    const body = disk(2 * 2 ** 20);
    origin.route('/a.raw', { body, etag: '"1"' });
    const line = ['register', `${origin.url}/a.raw`, '--sha256', sha256(body), '--site', siteFile(), ...LOOPBACK];
    const id = (await run(...line)).out.trim();
    const [name] = (await run('get', 'vmimg', '-o', 'name')).out.trim().split('\n');
    const target = name?.replace('.imageproxy.dev', '') ?? '';
    expect(await run('reconcile', target)).toMatchObject({ code: 0, out: `${name} reconciled: registered at shelf\n` });
    rmSync(join(shelf, `${id}.raw`));
    writeFileSync(join(shelf, `${id}.raw`), 'other bytes');
    expect(await run('reconcile', target)).toMatchObject({
      code: 1,
      err: expect.stringMatching(/ is stalled: shelf: [0-9a-f-]{36} at shelf is not what was registered/),
    });
    renameSync(shelf, `${shelf}.away`);
    expect(await run('reconcile', target, '--timeout', '60s')).toMatchObject({ code: 1 });
    renameSync(`${shelf}.away`, shelf);
    rmSync(join(shelf, `${id}.raw`));
    writeFileSync(join(shelf, `${id}.raw`), body);
    expect(await run('reconcile', target)).toMatchObject({ code: 0 });
    renameSync(shelf, `${shelf}.away`);
    expect(await run('reconcile', target, '--timeout', '60s')).toMatchObject({
      code: 1,
      err: expect.stringMatching(/ is as it was: shelf: ImageSite shelf is not ready: /),
    });
  });

  it('lets the process that runs on the state do the work', async () => {
    const body = disk(2 ** 20);
    origin.route('/a.raw', { body, etag: '"1"' });
    writeFileSync(join(manifests, 'shelf.yaml'), siteManifest());
    const program = await start();
    const line = ['register', `${origin.url}/a.raw`, '--sha256', sha256(body), '--site', 'shelf'];
    await run('wait', 'imgsite/shelf', '--for=create', '--timeout', '60s');
    const registered = await run(...line);
    expect(registered).toMatchObject({ code: 0, out: expect.stringMatching(/^[0-9a-f-]{36}\n$/) });
    expect((await program.signal('SIGTERM')).err).toContain('"request":"apply"');
  });

  it('prints a line for each site, and three ids for a metafile', async () => {
    const parts = { QCOW2: disk(2 ** 20), KERNEL: randomBytes(5000), RAMDISK: randomBytes(6000) };
    const images = Object.entries(parts).map(([type, body]) => {
      origin.route(`/${type}`, { body, etag: '"1"' });
      return `<image><type>${type === 'QCOW2' ? 'FILESYSTEM' : type}</type><signature>${createHash('sha1').update(body).digest('hex')}</signature><url>${origin.url}/${type}</url></image>`;
    });
    const xml = Buffer.from(`<images>${images.join('')}</images>`);
    origin.route('/a.xml', { body: xml, etag: '"1"' });
    const other = join(root, 'other');
    mkdirSync(other);
    const both = join(root, 'both.yaml');
    writeFileSync(both, `${siteManifest()}---\n${siteManifest('other', other)}`);

    const plain = ['register', `${origin.url}/QCOW2`, '--sha256', sha256(parts.QCOW2), '--site', both, ...LOOPBACK];
    expect(await run(...plain)).toMatchObject({
      code: 0,
      out: expect.stringMatching(/^shelf\t[0-9a-f-]{36}\nother\t[0-9a-f-]{36}\n$/),
    });
    const metafile = await run(
      'register',
      `${origin.url}/a.xml`,
      '--metafile',
      '--sha1',
      createHash('sha1').update(xml).digest('hex'),
      '--site',
      'shelf',
      ...LOOPBACK,
    );
    expect(metafile).toMatchObject({
      code: 0,
      out: expect.stringMatching(/^disk\t[0-9a-f-]{36}\nkernel\t[0-9a-f-]{36}\nramdisk\t[0-9a-f-]{36}\n$/),
    });
    expect(new Set(metafile.out.trim().split(/[\t\n]/)).size).toBe(6);
  });

  it('says at once what nothing but a person can mend', async () => {
    const file = join(root, 'gone.yaml');
    writeFileSync(file, siteManifest('gone', join(root, 'not-there')));
    const refused = await run(
      'register',
      `${origin.url}/a.raw`,
      '--sha256',
      '0'.repeat(64),
      '--site',
      file,
      ...LOOPBACK,
    );
    expect(refused).toMatchObject({ code: 1, err: expect.stringMatching(/ImageSite gone is not ready: .*not-there/) });
    expect(await run('register', `${origin.url}/a.raw`, '--sha256', '0'.repeat(64), '--site', 'nowhere')).toMatchObject(
      { code: 3 },
    );
    expect(await run('register', `${origin.url}/a.raw`, '--site', file)).toMatchObject({
      code: 2,
      err: expect.stringContaining('--sha256'),
    });
    expect(await run('register', `${origin.url}/a.raw`, '--sha256', 'abc', '--site', file)).toMatchObject({
      code: 2,
      err: expect.stringContaining('64 hexadecimal digits'),
    });
  });

  it('gives up in time, and goes on the next time', async () => {
    const body = disk(4 * 2 ** 20);
    origin.route('/a.raw', { body, etag: '"1"', stallAfter: 2 ** 20 });
    const line = ['register', `${origin.url}/a.raw`, '--sha256', sha256(body), '--site', siteFile(), ...LOOPBACK];
    expect(await run(...line, '--timeout', '2s')).toMatchObject({
      code: 4,
      err: expect.stringContaining('run the command again'),
    });
    // It need not have come as far as to ask the origin.
    origin.route('/a.raw', { body, etag: '"1"' });
    expect(await run(...line)).toMatchObject({ code: 0 });
  });
});

describe('imageproxy for people', () => {
  it('judges manifests by file, line, document and field', async () => {
    const bad = join(manifests, 'bad.yaml');
    writeFileSync(
      bad,
      `${siteManifest()}---\n${imageManifest('a', '/a', 'xyz').replace('spec:', 'spec:\n  sourced: 1')}`,
    );
    const judged = await run('validate', manifests);
    expect(judged).toMatchObject({ code: 1, err: '1 file, 1 object: 1 error, 1 warning\n' });
    expect(judged.out).toContain(`${bad}:10: warning: document 2: spec.sourced: unknown field, it is ignored`);
    expect(judged.out).toContain(`${bad}:12: error: document 2: spec.checksums.sha256: `);
    writeFileSync(bad, siteManifest());
    expect(await run('validate', bad)).toMatchObject({ code: 0, err: '1 file, 1 object: all well\n' });
    writeFileSync(join(manifests, 'twice.yaml'), siteManifest());
    expect(await run('validate', manifests)).toMatchObject({ code: 1, out: expect.stringContaining('is also in') });
  });

  it('describes an object without what is wrong with others of its file', async () => {
    const calm = imageManifest('calm', '/calm', '0'.repeat(64)).replace(
      'spec:',
      'spec:\n  suspend: true\n  sourced: 1',
    );
    writeFileSync(join(manifests, 'both.yaml'), `${calm}---\n${imageManifest('broken', '/broken', 'xyz')}`);
    await start();
    expect((await run('wait', 'vmimg/calm', '--for=create', '--timeout', '60s')).code).toBe(0);
    const { out } = await run('describe', 'vmimg/calm');
    expect(out).toMatch(/Problems:[^]*spec\.sourced: unknown field/);
    expect(out).not.toContain('document 2');
  });

  it('explains fields from the CRD', async () => {
    const { out } = await run('explain', 'vmimage.spec.source.http');
    expect(out).toMatch(/^KIND: +VMImage\nVERSION: +imageproxy\.dev\/v1beta1\nFIELD: +spec\.source\.http <Object>/);
    expect(out).toMatch(/urls <\[\]string> -required-/);
    expect(await run('explain', 'vmimage.spec.sorce')).toMatchObject({
      code: 3,
      err: expect.stringContaining('it has guid, source'),
    });
  });

  it('watches with plain lines where nothing can be drawn over, until it is interrupted', async () => {
    const body = disk(2 ** 20);
    origin.route('/a.raw', { body, etag: '"1"' });
    await run('register', `${origin.url}/a.raw`, '--sha256', sha256(body), '--site', siteFile(), ...LOOPBACK);
    const watching = new Program(['watch'], env);
    await watching.says(/Ready +█+ +100% +[0-9a-f-]{36}\n/);
    expect(await watching.signal('SIGINT')).toMatchObject({ code: 0, err: '' });
    const table = new Program(['get', 'vmimg', '-w'], env);
    await table.says(/sha256-.* True /);
    expect((await table.signal('SIGINT')).code).toBe(130);
  });

  it('completes words in a real bash', async () => {
    const body = disk(2 ** 20);
    origin.route('/a.raw', { body, etag: '"1"' });
    await run('register', `${origin.url}/a.raw`, '--sha256', sha256(body), '--site', siteFile(), ...LOOPBACK);
    const script = `source <("$0" completion bash)
      COMP_WORDS=("$0" describe imgsite/sh); COMP_CWORD=2
      _imageproxy; printf '%s\\n' "\${COMPREPLY[@]}"`;
    const { stdout } = await promisify(execFile)('bash', ['-c', script, LAUNCHER], { env: { ...process.env, ...env } });
    expect(stdout).toBe('imgsite/shelf\n');
  });

  it('tells in one line that its output cannot be written', async () => {
    await expect(
      promisify(execFile)('sh', ['-c', 'exec "$0" "$@" > /dev/full', LAUNCHER, 'version']),
    ).rejects.toMatchObject({
      code: 1,
      stderr: 'imageproxy: standard output cannot be written: ENOSPC: no space left on device, write\n',
    });
  });

  it('tells wrong usage in one line, with where to look', async () => {
    expect(await run('gett')).toMatchObject({
      code: 2,
      out: '',
      err: `imageproxy: unknown command 'gett' (Did you mean get?) (see "imageproxy --help")\n`,
    });
    expect(await run('get', 'pods')).toMatchObject({ code: 2, err: expect.stringContaining('vmimages (vmimg)') });
    expect(await run('get')).toMatchObject({ code: 3, err: expect.stringContaining('there is no state in') });
    expect(await run()).toMatchObject({ code: 0, out: expect.stringContaining('Usage: imageproxy COMMAND') });
    const help = await run('register', '--help');
    expect(help.out).toContain('Examples:\n  imageproxy register https://');
    expect(JSON.parse((await run('version', '-o', 'json')).out)).toMatchObject({ node: process.version });
  });
});
