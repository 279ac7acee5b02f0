import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import type { Catalog, ReadRequest } from '../../../src/catalogs/catalog.ts';
import { readEntries } from '../../../src/catalogs/kept.ts';
import { type ReadOutcome, type ReadTask, readList } from '../../../src/catalogs/reading.ts';
import { type CatalogReaders, startCatalogReaders } from '../../../src/catalogs/thread.ts';
import type { HttpSourceSpec } from '../../../src/sources/source.ts';
import { hepixList } from '../../support/hepix.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';

/** Reading a list over the network, into the folder of its subscription. */
let origin: Origin;
let other: Origin;
let folder: string;
const AT = Date.parse('2026-06-01T00:00:00Z');
const never = new AbortController().signal;

beforeEach(async () => {
  [origin, other] = await Promise.all([startOrigin(), startOrigin()]);
  folder = join(mkdtempSync(join(tmpdir(), 'reading-')), 'uid');
});
afterEach(async () => {
  await Promise.all([origin.close(), other.close()]);
  rmSync(join(folder, '..'), { recursive: true, force: true });
});

function source(more: Partial<HttpSourceSpec> = {}): HttpSourceSpec {
  return {
    kind: 'http',
    url: `${origin.url}/list`,
    headers: {},
    network: { allow: ['127.0.0.0/8'] },
    timeouts: { connectMs: 60_000, headersMs: 60_000, stallMs: 60_000 },
    ...more,
  };
}

const task = (more: Partial<ReadTask> = {}): ReadTask => ({
  format: 'ImageProxy',
  source: source(),
  trust: { kind: 'unsigned' },
  at: AT,
  folder,
  accepted: undefined,
  rollback: 'Refuse',
  ...more,
});

/** A list that is its text: as many entries as lines, with what `more` says of it. */
function lines(text: string, more: Partial<Catalog['list']> = {}): Catalog {
  const ids = text.split('\n').filter((line) => line !== '');
  return {
    list: { format: 'ImageProxy', digest: `sha256:${text.length}`, ...more },
    entries: ids.map((id) => ({ id, urls: ['https://x/'], checksums: {}, contentChecksums: {}, os: {}, fields: {} })),
    skipped: [],
    warnings: [],
  };
}

async function fetched({ fetch, url }: ReadRequest, path: string, options = { maxBytes: 1000 }): Promise<string> {
  return new TextDecoder().decode(await fetch(new URL(path, url).href, options));
}

/** An index that names its one part. */
const readIndex = async (_: unknown, request: ReadRequest) =>
  lines(await fetched(request, await fetched(request, request.url)));

