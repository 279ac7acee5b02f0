import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import type { FetchListener } from '../../../src/transfers/transfers.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';
import { content, digestOf, type Harness, httpSource, MIB, startHarness } from './harness.ts';

const BODY = content(3 * MIB + 12_345);
const SHA256 = digestOf(BODY);
const ETAG = '"v1"';

let origin: Origin;
let harness: Harness;
beforeAll(() => {
  harness = startHarness();
});
afterAll(() => harness.close());
beforeEach(async () => {
  harness.clean();
  origin = await startOrigin();
});
afterEach(() => origin.close());

const url = (path = '/image') => `${origin.url}${path}`;
const part = (generation: number) => join(harness.folder, `${generation}.part`);
const failure = (reason: string, message?: RegExp) =>
  expect.objectContaining({ reason, ...(message && { message: expect.stringMatching(message) }) });

describe('a fetch', () => {
  it('brings every byte, proves the declared digests and computes the others', async () => {
    origin.route('/image', { body: BODY, etag: ETAG });
    const seen: string[] = [];
    const listener: FetchListener = {
      onBegin: async ({ generation, path, offset, validators, source, contentType }) => {
        seen.push('begin');
        expect({ generation, path, offset }).toEqual({ generation: 1, path: part(1), offset: 0 });
        expect(validators).toEqual({ etag: ETAG, totalBytes: BODY.length });
        expect(source).toBe(url());
        expect(contentType).toBe('application/octet-stream');
        expect(statSync(path).size).toBe(0);
      },
      onProven: (proof) => {
        seen.push('proven');
        expect(proof).toEqual({
          generation: 1,
          size: BODY.length,
          digests: { sha256: SHA256, md5: digestOf(BODY, 'md5') },
        });
      },
      onProgress: ({ bytes, durable, totalBytes }) => {
        expect(durable).toBeLessThanOrEqual(bytes);
        expect(totalBytes).toBe(BODY.length);
      },
    };
    const declared = { sha256: SHA256.toUpperCase(), md5: digestOf(BODY, 'md5') };
    const result = await harness.fetch(harness.request(url(), declared), listener);
    expect(result).toEqual({
      generation: 1,
      path: part(1),
      size: BODY.length,
      digests: { sha256: SHA256, md5: digestOf(BODY, 'md5') },
      validators: { etag: ETAG, totalBytes: BODY.length },
      source: url(),
      fromZero: true,
    });
    expect(readFileSync(part(1)).equals(BODY)).toBe(true);
    expect(seen).toEqual(['begin', 'proven']);
    expect(origin.requests[0]?.headers).toMatchObject({ 'accept-encoding': 'identity' });
  });

  it('gives our own name, sha256, of what was declared by another digest', async () => {
    origin.route('/image', { body: BODY });
    const request = harness.request(url(), { sha512: digestOf(BODY, 'sha512') }, { also: ['sha256', 'sha1'] });
    const { digests } = await harness.fetch(request);
    expect(digests).toEqual({ sha512: digestOf(BODY, 'sha512'), sha256: SHA256, sha1: digestOf(BODY, 'sha1') });
  });

  it.each(['chunked', 'close'] as const)('takes a body without a length (%s)', async (length) => {
    origin.route('/image', { body: BODY, length });
    const { size, validators } = await harness.fetch(harness.request(url(), { sha256: SHA256 }));
    expect({ size, validators }).toEqual({ size: BODY.length, validators: {} });
    expect(readFileSync(part(1)).equals(BODY)).toBe(true);
  });

  it('takes an empty file, and one of a single byte', async () => {
    for (const [generation, body] of [Buffer.alloc(0), Buffer.from('x')].entries()) {
      origin.route('/image', { body });
      const request = harness.request(url(), { sha256: digestOf(body) }, { nextGeneration: generation + 1 });
      expect((await harness.fetch(request)).size).toBe(body.length);
    }
  });

  it('writes no byte before the space for it is granted', async () => {
    origin.route('/image', { body: BODY });
    const granted = Promise.withResolvers<void>();
    const begun = Promise.withResolvers<void>();
    const fetching = harness.fetch(harness.request(url(), { sha256: SHA256 }), {
      onBegin: () => {
        begun.resolve();
        return granted.promise;
      },
    });
    await begun.promise;
    expect(statSync(part(1)).size).toBe(0);
    granted.resolve();
    expect((await fetching).size).toBe(BODY.length);
  });

  it('ends with the refusal when the space is not granted, and leaves nothing behind', async () => {
    origin.route('/image', { body: BODY });
    const fetching = harness.fetch(harness.request(url(), { sha256: SHA256 }), {
      onBegin: async () => {
        throw new Failure('CacheFull', 'others hold the space');
      },
    });
    await expect(fetching).rejects.toEqual(failure('CacheFull', /others hold/));
    expect(readdirSync(harness.folder)).toEqual([]);
  });

  it('of a wrong digest is DigestMismatch that names both, and is never called proven', async () => {
    origin.route('/image', { body: BODY });
    let proven = 0;
    const request = harness.request(`${url()}?sig=hunter2`, { sha256: '0'.repeat(64) });
    const fetching = harness.fetch(request, { onProven: () => (proven += 1) });
    await expect(fetching).rejects.toEqual(
      failure('DigestMismatch', new RegExp(`sha256.*${SHA256}.*${'0'.repeat(64)}`)),
    );
    await expect(fetching).rejects.not.toThrow(/hunter2/);
    expect(proven).toBe(0);
  });

  it('is refused by the second declared digest as by the first', async () => {
    origin.route('/image', { body: BODY });
    let proven = 0;
    const declared = { sha256: SHA256, sha512: '0'.repeat(128) };
    const fetching = harness.fetch(harness.request(url(), declared), { onProven: () => (proven += 1) });
    await expect(fetching).rejects.toEqual(failure('DigestMismatch', /sha512/));
    expect(proven).toBe(0);
  });

  it('is stopped by its signal, keeps its partial, and tells how much of it is durable', async () => {
    origin.route('/image', { body: BODY, etag: ETAG, stallAfter: 2 * MIB });
    const abort = new AbortController();
    let durable = 0;
    let bytes = 0;
    const fetching = harness.fetch(
      harness.request(url(), { sha256: SHA256 }),
      {
        onProgress: (progress) => {
          ({ bytes, durable } = progress);
          if (bytes === 2 * MIB) abort.abort();
        },
      },
      abort.signal,
    );
    await expect(fetching).rejects.toEqual(failure('Aborted'));
    expect(durable).toBe(2 * MIB);
    expect(statSync(part(1)).size).toBe(2 * MIB);
  });

  it('does not begin when its signal has fired already', async () => {
    const fetching = harness.fetch(harness.request(url(), {}), {}, AbortSignal.abort());
    await expect(fetching).rejects.toEqual(failure('Aborted'));
    expect(origin.requests).toEqual([]);
  });

  it('from one origin is not delayed by another that stalls', async () => {
    origin.route('/slow', { body: BODY, stallAfter: 1000 });
    origin.route('/image', { body: BODY });
    const abort = new AbortController();
    const slow = harness.fetch(harness.request(url('/slow'), {}), {}, abort.signal);
    slow.catch(() => {});
    await origin.stalled();
    const request = harness.request(url(), { sha256: SHA256 }, { nextGeneration: 2 });
    expect((await harness.fetch(request)).size).toBe(BODY.length);
    abort.abort();
    await expect(slow).rejects.toEqual(failure('Aborted'));
  });
});

