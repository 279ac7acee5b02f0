import { describe, expect, it } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import { readCatalog } from '../../../src/catalogs/index.ts';
import { entryOf, metadata } from '../../support/marketplace.ts';
import { refusal, request, SHA256 } from './reading.ts';

const URL = 'https://lists.example.org/list';
const FORMATS = ['HEPiX', 'Marketplace', 'Simplestreams', 'ChecksumFile', 'ImageProxy'] as const;

describe.each(FORMATS)('reading a list of format %s', (format) => {
  const reading = (fetch: ReturnType<typeof request>['fetch'], signal = new AbortController().signal) =>
    refusal(readCatalog(format, { ...request(URL, { documents: {} }), fetch, signal }));

  it('asks for nothing after it was stopped', async () => {
    const made = request(URL, { documents: {}, signal: AbortSignal.abort() });
    expect(await refusal(readCatalog(format, made))).toBe('Aborted: stopped');
    expect(made.asked).toEqual([]);
  });

  it('fails with the reason of what could not be brought', async () => {
    expect(await reading(() => Promise.reject(new Failure('TlsFailed', 'no trust')))).toBe('TlsFailed: no trust');
    expect(await reading(() => Promise.resolve(undefined))).toBe('NotFound: the list is not there');
    expect(await reading(() => Promise.reject(new TypeError('a mistake')))).toBe('InternalError: a mistake');
  });

  it('says how much it takes, and takes no more', async () => {
    const asked: number[] = [];
    const answer = await reading((_, { maxBytes }) => {
      asked.push(maxBytes);
      return Promise.resolve(new Uint8Array(maxBytes + 1));
    });
    expect(asked).toEqual([32 * 2 ** 20]);
    expect(answer).toMatch(/^TooLarge: the list has 33554433 bytes, of at most 33554432/);
  });
});

describe('reading a Marketplace', () => {
  it('ends between two entries when it is told to', async () => {
    const stop = new AbortController();
    const entries = Array.from({ length: 50 }, (_, index) => entryOf({ content: `${index}` }));
    const made = request(URL, { documents: { [URL]: metadata(...entries) }, signal: stop.signal });
    const fetch: typeof made.fetch = (place, options) => {
      setImmediate(() => stop.abort());
      return made.fetch(place, options);
    };
    expect(await refusal(readCatalog('Marketplace', { ...made, fetch }))).toBe('Aborted: stopped');
  });
});

describe('a signature beside a list', () => {
  const openpgp = { kind: 'openpgp', keyring: new Uint8Array(), allowSha1: false } as const;

  it('is asked for by all names that publishers use, with a bound, and a failure on the way is told', async () => {
    const made = request(URL, { documents: { [URL]: `${SHA256}  x.img` }, trust: openpgp });
    const bounds: number[] = [];
    const fetch: typeof made.fetch = (place, options) => {
      bounds.push(options.maxBytes);
      return made.fetch(place, options);
    };
    expect(await refusal(readCatalog('ChecksumFile', { ...made, fetch }))).toMatch(/^SignatureMissing: /);
    expect(made.asked.slice(1)).toEqual(['.gpg', '.asc', '.sig', '.sign'].map((suffix) => URL + suffix));
    expect(Math.max(...bounds.slice(1))).toBe(65536);
    const cut: typeof made.fetch = (place, options) =>
      place.endsWith('.asc') ? Promise.reject(new Failure('NetworkError', 'cut')) : made.fetch(place, options);
    expect(await refusal(readCatalog('ChecksumFile', { ...made, fetch: cut }))).toBe('NetworkError: cut');
  });
});
