import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createHash } from 'node:crypto';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { kstatus } from '../../../src/api/conditions.ts';
import { REASONS, type Reason } from '../../../src/api/failure.ts';
import type { VMImage } from '../../../src/api/types.ts';
import type { ControllerOptions } from '../../../src/cli/controller.ts';
import { type Authority, makeAuthority } from '../../support/authority.ts';
import { type Disk, digested, ext4, gzipped, qcow2 } from '../../support/disks.ts';
import { condition, directorySite, House, isTrue, type Manifest, vmimage } from '../../support/house.ts';
import { type Origin, type Route, startOrigin } from '../../support/origin.ts';
import { unsafeDisks } from '../../support/unsafe-disks.ts';

/**
 * What users see of a bad image, row by row: the condition, the reason, and a message that names what failed and the cure. And what
 * holds in each of them: nothing is published, nothing is left behind, no secret is told, and once it is put right it is Ready.
 */

const SECRET = 'hunter2-very-secret';
const STALLING = ['InvalidSpec', 'VerificationFailed', 'UnsafeImage', 'Unauthorized'];

let origin: Origin;
let other: Origin;
let secure: Origin;
let authority: Authority;

interface Place {
  /** Of the VMImage. */
  name: string;
  path: string;
  url: string;
  /** A good qcow2, and a good raw disk as it is and compressed with gzip, that no other row has: nothing of it is in the cache yet. */
  disk: Disk;
  packed: Disk;
  raw: Disk;
}

interface Row {
  what: string;
  reason: Reason;
  says: RegExp;
  /** Sets the origin up and says what the user wrote: the spec, but for what `specOf` fills in; or further manifests too. */
  bad(place: Place): Record<string, unknown> | [Record<string, unknown>, ...Manifest[]];
  /** Puts it right: a new spec, new manifests, or nothing where the origin is what is put right. Default: a good disk at the path. */
  cure?(place: Place): Record<string, unknown> | Manifest[] | undefined;
  /** What has come stays, for the fetch to go on from there. */
  resumes?: true;
  /** Requests to the origin until the verdict; default 1. */
  fetches?: number;
}

const specOf = (place: Place, more: Record<string, unknown>) => ({
  source: { http: { urls: [place.url] } },
  checksums: { sha256: place.disk.sha256 },
  sites: [{ name: 'shelf' }],
  ...more,
});
const at = (place: Place, route: Route): Record<string, never> => {
  origin.route(place.path, route);
  return {};
};
const http = (...urls: string[]) => ({ source: { http: { urls } } });
const published = (folder: string) =>
  readdirSync(folder).filter((name) => !name.startsWith('.') && name !== 'index.json');
const staged = (folder: string) => (existsSync(join(folder, '.staging')) ? readdirSync(join(folder, '.staging')) : []);

/** Writes the image, waits for its verdict, and checks all that has to hold whatever the reason. */
async function verdictOf(house: House, row: Row, place: Place): Promise<VMImage> {
  const written = row.bad(place);
  const [more, ...beside] = Array.isArray(written) ? written : [written];
  const before = requestsFor(place);
  await house.write(`${place.name}.yaml`, ...beside, vmimage(place.name, specOf(place, more)));
  const image = await house.until(
    place.name,
    (now) => condition(now, 'Ready')?.status === 'False' && condition(now, 'Ready')?.reason === row.reason,
    row.reason,
  );
  const ready = condition(image, 'Ready');
  expect(ready?.message).toMatch(row.says);
  expect(ready?.observedGeneration).toBe(image.metadata.generation);
  expect(isTrue(image, 'Available')).toBe(false);
  const stalled = STALLING.includes(REASONS[row.reason]);
  expect(kstatus(image).status).toBe(stalled ? 'Failed' : 'InProgress');
  expect([isTrue(image, 'Stalled'), isTrue(image, 'Reconciling')]).toEqual([stalled, !stalled]);
  const site = image.status.sites?.find((each) => each.name === 'shelf');
  expect(site).toMatchObject({ phase: stalled ? 'Failed' : 'Pending', reason: row.reason });
  expect(ready?.message).toContain(site?.message);
  expect(site?.imageID).toBeUndefined();
  expect(site?.operation).toBeUndefined();
  if (row.fetches !== undefined) expect(requestsFor(place) - before).toBe(row.fetches);
  expect(published(house.shelf)).toEqual([]);
  expect(staged(house.shelf)).toEqual([]);
  expect(house.leftIn('scratch')).toEqual([]);
  expect(house.leftIn('partial')).toHaveLength(row.resumes === true ? 1 : 0);
  expect(`${JSON.stringify(image)}${house.lines.join('')}`).not.toContain(SECRET);
  return image;
}

