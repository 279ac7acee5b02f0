import { createHash } from 'node:crypto';
import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import type { FetchListener, FetchResult, UploadListener, UploadResult } from '../../../src/transfers/transfers.ts';
import { makeAuthority } from '../../support/authority.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';
import { type PutSink, startSink } from '../../support/sink.ts';
import { content, digestOf, type Harness, MIB, never, startHarness } from './harness.ts';

const BODY = content(5 * MIB + 999);
const SHA256 = digestOf(BODY);
const HOLD_BACK = 64 * 1024;
const freely: UploadListener = { mayFinish: async () => {} };
const failure = (reason: string, message?: RegExp) =>
  expect.objectContaining({ reason, ...(message && { message: expect.stringMatching(message) }) });

let harness: Harness;
let sink: PutSink;
let file: string;
beforeAll(() => {
  harness = startHarness();
});
afterAll(() => harness.close());
beforeEach(async () => {
  harness.clean();
  sink = await startSink();
  file = join(harness.folder, 'blob');
  writeFileSync(file, BODY);
});
afterEach(() => sink.close());

function upload(more: object = {}, listener: UploadListener = freely, signal = never): Promise<UploadResult> {
  return harness.transfers.upload(
    {
      url: `${sink.url}/v2/images/1/file?x=1`,
      headers: { 'X-Auth-Token': 'token' },
      path: file,
      totalBytes: BODY.length,
      holdBackBytes: HOLD_BACK,
      stallMs: 60_000,
      ...more,
    },
    listener,
    signal,
  );
}