describe('a fetch that goes on', () => {
  const HALF = 2 * MIB;
  const validators = { etag: ETAG, totalBytes: BODY.length };
  const resume = (more: object = {}) => ({ generation: 1, watermark: HALF, validators, source: url(), ...more });

  /** Leaves a partial of two MiB. */
  async function cut(
    route: Parameters<Origin['route']>[1] = { body: BODY, etag: ETAG, cutAfter: HALF },
  ): Promise<void> {
    origin.route('/image', route);
    await expect(harness.fetch(harness.request(url(), { sha256: SHA256 }))).rejects.toEqual(failure('Truncated'));
    expect(statSync(part(1)).size).toBe(HALF);
    origin.requests.length = 0;
  }

  it('asks for the rest only, and proves all of it', async () => {
    await cut();
    origin.route('/image', { body: BODY, etag: ETAG });
    const result = await harness.fetch(
      harness.request(url(), { sha256: SHA256 }, { resume: resume(), nextGeneration: 2, also: ['sha512'] }),
      {
        onBegin: async ({ generation, offset }) =>
          expect({ generation, offset }).toEqual({ generation: 1, offset: HALF }),
      },
    );
    expect(result).toMatchObject({ generation: 1, fromZero: false, size: BODY.length });
    expect(result.digests).toEqual({ sha256: SHA256, sha512: digestOf(BODY, 'sha512') });
    expect(origin.requests.map(({ headers }) => [headers.range, headers['if-range']])).toEqual([
      [`bytes=${HALF}-`, ETAG],
    ]);
  });

  it('asks with Last-Modified where there is no ETag', async () => {
    const lastModified = 'Sat, 21 Nov 2020 12:00:00 GMT';
    await cut({ body: BODY, lastModified, cutAfter: HALF });
    origin.route('/image', { body: BODY, lastModified });
    const request = harness.request(
      url(),
      { sha256: SHA256 },
      {
        resume: resume({ validators: { lastModified, totalBytes: BODY.length } }),
        nextGeneration: 2,
      },
    );
    expect(await harness.fetch(request)).toMatchObject({ generation: 1, fromZero: false });
    expect(origin.requests[0]?.headers['if-range']).toBe(lastModified);
  });

  it('does not ask the origin when every byte is there and only the proof was cut off', async () => {
    origin.route('/image', { body: BODY, etag: ETAG });
    await harness.fetch(harness.request(url(), {}));
    origin.requests.length = 0;
    const request = harness.request(
      url(),
      { sha256: SHA256 },
      { resume: resume({ watermark: BODY.length }), nextGeneration: 2 },
    );
    expect(await harness.fetch(request)).toMatchObject({ generation: 1, fromZero: false, digests: { sha256: SHA256 } });
    expect(origin.requests).toEqual([]);
  });

  it.each([
    ['the origin changed', { body: content(BODY.length, 2), etag: '"v2"' }, {}],
    ['the origin takes no notice of ranges', { body: content(BODY.length, 2), etag: ETAG, ranges: false }, {}],
    ['the origin became shorter', { body: content(MIB, 2), etag: ETAG }, {}],
    [
      'the part has another ETag',
      (request: { headers: Record<string, unknown> }) =>
        request.headers['range'] === undefined
          ? { body: content(BODY.length, 2), etag: '"v2"' }
          : {
              status: 206,
              body: content(MIB, 2),
              etag: '"v2"',
              headers: { 'content-range': `bytes ${HALF}-${HALF + MIB - 1}/${BODY.length}` },
            },
      {},
    ],
    [
      'the part begins elsewhere',
      (request: { headers: Record<string, unknown> }) =>
        request.headers['range'] === undefined
          ? { body: content(BODY.length, 2), etag: ETAG }
          : {
              status: 206,
              body: content(MIB, 2),
              etag: ETAG,
              headers: { 'content-range': `bytes 0-${MIB - 1}/${BODY.length}` },
            },
      {},
    ],
    [
      'the origin answers with several parts',
      (request: { headers: Record<string, unknown> }) =>
        request.headers['range'] === undefined
          ? { body: content(BODY.length, 2), etag: ETAG }
          : {
              status: 206,
              body: content(MIB, 2),
              etag: ETAG,
              headers: { 'content-type': 'multipart/byteranges; boundary=x' },
            },
      {},
    ],
    [
      'it came from another mirror',
      { body: content(BODY.length, 2), etag: ETAG },
      { source: 'http://mirror.example/image' },
    ],
    [
      'nothing strong identifies it',
      { body: content(BODY.length, 2), etag: ETAG },
      { validators: { totalBytes: BODY.length } },
    ],
    [
      'its file is shorter than the journal says',
      { body: content(BODY.length, 2), etag: ETAG },
      { watermark: HALF + 1 },
    ],
    ['its file has gone', { body: content(BODY.length, 2), etag: ETAG }, { generation: 77 }],
  ] as const)('begins a new generation when %s', async (_, route, more) => {
    await cut();
    origin.route('/image', route);
    const begun: unknown[] = [];
    const request = harness.request(url(), {}, { resume: resume(more), nextGeneration: 2, also: ['sha256'] });
    const result = await harness.fetch(request, {
      onBegin: async ({ generation, offset }) => void begun.push([generation, offset]),
    });
    expect(begun).toEqual([[2, 0]]);
    expect(result).toMatchObject({ generation: 2, path: part(2), fromZero: true });
    expect(readFileSync(part(2)).equals(content(result.size, 2))).toBe(true);
    // The older generation is as it was: whoever reads it is not given other bytes.
    expect(readFileSync(part(1)).equals(BODY.subarray(0, HALF))).toBe(true);
  });

  it('and does not add up is SourceChanged, so that it is fetched again from the start', async () => {
    await cut();
    origin.route('/image', { body: content(BODY.length, 2), etag: ETAG });
    const request = harness.request(url(), { sha256: SHA256 }, { resume: resume(), nextGeneration: 2 });
    await expect(harness.fetch(request)).rejects.toEqual(failure('SourceChanged', /sha256/));
  });
});