async function put(house: House, row: Row, place: Place): Promise<void> {
  const cured = row.cure === undefined ? at(place, { body: place.disk.bytes }) : row.cure(place);
  if (Array.isArray(cured)) await house.write(`${place.name}-more.yaml`, ...cured);
  else await house.write(`${place.name}.yaml`, vmimage(place.name, specOf(place, cured ?? {})));
  if (!Array.isArray(cured)) await house.ask(place.name, 'cured');
  await house.ready(place.name);
  expect(published(house.shelf)).toHaveLength(1);
  await house.remove(`${place.name}.yaml`, place.name);
  expect(published(house.shelf)).toEqual([]);
  expect(house.leftIn('partial', 'scratch')).toEqual([]);
  expect(house.lines.join('')).not.toContain(SECRET);
}

const LABEL = 'LABELLABELLABEL!';
const labelled = { qcow2: qcow2(LABEL).bytes, raw: ext4(LABEL).bytes };

function placeOf(name: string): Place {
  const label = createHash('sha256').update(name).digest('hex').slice(0, LABEL.length);
  const own = (bytes: Buffer) => {
    const copy = Buffer.from(bytes);
    copy.write(label, copy.indexOf(LABEL), 'latin1');
    return digested(copy);
  };
  const path = `/${name}.img`;
  const raw = own(labelled.raw);
  return { name, path, url: `${origin.url}${path}`, disk: own(labelled.qcow2), raw, packed: gzipped(raw) };
}

const requestsFor = (place: Place) => origin.requests.filter(({ path }) => path === place.path).length;

/** One test for each row. */
function shows(rows: readonly Row[], house: () => House): void {
  test.each(rows)('$what: $reason', async (row) => {
    const name = row.what
      .toLowerCase()
      .replaceAll(/[^a-z0-9]+/g, '-')
      .replaceAll(/^-|-$/g, '')
      .slice(0, 60);
    const place = placeOf(name);
    try {
      await verdictOf(house(), row, place);
      await put(house(), row, place);
    } finally {
      if (house().image(name) !== undefined) await house().remove(`${name}.yaml`, name);
    }
  });
}

beforeAll(async () => {
  authority = makeAuthority();
  [origin, other, secure] = await Promise.all([
    startOrigin(),
    startOrigin(),
    startOrigin({ tls: authority.issue('DNS:localhost') }),
  ]);
});

afterAll(async () => {
  authority?.close();
  await Promise.all([origin?.close(), other?.close(), secure?.close()]);
});