describe('an upload', () => {
  it('is one PUT with a Content-Length, the headers of the caller, and every byte in its place', async () => {
    sink.respond({ status: 201, headers: { 'X-Id': 'abc' }, body: '{"ok":true}' });
    const progress: number[] = [];
    const result = await upload({}, { ...freely, onProgress: (bytes) => progress.push(bytes) });
    expect(result).toMatchObject({ status: 201, headers: { 'x-id': 'abc' }, body: '{"ok":true}' });
    await sink.ended(1);
    expect(sink.received).toEqual([
      expect.objectContaining({
        method: 'PUT',
        path: '/v2/images/1/file?x=1',
        bytes: BODY.length,
        sha256: SHA256,
        complete: true,
      }),
    ]);
    expect(sink.received[0]?.headers).toMatchObject({
      'content-length': String(BODY.length),
      'x-auth-token': 'token',
      'content-type': 'application/octet-stream',
    });
    expect(sink.received[0]?.headers).not.toHaveProperty('transfer-encoding');
    expect(sink.received[0]?.headers).not.toHaveProperty('expect');
    expect(progress.at(-1)).toBe(BODY.length);
  });

  it('keeps its last bytes back until it may finish', async () => {
    const asked = Promise.withResolvers<void>();
    const allowed = Promise.withResolvers<void>();
    const uploading = upload(
      {},
      {
        mayFinish: () => {
          asked.resolve();
          return allowed.promise;
        },
      },
    );
    await asked.promise;
    await sink.reached(BODY.length - HOLD_BACK);
    expect(sink.bytes).toBe(BODY.length - HOLD_BACK);
    expect(sink.received).toEqual([]);
    allowed.resolve();
    expect((await uploading).status).toBe(204);
    await sink.ended(1);
    expect(sink.received[0]).toMatchObject({ sha256: SHA256, complete: true });
  });

  it.each([0, 1, HOLD_BACK - 1, HOLD_BACK])('of %i bytes sends none of them before it may', async (size) => {
    writeFileSync(file, BODY.subarray(0, size));
    let received = -1;
    await upload(
      { totalBytes: size },
      {
        mayFinish: async () => {
          received = sink.bytes + sink.received.length;
        },
      },
    );
    await sink.ended(1);
    expect(received).toBe(0);
    expect(sink.received[0]).toMatchObject({ bytes: size, complete: true });
  });

  it('ends with the refusal when it may not finish, and the receiver never has a complete body', async () => {
    const uploading = upload(
      {},
      {
        mayFinish: async () => {
          throw new Failure('DigestMismatch', 'the proof failed');
        },
      },
    );
    await expect(uploading).rejects.toEqual(failure('DigestMismatch', /the proof failed/));
    await sink.ended(1);
    expect(sink.received[0]).toMatchObject({ complete: false, bytes: BODY.length - HOLD_BACK });
  });

  it('is cut by its signal while its tail is held back, and a permission that comes later sends nothing', async () => {
    const abort = new AbortController();
    const allowed = Promise.withResolvers<void>();
    const uploading = upload(
      {},
      {
        mayFinish: () => {
          abort.abort();
          return allowed.promise;
        },
      },
      abort.signal,
    );
    await expect(uploading).rejects.toEqual(failure('Aborted'));
    allowed.resolve();
    await sink.ended(1);
    expect(sink.received[0]).toMatchObject({ complete: false, bytes: BODY.length - HOLD_BACK });
  });

  it.each([401, 409, 413, 503])('ends at once with an answer of %i that comes before the last byte', async (status) => {
    sink.respond({ status, answerAfter: 1, headers: { 'Retry-After': '9' }, body: 'no' });
    let asked = 0;
    const uploading = upload(
      {},
      {
        mayFinish: async () => {
          asked += 1;
          await new Promise(() => {}); // the answer alone ends it
        },
      },
    );
    expect(await uploading).toMatchObject({ status, headers: { 'retry-after': '9' }, body: 'no' });
    await sink.ended(1);
    expect(sink.received[0]?.complete).toBe(false);
    expect(asked).toBeLessThanOrEqual(1);
  });

  it('is UploadCut when the receiver cuts the connection', async () => {
    sink.respond({ cutAfter: MIB });
    await expect(upload()).rejects.toEqual(failure('UploadCut', /without an answer/));
  });

  it('is UploadCut when the receiver takes no byte for the time allowed', async () => {
    // More than the buffers of both kernels take.
    const big = content(24 * MIB);
    writeFileSync(file, big);
    sink.respond({ stallAfter: 1 });
    await expect(upload({ totalBytes: big.length, stallMs: 500 })).rejects.toEqual(
      failure('UploadCut', /took no byte for 0.5 s/),
    );
  });

  it('is NetworkError where nobody listens', async () => {
    const { url } = sink;
    await sink.close();
    await expect(upload({ url: `${url}/x?token=hunter2` })).rejects.toEqual(failure('NetworkError', /ECONNREFUSED/));
    await expect(upload({ url: `${url}/x?token=hunter2` })).rejects.not.toThrow(/hunter2/);
  });

  it('keeps at most 64 KiB of the answer', async () => {
    sink.respond({ status: 500, body: 'x'.repeat(300 * 1024) });
    const { status, body } = await upload();
    expect({ status, length: body.length }).toEqual({ status: 500, length: 64 * 1024 });
  });

  it('trusts the CA that it is given, over TLS', async () => {
    const authority = makeAuthority();
    const secure = await startSink({ tls: authority.issue('DNS:localhost') });
    try {
      const url = `${secure.url}/x`;
      await expect(upload({ url })).rejects.toEqual(failure('TlsFailed', /caRef/));
      expect((await upload({ url, tls: { ca: authority.ca } })).status).toBe(204);
      expect((await upload({ url, tls: { insecure: true } })).status).toBe(204);
      await secure.ended(2);
      expect(secure.received.map(({ sha256, complete }) => [sha256, complete])).toEqual([
        [SHA256, true],
        [SHA256, true],
      ]);
    } finally {
      await secure.close();
      authority.close();
    }
  });
});