describe('a body of the wrong length', () => {
  it('that is too short is Truncated and stays, to go on from', async () => {
    origin.route('/image', { body: BODY, cutAfter: 2 * MIB });
    await expect(harness.fetch(harness.request(url(), { sha256: SHA256 }))).rejects.toEqual(
      failure('Truncated', new RegExp(`${2 * MIB} bytes.*${BODY.length}`)),
    );
    expect(statSync(part(1)).size).toBe(2 * MIB);
  });

  it('that is cut while it is chunked is Truncated too', async () => {
    origin.route('/image', { body: BODY, length: 'chunked', cutAfter: 2 * MIB });
    await expect(harness.fetch(harness.request(url(), { sha256: SHA256 }))).rejects.toEqual(failure('Truncated'));
  });

  it('that is longer than announced is LengthMismatch', async () => {
    origin.route('/image', { raw: 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n0123456789' });
    await expect(harness.fetch(harness.request(url(), {}))).rejects.toEqual(failure('LengthMismatch', /longer/));
    expect(statSync(part(1)).size).toBeLessThanOrEqual(5);
  });

  it.each(['12abc', '-5', '5\r\nContent-Length: 6'])('that is announced as %j is LengthMismatch', async (length) => {
    origin.route('/image', { raw: `HTTP/1.1 200 OK\r\nContent-Length: ${length}\r\n\r\n01234` });
    await expect(harness.fetch(harness.request(url(), {}))).rejects.toEqual(
      failure('LengthMismatch', /Content-Length/),
    );
  });

  it('that is announced as larger than allowed is TooLarge before a byte is taken', async () => {
    origin.route('/image', { body: BODY, stallAfter: 0 });
    const request = harness.request(url(), {}, { maxBytes: MIB });
    await expect(harness.fetch(request)).rejects.toEqual(
      failure('TooLarge', new RegExp(`${BODY.length} bytes.*${MIB}`)),
    );
    expect(existsSync(part(1))).toBe(false);
  });

  it('that turns out larger than allowed is TooLarge, and no byte above the bound is kept', async () => {
    origin.route('/image', { body: BODY, length: 'chunked' });
    const request = harness.request(url(), {}, { maxBytes: MIB });
    await expect(harness.fetch(request)).rejects.toEqual(
      failure('TooLarge', new RegExp(`more than the ${MIB} bytes that are allowed`)),
    );
    expect(statSync(part(1)).size).toBeLessThanOrEqual(MIB);
  });
});

describe('an origin that does not answer well', () => {
  it('stalls: the fetch ends after stallMs, and what came stays', async () => {
    origin.route('/image', { body: BODY, stallAfter: MIB });
    const source = httpSource(url(), { timeouts: { connectMs: 60_000, headersMs: 60_000, stallMs: 3000 } });
    const request = harness.request(url(), {}, { source });
    await expect(harness.fetch(request)).rejects.toEqual(failure('Stalled', /3 s after 1048576 bytes/));
    expect(statSync(part(1)).size).toBe(MIB);
  });

  it('is slow, and its bytes are not kept from followers until a block is full', async () => {
    origin.route('/image', { body: BODY, stallAfter: 1000 });
    const abort = new AbortController();
    const fetching = harness.fetch(
      harness.request(url(), {}),
      { onProgress: ({ bytes }) => bytes === 1000 && abort.abort() },
      abort.signal,
    );
    await expect(fetching).rejects.toEqual(failure('Aborted'));
    expect(statSync(part(1)).size).toBe(1000);
  });
});