describe('an image', () => {
  let house: House;

  beforeAll(async () => {
    house = new House({ allowNetworks: ['127.0.0.1/32'] });
    mkdirSync(join(house.root, 'archive'));
    mkdirSync(join(house.root, 'private'));
    writeFileSync(join(house.root, 'private', 'disk.qcow2'), labelled.qcow2);
    symlinkSync(join(house.root, 'private', 'disk.qcow2'), join(house.root, 'archive', 'link.qcow2'));
    writeFileSync(join(house.root, 'archive', 'disk.qcow2'), labelled.qcow2);
    await house.write('shelf.yaml', directorySite('shelf', house.shelf, { maxImageSize: '64Mi' }), {
      kind: 'ConfigMap',
      metadata: { name: 'ca' },
      data: { 'ca.crt': authority.ca },
    });
    await house.start({ fileRoots: new Map([['archive', join(house.root, 'archive')]]) });
    await house.untilSite('shelf', (site) => isTrue(site, 'Ready'));
  });
  afterAll(() => house?.close());

  const secret = (place: Place, data: Record<string, string>, hosts: string | undefined = '127.0.0.1'): Manifest => ({
    kind: 'Secret',
    metadata: { name: `${place.name}-login`, annotations: hosts === '' ? {} : { 'imageproxy.dev/hosts': hosts } },
    stringData: data,
  });
  const withSecret = (place: Place) => ({
    source: { http: { urls: [place.url], secretRef: { name: `${place.name}-login` } } },
  });
  const withCa = (url: string, key?: string) => ({
    source: { http: { urls: [url], caRef: { kind: 'ConfigMap', name: 'ca', ...(key === undefined ? {} : { key }) } } },
  });

  describe('whose origin misbehaves', () => {
    const rows: Row[] = [
      {
        what: 'a file that is not there',
        reason: 'NotFound',
        says: /404.*correct the URL/,
        bad: (p) => at(p, { status: 404 }),
        fetches: 1,
      },
      {
        what: 'a file that has gone',
        reason: 'NotFound',
        says: /410|not there/,
        bad: (p) => at(p, { status: 410 }),
        fetches: 1,
      },
      {
        what: 'a file that wants a log-in',
        reason: 'Unauthorized',
        says: /401.*secretRef/,
        bad: (p) => at(p, { status: 401 }),
        fetches: 1,
      },
      {
        what: 'a file that is forbidden',
        reason: 'Forbidden',
        says: /403.*secretRef/,
        bad: (p) => at(p, { status: 403 }),
        fetches: 1,
      },
      {
        what: 'a server in trouble',
        reason: 'ServerError',
        says: /the origin answered 500/,
        bad: (p) => at(p, { status: 500 }),
        fetches: 1,
      },
      {
        what: 'a server that asks for patience',
        reason: 'TooManyRequests',
        says: /429/,
        bad: (p) => at(p, { status: 429, headers: { 'retry-after': '1800' } }),
        fetches: 1,
      },
      {
        what: 'redirects in a circle',
        reason: 'RedirectLoop',
        says: /redirects in a circle/,
        bad: (p) => at(p, { status: 302, headers: { location: p.url } }),
        fetches: 1,
      },
      {
        what: 'redirects without end',
        reason: 'RedirectLoop',
        says: /more than 10 redirects/,
        bad: (p) => {
          origin.route(p.path, (request) => ({
            status: 302,
            headers: { location: `${p.path}?${Math.random()}${request.path.length}` },
          }));
          return {};
        },
      },
      {
        what: 'a redirect to a private address',
        reason: 'AddressForbidden',
        says: /http:\/\/127\.0\.0\.2.*public addresses only.*--allow-network/,
        bad: (p) => at(p, { status: 302, headers: { location: `http://127.0.0.2:${origin.port}/secret` } }),
        fetches: 1,
      },
      {
        what: 'a redirect to the metadata service of a cloud',
        reason: 'AddressForbidden',
        says: /public addresses only/,
        bad: (p) => at(p, { status: 307, headers: { location: 'http://169.254.169.254/latest/meta-data/' } }),
        fetches: 1,
      },
      {
        what: 'a URL of a private address',
        reason: 'AddressForbidden',
        says: /public addresses only/,
        bad: (p) => ({ source: { http: { urls: [p.url.replace('127.0.0.1', '10.0.0.1')] } } }),
        fetches: 0,
      },
      {
        what: 'a URL of a private address in disguise',
        reason: 'AddressForbidden',
        says: /public addresses only/,
        bad: (p) => ({ source: { http: { urls: [p.url.replace('127.0.0.1', '[::ffff:127.0.0.2]')] } } }),
        fetches: 0,
      },
      {
        what: 'a redirect from https to http',
        reason: 'InvalidSpec',
        says: /from https to http/,
        bad: (p) => {
          secure.route(p.path, { status: 301, headers: { location: p.url } });
          return withCa(`${secure.url}${p.path}`);
        },
      },
      {
        what: 'a redirect to nowhere',
        reason: 'ServerError',
        says: /302 without saying where/,
        bad: (p) => at(p, { status: 302 }),
      },
      {
        what: 'a redirect to another scheme',
        reason: 'InvalidSpec',
        says: /not http\(s\)/,
        bad: (p) => at(p, { status: 302, headers: { location: 'file:///etc/passwd' } }),
      },
      {
        what: 'a short page of HTML',
        reason: 'NotAnImage',
        says: /HTML.*log-in/,
        bad: (p) =>
          at(p, {
            body: Buffer.from('<!DOCTYPE html><html><title>Log in</title></html>'),
            headers: { 'content-type': 'text/html' },
          }),
        fetches: 1,
      },
      {
        what: 'a long page of HTML',
        reason: 'NotAnImage',
        says: /HTML.*log-in/,
        bad: (p) => at(p, { body: Buffer.from(`<html><title>Log in</title>${'<p>x</p>'.repeat(500_000)}</html>`) }),
        fetches: 1,
      },
      {
        what: 'a body cut short',
        reason: 'Truncated',
        says: /ended after 100000 bytes, before all 524288/,
        bad: (p) => at(p, { body: p.disk.bytes, etag: '"1"', cutAfter: 100_000 }),
        cure: (p) => at(p, { body: p.disk.bytes, etag: '"1"' }),
        resumes: true,
        fetches: 1,
      },
      {
        what: 'a body longer than its Content-Length',
        reason: 'LengthMismatch',
        says: /longer than its Content-Length/,
        bad: (p) =>
          at(p, {
            raw: Buffer.concat([
              Buffer.from('HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n'),
              p.disk.bytes.subarray(0, 2000),
            ]),
          }),
        fetches: 1,
      },
      {
        what: 'a Content-Length that is no number',
        reason: 'LengthMismatch',
        says: /Content-Length is not usable/,
        bad: (p) => at(p, { raw: 'HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nx' }),
        fetches: 1,
      },
      {
        what: 'an answer that is no HTTP',
        reason: 'ServerError',
        says: /not valid HTTP/,
        bad: (p) => at(p, { raw: 'SSH-2.0-OpenSSH_9.2\r\n' }),
        fetches: 1,
      },
      {
        what: 'a port where nothing listens',
        reason: 'NetworkError',
        says: /nothing listens there/,
        bad: () => http('http://127.0.0.1:1/disk.img'),
        fetches: 0,
      },
      {
        what: 'a Content-Encoding',
        reason: 'NotSupported',
        says: /Content-Encoding "gzip".*turn that off/,
        bad: (p) => at(p, { body: gzipSync(p.disk.bytes), headers: { 'content-encoding': 'gzip' } }),
        fetches: 1,
      },
      {
        what: 'mirrors that all fail',
        reason: 'ServerError',
        says: /answered 503.*also NotFound: .*404.*also DigestMismatch: .*sha256/s,
        bad: (p) => {
          origin.route(`${p.path}.1`, { status: 404 });
          origin.route(`${p.path}.2`, { body: ext4('evil').bytes });
          origin.route(`${p.path}.3`, { status: 503 });
          return http(`${p.url}.1`, `${p.url}.2`, `${p.url}.3`);
        },
      },
      {
        what: 'a certificate of an unknown authority',
        reason: 'TlsFailed',
        says: /authority that is not known here; name its CA certificate in caRef/,
        bad: (p) => {
          secure.route(p.path, { body: p.disk.bytes });
          return http(`${secure.url}${p.path}`);
        },
        cure: (p) => withCa(`${secure.url}${p.path}`),
      },
      {
        what: 'a certificate for another host',
        reason: 'TlsFailed',
        says: /another host name; correct the URL/,
        bad: (p) => {
          secure.route(p.path, { body: p.disk.bytes });
          return withCa(`${secure.url.replace('localhost', '127.0.0.1')}${p.path}`);
        },
        cure: (p) => withCa(`${secure.url}${p.path}`),
      },
      {
        what: 'https where http is spoken',
        reason: 'TlsFailed',
        says: /does not speak TLS; is it http\?/,
        bad: (p) => {
          at(p, { body: p.disk.bytes });
          return http(p.url.replace('http:', 'https:'));
        },
        cure: () => ({}),
      },
    ];
    shows(rows, () => house);
  });

  describe('whose bytes are not what was declared', () => {
    const zeros = (count: number) => '0'.repeat(count);
    const rows: Row[] = [
      {
        what: 'a wrong sha256',
        reason: 'DigestMismatch',
        says: /sha256 of the \d+ bytes is [0-9a-f]{64}, declared is 0{64}; correct the checksum, or the file/,
        bad: (p) => ({ ...at(p, { body: p.disk.bytes }), checksums: { sha256: zeros(64) } }),
        cure: () => ({}),
        fetches: 1,
      },
      {
        what: 'a wrong sha512 beside a right sha256',
        reason: 'DigestMismatch',
        says: /sha512 of the \d+ bytes is [0-9a-f]{128}, declared is 0{128}/,
        bad: (p) => ({ ...at(p, { body: p.disk.bytes }), checksums: { sha256: p.disk.sha256, sha512: zeros(128) } }),
        cure: () => ({}),
        fetches: 1,
      },
      {
        what: 'a wrong md5',
        reason: 'DigestMismatch',
        says: /md5 of the/,
        bad: (p) => ({
          ...at(p, { body: p.disk.bytes }),
          checksums: { md5: zeros(32) },
          verification: { allowWeak: true },
        }),
        cure: () => ({}),
        fetches: 1,
      },
      {
        what: 'a wrong digest of the content',
        reason: 'DigestMismatch',
        says: /spec\.contentChecksums\.sha256: the content of .* has sha256 [0-9a-f]{64}, not 0{64}/,
        bad: (p) => ({
          ...at(p, { body: p.packed.bytes }),
          checksums: { sha256: p.packed.sha256 },
          contentChecksums: { sha256: zeros(64) },
        }),
        cure: (p) => ({ checksums: { sha256: p.packed.sha256 } }),
        fetches: 1,
      },
      {
        what: 'a wrong digest of the content and none of the file',
        reason: 'DigestMismatch',
        says: /spec\.contentChecksums\.sha512: .* has sha512 [0-9a-f]{128}, not 0{128}/,
        bad: (p) => ({
          ...at(p, { body: p.packed.bytes }),
          checksums: undefined,
          contentChecksums: { sha512: zeros(128) },
        }),
        cure: (p) => ({ checksums: { sha256: p.packed.sha256 } }),
        fetches: 1,
      },
      {
        what: 'a file larger than the site takes',
        reason: 'TooLarge',
        says: /67108865 bytes, more than the 67108864 that ImageSite shelf takes: raise its spec\.maxImageSize \(64Mi\)/,
        bad: (p) => at(p, { raw: 'HTTP/1.1 200 OK\r\nContent-Length: 67108865\r\n\r\n' }),
        fetches: 1,
      },
      {
        what: 'a file without length that is larger than the site takes',
        reason: 'TooLarge',
        says: /more than the 67108864 bytes that ImageSite shelf takes/,
        bad: (p) => at(p, { body: Buffer.alloc(66 * 2 ** 20, 0x81), length: 'chunked' }),
        fetches: 1,
      },
    ];
    shows(rows, () => house);
  });

  describe('that is no safe disk', () => {
    const refused: Row[] = unsafeDisks().map(({ what, reason, says, disk }) => ({
      what,
      reason,
      says,
      bad: (p) => ({ ...at(p, { body: disk.bytes }), checksums: { sha256: disk.sha256 } }),
      fetches: 1,
    }));
    const declared = (what: string, says: RegExp, spec: Record<string, unknown>): Row => ({
      what,
      reason: 'FormatMismatch',
      says,
      bad: (p) => ({ ...at(p, { body: p.disk.bytes }), ...spec }),
      cure: () => ({ format: 'Qcow2' }),
      fetches: 1,
    });
    const zip = digested(Buffer.concat([Buffer.from('PK\x03\x04', 'latin1'), Buffer.alloc(4096)]));
    const twice = digested(gzipSync(gzipSync(Buffer.alloc(2 ** 20, 'x'))));
    const rows: Row[] = [
      ...refused,
      declared('a qcow2 declared as Raw', /declared as Raw, but the bytes are Qcow2: correct spec\.format/, {
        format: 'Raw',
      }),
      declared('a qcow2 declared as Vmdk', /declared as Vmdk, but the bytes are Qcow2: correct spec\.format/, {
        format: 'Vmdk',
      }),
      {
        what: 'an archive',
        reason: 'NotSupported',
        says: /ZIP/,
        bad: (p) => ({ ...at(p, { body: zip.bytes }), checksums: { sha256: zip.sha256 } }),
        fetches: 1,
      },
      {
        what: 'an image compressed twice',
        reason: 'NotSupported',
        says: /compressed twice/,
        bad: (p) => ({ ...at(p, { body: twice.bytes }), checksums: { sha256: twice.sha256 } }),
        fetches: 1,
      },
      {
        what: 'a gzip file cut short before it was published',
        reason: 'CorruptImage',
        says: /gzip|cut short|compressed/i,
        bad: (p) => {
          const cut = digested(p.packed.bytes.subarray(0, p.packed.bytes.length / 2));
          return { ...at(p, { body: cut.bytes }), checksums: { sha256: cut.sha256 } };
        },
        fetches: 1,
      },
    ];
    shows(rows, () => house);
  });

  describe('that names what is not there, or not allowed', () => {
    const rows: Row[] = [
      {
        what: 'a missing Secret',
        reason: 'SecretNotFound',
        says: /spec\.source\.http\.secretRef: there is no Secret default\/a-missing-secret-login; create it/,
        bad: (p) => ({ ...at(p, { body: p.disk.bytes }), ...withSecret(p) }),
        cure: (p) => [secret(p, { token: SECRET })],
        fetches: 0,
      },
      {
        what: 'a Secret that does not say where it may be sent',
        reason: 'SecretHostsMissing',
        says: /login does not say where.*imageproxy\.dev\/hosts/,
        bad: (p) => [{ ...at(p, { body: p.disk.bytes }), ...withSecret(p) }, secret(p, { token: SECRET }, '')],
        cure: () => ({}),
        fetches: 0,
      },
      {
        what: 'a Secret that may be sent elsewhere only',
        reason: 'SecretHostsMissing',
        says: /spec\.source\.http\.urls\[0\].*may not be sent to 127\.0\.0\.1/,
        bad: (p) => [
          { ...at(p, { body: p.disk.bytes }), ...withSecret(p) },
          secret(p, { token: SECRET }, 'mirror.example.org'),
        ],
        cure: () => ({}),
        fetches: 0,
      },
      {
        what: 'a Secret without a usable key',
        reason: 'InvalidSecret',
        says: /none of the keys/,
        bad: (p) => [{ ...at(p, { body: p.disk.bytes }), ...withSecret(p) }, secret(p, { passwort: SECRET })],
        cure: () => ({}),
        fetches: 0,
      },
      {
        what: 'credentials that are refused',
        reason: 'Unauthorized',
        says: /401.*correct them/,
        bad: (p) => {
          origin.route(p.path, (request) =>
            request.headers.authorization === `Bearer ${SECRET}` ? { body: p.disk.bytes } : { status: 401 },
          );
          return [withSecret(p), secret(p, { token: `${SECRET}-old` })];
        },
        cure: (p) => [secret(p, { token: SECRET })],
        fetches: 1,
      },
      {
        what: 'a missing ConfigMap',
        reason: 'ConfigMapNotFound',
        says: /spec\.source\.http\.caRef: there is no ConfigMap default\/absent; create it with the key ca\.crt/,
        bad: (p) => ({
          source: { http: { urls: [p.url], caRef: { kind: 'ConfigMap', name: 'absent' } } },
        }),
        fetches: 0,
      },
      {
        what: 'a ConfigMap without that key',
        reason: 'InvalidSecret',
        says: /default\/ca has no key bundle\.pem/,
        bad: (p) => withCa(p.url, 'bundle.pem'),
        fetches: 0,
      },
      {
        what: 'a root of files that is not there',
        reason: 'SourceForbidden',
        says: /spec\.source\.file\.root: "etc" is not a root of this controller.*it has: archive/,
        bad: () => ({ source: { file: { root: 'etc', path: 'passwd' } } }),
        cure: () => ({
          source: { file: { root: 'archive', path: 'disk.qcow2' } },
          checksums: { sha256: digested(labelled.qcow2).sha256 },
        }),
      },
      {
        what: 'a link that leads out of its root',
        reason: 'SourceForbidden',
        says: /a link leads out of the root/,
        bad: () => ({ source: { file: { root: 'archive', path: 'link.qcow2' } } }),
        cure: () => ({
          source: { file: { root: 'archive', path: 'disk.qcow2' } },
          checksums: { sha256: digested(labelled.qcow2).sha256 },
        }),
      },
      {
        what: 'a file of a root that is not there',
        reason: 'NotFound',
        says: /absent\.qcow2/,
        bad: () => ({ source: { file: { root: 'archive', path: 'absent.qcow2' } } }),
        cure: () => ({
          source: { file: { root: 'archive', path: 'disk.qcow2' } },
          checksums: { sha256: digested(labelled.qcow2).sha256 },
        }),
      },
      ...(['torrent', 's3', 'oci'] as const).map((kind): Row => {
        const sources = {
          torrent: { magnet: 'magnet:?xt=urn:btih:c9e15763f722f23e98a29decdfae341b98d53056' },
          s3: { bucket: 'images', key: 'disk.qcow2' },
          oci: { reference: 'quay.io/containerdisks/fedora:41' },
        };
        return {
          what: `a source of kind ${kind}, which is for a later version`,
          reason: 'NotSupported',
          says: new RegExp(`spec\\.source\\.${kind}: this version fetches from http and file`),
          bad: () => ({ source: { [kind]: sources[kind] } }),
        };
      }),
    ];
    shows(rows, () => house);
  });

  test('whose site is not there waits for it by name, and goes on when it is made', async () => {
    const place = placeOf('early');
    at(place, { body: place.disk.bytes });
    await house.write('early.yaml', vmimage('early', specOf(place, { sites: [{ name: 'later' }] })));
    const image = await house.until('early', (now) => condition(now, 'Ready')?.reason === 'SiteNotFound');
    expect(condition(image, 'Ready')?.message).toMatch(/there is no ImageSite later: create it, or correct spec.sites/);
    expect(kstatus(image).status).toBe('InProgress');
    expect(requestsFor(place)).toBe(0);
    await house.write('later.yaml', directorySite('later', house.shelf));
    await house.ready('early');
    await house.remove('early.yaml', 'early');
  });

  test('behind a redirect to another origin is fetched there without the credentials', async () => {
    origin.route('/moved.img', { status: 302, headers: { location: `${other.url}/new.img` } });
    const place = placeOf('moved');
    other.route('/new.img', { body: place.disk.bytes });
    await house.write(
      'moved.yaml',
      secret(place, { username: 'me', password: SECRET }),
      vmimage('moved', specOf(place, withSecret(place))),
    );
    await house.ready('moved');
    await house.remove('moved.yaml', 'moved');
    expect(origin.requests.find(({ path }) => path === '/moved.img')?.headers.authorization).toBe(
      `Basic ${Buffer.from(`me:${SECRET}`).toString('base64')}`,
    );
    expect(other.requests).toHaveLength(1);
    expect(other.requests[0]?.headers.authorization).toBeUndefined();
    expect(house.lines.join('')).not.toContain(Buffer.from(`me:${SECRET}`).toString('base64'));
  });
});