describe('an upload that follows a download', () => {
  let origin: Origin;
  beforeEach(async () => {
    origin = await startOrigin();
  });
  afterEach(() => origin.close());

  /** In a box, for a promise of a promise is a promise of what that resolves to. */
  interface Started {
    uploaded: Promise<UploadResult>;
  }

  interface Following {
    fetched: Promise<FetchResult>;
    uploaded: Promise<UploadResult>;
  }

  /** Starts both, the upload's tail waiting for the proof, as a reconciler does. */
  async function follow(sha256 = SHA256, signal = never, totalBytes = BODY.length): Promise<Following> {
    const begun = Promise.withResolvers<Started>();
    const proven = Promise.withResolvers<void>();
    proven.promise.catch(() => {});
    const listener: FetchListener = {
      onBegin: async ({ path, generation }) => {
        const uploading = upload(
          { path, totalBytes, follow: { directory: harness.folder, generation }, stallMs: 60_000 },
          { mayFinish: () => proven.promise },
          signal,
        );
        uploading.catch(() => {});
        begun.resolve({ uploaded: uploading });
      },
      onProven: () => proven.resolve(),
    };
    const fetched = harness.fetch(harness.request(`${origin.url}/image`, { sha256 }), listener, signal);
    fetched.catch((error: Error) => {
      proven.reject(error);
      begun.reject(error);
    });
    return { fetched, uploaded: (await begun.promise).uploaded };
  }

  it('brings exactly the bytes that were proven', async () => {
    origin.route('/image', { body: BODY, bytesPerSecond: 40 * MIB });
    const { fetched, uploaded } = await follow();
    expect((await uploaded).status).toBe(204);
    expect((await fetched).digests.sha256).toBe(SHA256);
    await sink.ended(1);
    expect(sink.received[0]).toMatchObject({ sha256: SHA256, complete: true });
  });

  it('sends while the download is still under way', async () => {
    origin.route('/image', { body: BODY, stallAfter: 3 * MIB });
    const abort = new AbortController();
    const { fetched, uploaded } = await follow(SHA256, abort.signal);
    await sink.reached(3 * MIB);
    abort.abort();
    await expect(fetched).rejects.toEqual(failure('Aborted'));
    // On a full machine it may have been dry for three seconds before it heard of that.
    await expect(uploaded).rejects.toMatchObject({ reason: expect.stringMatching(/^(Aborted|UploadCut)$/) as string });
    await sink.ended(1);
    expect(sink.received[0]).toMatchObject({ bytes: 3 * MIB, complete: false });
  });

  it('that stands still with bytes in its hands keeps neither the proof nor the end of the download from anybody', async () => {
    const big = content(48 * MIB);
    origin.route('/image', { body: big });
    sink.respond({ stallAfter: 1 });
    const abort = new AbortController();
    const { fetched, uploaded } = await follow(digestOf(big), abort.signal, big.length);
    expect((await fetched).size).toBe(big.length);
    abort.abort();
    await expect(uploaded).rejects.toEqual(failure('Aborted'));
  });

  it('of a wrong digest never gives the receiver a complete body', async () => {
    origin.route('/image', { body: BODY });
    const { fetched, uploaded } = await follow('0'.repeat(64));
    await expect(fetched).rejects.toEqual(failure('DigestMismatch'));
    await expect(uploaded).rejects.toBeInstanceOf(Failure);
    await sink.ended(1);
    expect(sink.received[0]?.complete).toBe(false);
    expect(sink.bytes).toBeLessThanOrEqual(BODY.length - HOLD_BACK);
  });

  it('is cut by a wrong digest in the thread itself, whatever the main thread permits', async () => {
    origin.route('/image', { body: BODY });
    const uploading = Promise.withResolvers<Started>();
    const wrong = Promise.withResolvers<void>();
    const fetched = harness.fetch(harness.request(`${origin.url}/image`, { sha256: '0'.repeat(64) }), {
      onBegin: async ({ path, generation }) => {
        const request = { path, follow: { directory: harness.folder, generation } };
        // A permission that does not wait for the proof, but comes after the digest is known to be wrong.
        const promise = upload(request, { mayFinish: () => wrong.promise });
        promise.catch(() => {});
        uploading.resolve({ uploaded: promise });
      },
    });
    await expect(fetched).rejects.toEqual(failure('DigestMismatch'));
    wrong.resolve();
    await expect((await uploading.promise).uploaded).rejects.toEqual(failure('DigestMismatch'));
    await sink.ended(1);
    expect(sink.received[0]?.complete).toBe(false);
  });

  it('of an origin that vanishes is cut, and the receiver never has a complete body', async () => {
    origin.route('/image', { body: BODY, cutAfter: 3 * MIB });
    const { fetched, uploaded } = await follow();
    await expect(fetched).rejects.toEqual(failure('Truncated'));
    await expect(uploaded).rejects.toEqual(failure('UploadCut', /Truncated/));
    await sink.ended(1);
    expect(sink.received[0]?.complete).toBe(false);
  });

  it('that is dry for three seconds gives way, and the download goes on without it', async () => {
    origin.route('/image', { body: BODY, stallAfter: 3 * MIB });
    const { fetched, uploaded } = await follow();
    await expect(uploaded).rejects.toEqual(failure('UploadCut', /nothing for 3 s/));
    await sink.ended(1);
    expect(sink.received[0]).toMatchObject({ complete: false });
    await origin.close();
    await expect(fetched).rejects.toEqual(failure('Truncated'));
  });

  it('does not mind that the file is renamed into the cache while it is sent', async () => {
    origin.route('/image', { body: BODY });
    const begun = Promise.withResolvers<Started>();
    const finished = Promise.withResolvers<void>();
    const fetched = harness.fetch(harness.request(`${origin.url}/image`, { sha256: SHA256 }), {
      onBegin: async ({ path, generation }) => {
        const request = { path, follow: { directory: harness.folder, generation } };
        begun.resolve({ uploaded: upload(request, { mayFinish: () => finished.promise }) });
      },
    });
    const { path } = await fetched;
    renameSync(path, join(harness.folder, 'admitted'));
    finished.resolve();
    expect(await (await begun.promise).uploaded).toMatchObject({ status: 204 });
    await sink.ended(1);
    expect(sink.received[0]).toMatchObject({ sha256: SHA256, complete: true });
  });

  it('starts also when the download was faster than the cloud, and has ended and been admitted', async () => {
    origin.route('/image', { body: BODY });
    const { path, generation } = await harness.fetch(harness.request(`${origin.url}/image`, { sha256: SHA256 }));
    renameSync(path, join(harness.folder, 'admitted'));
    expect((await upload({ path, follow: { directory: harness.folder, generation } })).status).toBe(204);
    await sink.ended(1);
    expect(sink.received[0]).toMatchObject({ sha256: SHA256, complete: true });
  });

  it('does not read a partial on the strength of its size when nobody writes it', async () => {
    writeFileSync(join(harness.folder, '9.part'), BODY); // it could have holes
    const request = { path: join(harness.folder, '9.part'), follow: { directory: harness.folder, generation: 9 } };
    await expect(upload(request)).rejects.toEqual(failure('UploadCut', /has ended/));
    expect(sink.received).toEqual([]);
  });

  it('ends with its generation: when the origin changes midway, no receiver gets the beginning of one and the end of another', async () => {
    const other = content(BODY.length, 2);
    origin.route('/image', (_, count) =>
      count === 1 ? { body: BODY, etag: '"1"', cutAfter: 3 * MIB } : { body: other, etag: '"2"' },
    );
    const { fetched, uploaded } = await follow(digestOf(other));
    await expect(fetched).rejects.toEqual(failure('Truncated'));
    await expect(uploaded).rejects.toEqual(failure('UploadCut'));
    const resume = {
      generation: 1,
      watermark: 3 * MIB,
      validators: { etag: '"1"', totalBytes: BODY.length },
      source: `${origin.url}/image`,
    };
    const proven = Promise.withResolvers<void>();
    const second = Promise.withResolvers<Started>();
    const result = await harness.fetch(
      harness.request(`${origin.url}/image`, { sha256: digestOf(other) }, { resume, nextGeneration: 2 }),
      {
        onBegin: async ({ path, generation }) => {
          expect(generation).toBe(2);
          const request = { path, follow: { directory: harness.folder, generation } };
          second.resolve({ uploaded: upload(request, { mayFinish: () => proven.promise }) });
        },
        onProven: () => proven.resolve(),
      },
    );
    expect(result).toMatchObject({ generation: 2, fromZero: true });
    expect(await (await second.promise).uploaded).toMatchObject({ status: 204 });
    await sink.ended(2);
    expect(sink.received.filter(({ complete }) => complete).map(({ sha256 }) => sha256)).toEqual([
      createHash('sha256').update(other).digest('hex'),
    ]);
  });
});