describe('the documents of a list', () => {
  test('are asked for conditionally, each by its own validators, and nothing is sent again that is here', async () => {
    const served: Record<string, number> = {};
    for (const [path, body, validator] of [
      ['/list', '/part', { etag: 'W/"1"' }],
      ['/part', 'a\nb\n', { lastModified: 'Mon, 01 Jun 2026 00:00:00 GMT' }],
    ] as const) {
      origin.route(path, ({ headers }) => {
        const known = headers['if-none-match'] ?? headers['if-modified-since'];
        if (known !== undefined && Object.values(validator).includes(known as never)) return { status: 304 };
        served[path] = (served[path] ?? 0) + 1;
        return { body: Buffer.from(body), ...validator };
      });
    }
    const first = (await readList(task(), readIndex, never)) as ReadOutcome & { kind: 'Accepted' };
    expect(first).toMatchObject({ kind: 'Accepted', fresh: true });
    const again = await readList(task({ accepted: first.kept.list }), readIndex, never);
    expect(again).toEqual({ ...first, fresh: false });
    expect(served).toEqual({ '/list': 1, '/part': 1 });
    expect((await readEntries(folder, first.kept))?.entries.map(({ id }) => id)).toEqual(['a', 'b']);
  });

  test('are fetched anew where one is lost or damaged on the disk', async () => {
    origin.route('/list', ({ headers }) =>
      headers['if-none-match'] === '"1"' ? { status: 304 } : { body: Buffer.from('/part'), etag: '"1"' },
    );
    origin.route('/part', { body: Buffer.from('a\n') });
    await readList(task(), readIndex, never);
    for (const name of readdirSync(folder).filter((each) => each.startsWith('document-')))
      writeFileSync(join(folder, name), 'x');
    expect(await readList(task(), readIndex, never)).toMatchObject({ kind: 'Accepted' });
    origin.requests.length = 0;
    await readList(task(), readIndex, never);
    expect(origin.requests[0]?.headers['if-none-match']).toBe('"1"');
  });

  test('of another origin are asked for without the credentials of the list, redirects included', async () => {
    origin.route('/list', { body: Buffer.from(`${other.url}/part`) });
    origin.route('/own', { body: Buffer.from('a\n') });
    other.route('/part', { status: 302, headers: { location: `${origin.url}/own` } });
    const secret = { authorization: 'Bearer s3cr3t', secretHeaders: { 'x-token': 's3cr3t' } };
    await readList(task({ source: source(secret) }), readIndex, never);
    const [first, last] = origin.requests;
    expect(first?.headers).toMatchObject({ authorization: 'Bearer s3cr3t', 'x-token': 's3cr3t' });
    for (const { headers } of [...other.requests, ...(last === undefined ? [] : [last])]) {
      expect(JSON.stringify(headers)).not.toContain('s3cr3t');
    }
  });

  test.each<[string, string, (request: ReadRequest) => Promise<unknown>]>([
    ['is too large', 'TooLarge', (request) => fetched(request, '/large', { maxBytes: 10 })],
    ['is too large without saying so', 'TooLarge', (request) => fetched(request, '/chunked', { maxBytes: 10 })],
    ['is not there', 'NotFound', (request) => fetched(request, '/none')],
    ['is cut short', 'Truncated', (request) => fetched(request, '/cut')],
    ['is packed on the way', 'NotSupported', (request) => fetched(request, '/packed')],
    ['leads to an address that is closed', 'AddressForbidden', (request) => fetched(request, 'http://10.0.0.1/')],
    ['leads to no web address', 'InvalidSpec', (request) => fetched(request, 'file:///etc/passwd')],
  ])('that %s ends the reading: %s', async (_, reason, ask) => {
    origin.route('/large', { body: Buffer.alloc(11) });
    origin.route('/chunked', { body: Buffer.alloc(11), length: 'chunked' });
    origin.route('/packed', { body: gzipSync('a\n'), headers: { 'content-encoding': 'gzip' } });
    origin.route('/cut', { body: Buffer.alloc(100), cutAfter: 50 });
    const read = async (__: unknown, request: ReadRequest) => lines(String(await ask(request)));
    const outcome = await readList(task(), read, never);
    expect(outcome).toMatchObject({ kind: 'Refused', stage: 'Fetch', failure: { reason } });
  });

  test('that may be missing is missing', async () => {
    const read = async (_: unknown, request: ReadRequest) => {
      const { fetch, url } = request;
      expect(await fetch(`${url}.asc`, { maxBytes: 10, optional: true })).toBeUndefined();
      return lines('a\n');
    };
    expect(await readList(task(), read, never)).toMatchObject({ kind: 'Accepted' });
  });
});

describe('a refused list', () => {
  const refuse =
    (reason: 'SignatureInvalid' | 'CrlMissing' | 'EndorserNotTrusted' | 'ListExpired', body: string) =>
    async (_: unknown, request: ReadRequest) => {
      const text = await fetched(request, request.url);
      if (text === body) throw new Failure(reason, `${reason} of ${body.trim()}`);
      return lines(text);
    };
  const serve = (body: string) => origin.route('/list', { body: Buffer.from(body) });
  const good = refuse('ListExpired', 'nothing');

  test('leaves what is kept as it is', async () => {
    serve('a\n');
    const { kept } = (await readList(task(), good, never)) as ReadOutcome & { kind: 'Accepted' };
    serve('b\n');
    const outcome = await readList(task(), refuse('SignatureInvalid', 'b\n'), never);
    expect(outcome).toMatchObject({ kind: 'Refused', stage: 'Verify', failure: { reason: 'SignatureInvalid' }, kept });
    expect((await readEntries(folder, kept))?.entries).toHaveLength(1);
  });

  test('says nothing of the signer of the kept one: only its own bytes do, also where nothing can be fetched', async () => {
    serve('a\n');
    await readList(task(), good, never);
    serve('b\n');
    const stranger = await readList(task(), refuse('EndorserNotTrusted', 'b\n'), never);
    expect(stranger.kept).not.toHaveProperty('distrust');
    origin.route('/list', { status: 503 });
    const out = await readList(task(), refuse('EndorserNotTrusted', 'a\n'), never);
    expect(out).toMatchObject({ kind: 'Refused', stage: 'Fetch', failure: { reason: 'ServerError' } });
    expect(out.kept?.distrust).toMatchObject({ reason: 'EndorserNotTrusted' });
    // What is not known leaves it at that; who is trusted again, is.
    const unknown = await readList(task(), refuse('CrlMissing', 'a\n'), never);
    expect(unknown.kept?.distrust).toMatchObject({ reason: 'EndorserNotTrusted' });
    const back = await readList(task(), refuse('ListExpired', 'a\n'), never);
    expect(back.kept).not.toHaveProperty('distrust');
  });
});