/** Only the time that the row waits for is short: where it is not waited for, a pause of the machine would be taken for the origin's. */
const PATIENT = { connectMs: 15_000, headersMs: 60_000, stallMs: 60_000 };

describe.each<[ControllerOptions['timeouts'] & object, Row]>([
  [
    { ...PATIENT, headersMs: 5000 },
    {
      what: 'a server that does not answer',
      reason: 'Timeout',
      says: /no answer within 5 s/,
      bad: (p) => at(p, { silent: true }),
      fetches: 1,
    },
  ],
  [
    { ...PATIENT, stallMs: 5000 },
    {
      what: 'a server that falls silent',
      reason: 'Stalled',
      says: /no byte|5 s/,
      bad: (p) => at(p, { body: p.disk.bytes, etag: '"1"', stallAfter: 100_000 }),
      cure: (p) => at(p, { body: p.disk.bytes, etag: '"1"' }),
      resumes: true,
      fetches: 1,
    },
  ],
])('an image whose origin makes it wait', (timeouts, row) => {
  let house: House;
  beforeAll(async () => {
    house = new House({ timeouts });
    await house.write('shelf.yaml', directorySite('shelf', house.shelf));
    await house.start();
    await house.untilSite('shelf', (site) => isTrue(site, 'Ready'));
  });
  afterAll(() => house?.close());
  shows([row], () => house);
});

describe('a small cache', () => {
  let house: House;
  beforeAll(async () => {
    house = new House({ cacheQuotaBytes: 24 * 2 ** 20 });
    await house.write('shelf.yaml', directorySite('shelf', house.shelf));
    await house.start();
    await house.untilSite('shelf', (site) => isTrue(site, 'Ready'));
  });
  afterAll(() => house?.close());

  const bomb = digested(gzipSync(Buffer.alloc(256 * 2 ** 20, 0x81), { level: 1 }));
  const rows: Row[] = [
    {
      what: 'an image larger than the whole cache',
      reason: 'TooLarge',
      says: /whole cache may hold 24.*--cache-quota/,
      bad: (p) => at(p, { raw: `HTTP/1.1 200 OK\r\nContent-Length: ${30 * 2 ** 20}\r\n\r\n` }),
      fetches: 1,
    },
    {
      what: 'a gzip bomb',
      reason: 'TooLarge',
      says: /the whole cache may hold beside it: give the cache more \(--cache-quota\)/,
      bad: (p) => ({ ...at(p, { body: bomb.bytes }), checksums: { sha256: bomb.sha256 } }),
      fetches: 1,
    },
    {
      what: 'a gzip bomb known by its content only',
      reason: 'TooLarge',
      says: /--cache-quota|more than/,
      bad: (p) => ({
        ...at(p, { body: bomb.bytes }),
        checksums: undefined,
        contentChecksums: { sha256: '00'.repeat(32) },
      }),
      fetches: 1,
    },
  ];
  shows(rows, () => house);

  test('takes a file whose length nobody tells, and what comes out of a compressed one, as long as they fit', async () => {
    const raw = ext4('fits', 16);
    const fits = gzipped(raw);
    const place = placeOf('fits');
    at(place, { body: fits.bytes, length: 'chunked' });
    await house.write('fits.yaml', vmimage('fits', specOf(place, { checksums: { sha256: fits.sha256 } })));
    await house.ready('fits');
  });
});