test('an entry whose own signer is out is among the skipped ones, although the list cannot be fetched', async () => {
  origin.route('/list', { body: Buffer.from('a\nb\n') });
  const judging = (out: readonly string[]) => async (_: unknown, request: ReadRequest) => {
    const catalog = lines(await fetched(request, request.url));
    const skipped = out.map((id) => ({ id, reason: 'EndorserNotTrusted' as const, message: 'he is out' }));
    return { ...catalog, entries: catalog.entries.filter(({ id }) => !out.includes(id)), skipped };
  };
  await readList(task(), judging([]), never);
  origin.route('/list', { status: 503 });
  const { kept } = await readList(task(), judging(['b']), never);
  const left = kept === undefined ? undefined : await readEntries(folder, kept);
  expect(left?.entries.map(({ id }) => id)).toEqual(['a']);
  expect(left?.skipped).toMatchObject([{ id: 'b', reason: 'EndorserNotTrusted' }]);
  expect(readdirSync(folder)).toHaveLength(3);
});

describe('the thread', () => {
  let readers: CatalogReaders;
  beforeEach(() => {
    readers = startCatalogReaders();
  });
  afterEach(() => readers.close());

  test('reads a real list of ten thousand entries while this one goes on', async () => {
    const images = Array.from({ length: 10_000 }, (_, i) => ({
      id: `00000000-0000-4000-8000-${String(i).padStart(12, '0')}`,
      title: `Image ${i}`,
      url: `https://images.example.org/${i}.qcow2`,
      bytes: new Uint8Array(1),
    }));
    origin.route('/list', { body: Buffer.from(hepixList({ id: 'list', version: '1', images })) });
    const [ours, all] = [process.threadCpuUsage(), process.cpuUsage()];
    const outcome = await readers.read(task({ format: 'HEPiX', at: Date.now() }), never);
    const spent = ({ user, system }: NodeJS.CpuUsage) => user + system;
    expect(outcome).toMatchObject({ kind: 'Accepted', kept: { list: { identity: 'list', version: '1' } } });
    expect(spent(process.threadCpuUsage(ours))).toBeLessThan(spent(process.cpuUsage(all)) / 2);
  });

  test('ends a reading that is given up', async () => {
    origin.route('/list', { body: Buffer.alloc(100), stallAfter: 10 });
    const stop = new AbortController();
    const reading = readers.read(task(), stop.signal);
    const refused = expect(reading).rejects.toMatchObject({ reason: 'Aborted' });
    await origin.stalled();
    stop.abort();
    await refused;
  });

  test('that loads for longer than it may take to hear of an end, as on a slow machine, ends no other reading by that', async () => {
    origin.route('/list', { silent: true });
    origin.route('/other', { body: Buffer.from(hepixList({ id: 'list', version: '1', images: [] })) });
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    try {
      const stop = new AbortController();
      const reading = readers.read(task(), stop.signal);
      const refused = expect(reading).rejects.toMatchObject({ reason: 'Aborted' });
      const further = readers.read(
        task({
          format: 'HEPiX',
          at: Date.now(),
          source: source({ url: `${origin.url}/other` }),
          folder: `${folder}-other`,
        }),
        never,
      );
      stop.abort();
      // It was started in this very turn: nothing of it can have been heard.
      vi.advanceTimersByTime(60_000);
      expect(await further).toMatchObject({ kind: 'Accepted' });
      await refused;
    } finally {
      vi.useRealTimers();
    }
  });

  test('gives up what it does when it is closed, and takes no more', async () => {
    origin.route('/list', { silent: true });
    const reading = readers.read(task(), never);
    const refused = expect(reading).rejects.toMatchObject({ reason: 'Aborted' });
    await origin.stalled();
    await readers.close();
    await refused;
    await expect(readers.read(task(), never)).rejects.toMatchObject({ reason: 'Aborted' });
  });
});