describe('a machine without a program', () => {
  const path = process.env['PATH'] ?? '';
  let bin: string;
  let house: House;
  const link = (tool: string) => {
    const found = path
      .split(delimiter)
      .map((folder) => join(folder, tool))
      .find((file) => existsSync(file));
    if (found === undefined) throw new Error(`${tool} is not installed`);
    symlinkSync(found, join(bin, tool));
  };

  beforeAll(async () => {
    bin = mkdtempSync(join(tmpdir(), 'imageproxy-bin-'));
    link('prlimit');
    link('setpriv');
    house = new House();
    await house.write('shelf.yaml', directorySite('shelf', house.shelf));
    process.env['PATH'] = bin;
    await house.start();
    process.env['PATH'] = path;
    await house.untilSite('shelf', (site) => isTrue(site, 'Ready'));
  });
  afterAll(async () => {
    await house?.close();
    rmSync(bin, { recursive: true, force: true });
  });

  const xz = (disk: Disk) => digested(execFileSync('xz', ['-c', '-0'], { input: disk.bytes, maxBuffer: 2 ** 26 }));
  const rows: Row[] = [
    {
      what: 'an image that qemu-img has to look at',
      reason: 'ToolMissing',
      says: /qemu-img is not installed: apt-get install qemu-utils/,
      bad: (p) => at(p, { body: p.disk.bytes }),
      cure: () => {
        link('qemu-img');
        return {};
      },
      fetches: 1,
    },
    {
      what: 'an image packed with xz',
      reason: 'ToolMissing',
      says: /xz is not installed: apt-get install xz-utils/,
      bad: (p) => {
        const disk = xz(p.raw);
        return { ...at(p, { body: disk.bytes }), checksums: { sha256: disk.sha256 } };
      },
      cure: (p) => {
        link('xz');
        return { checksums: { sha256: xz(p.raw).sha256 } };
      },
      fetches: 1,
    },
  ];
  shows(rows, () => house);
});
