import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  contentLength,
  failureOfStatus,
  ifRange,
  MAX_RETRY_AFTER_MS,
  parseContentRange,
  parseRetryAfter,
  validatorsOf,
} from '../../../src/sources/http/answers.ts';

const NOW = Date.parse('2026-11-21T12:00:00Z');

describe('Content-Range', () => {
  it('gives back what it was made of', () => {
    const number = fc.nat({ max: 2 ** 40 });
    fc.assert(
      fc.property(number, number, fc.option(number, { nil: undefined }), (start, length, after) => {
        const end = start + length;
        const total = after === undefined ? undefined : end + 1 + after;
        expect(parseContentRange(`bytes ${start}-${end}/${total ?? '*'}`)).toEqual({
          range: { start, end },
          ...(total !== undefined && { total }),
        });
      }),
    );
  });

  it('tells the size in the answer to a range that cannot be satisfied', () => {
    expect(parseContentRange('bytes */1234')).toEqual({ total: 1234 });
  });

  it.each([
    undefined,
    '',
    'bytes 5-4/10',
    'bytes 0-10/10',
    'bytes */*',
    'bytes 0-',
    'items 0-1/2',
    'bytes 0-1/2, bytes 3-4/5',
    'bytes -1-2/3',
    'bytes 1e3-2000/3000',
    'bytes 0-99999999999999999999/*',
  ])('is refused when it says %s', (value) => {
    expect(parseContentRange(value)).toBeUndefined();
  });

  it('is never misread, whatever comes', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        const parsed = parseContentRange(text);
        if (parsed?.range !== undefined) expect(parsed.range.start).toBeLessThanOrEqual(parsed.range.end);
      }),
    );
  });
});

describe('Retry-After', () => {
  it('is read as seconds, and believed up to an hour', () => {
    fc.assert(
      fc.property(fc.nat(), (seconds) => {
        expect(parseRetryAfter(String(seconds), NOW)).toBe(Math.min(seconds * 1000, MAX_RETRY_AFTER_MS));
      }),
    );
  });

  it('is read as an HTTP date, and one that has passed means now', () => {
    fc.assert(
      fc.property(fc.integer({ min: -100_000, max: 100_000 }), (seconds) => {
        const date = new Date(NOW + seconds * 1000).toUTCString();
        expect(parseRetryAfter(date, NOW)).toBe(Math.min(Math.max(seconds * 1000, 0), MAX_RETRY_AFTER_MS));
      }),
    );
  });

  it.each([undefined, '', 'soon', '-5', '1.5', '2026-11-21T12:00:00Z', '1e3'])(
    'is ignored when it says %s',
    (value) => {
      expect(parseRetryAfter(value, NOW)).toBeUndefined();
    },
  );
});

describe('validators', () => {
  it('keep a strong ETag and drop a weak one', () => {
    expect(validatorsOf({ etag: '"abc"' }, 5)).toEqual({ etag: '"abc"', totalBytes: 5 });
    expect(ifRange(validatorsOf({ etag: 'W/"abc"' }, 5))).toBeUndefined();
    expect(ifRange(validatorsOf({ etag: 'abc' }, 5))).toBeUndefined();
    expect(ifRange(validatorsOf({ etag: '"a"b"' }, 5))).toBeUndefined();
  });

  it('keep a Last-Modified only when the file cannot have changed twice in its second', () => {
    const date = 'Sat, 21 Nov 2026 12:00:01 GMT';
    const ask = (lastModified: string) => ifRange(validatorsOf({ date, 'last-modified': lastModified }, undefined));
    expect(ask('Sat, 21 Nov 2026 12:00:00 GMT')).toBe('Sat, 21 Nov 2026 12:00:00 GMT');
    expect(ask(date)).toBeUndefined();
    expect(ask('yesterday')).toBeUndefined();
    expect(ifRange(validatorsOf({ 'last-modified': 'Sat, 21 Nov 2026 12:00:00 GMT' }, 1))).toBeUndefined();
  });
});

describe('Content-Length', () => {
  it('is a number or an error, and says nothing of a chunked body', () => {
    expect(contentLength({ 'content-length': '12' }, 'x')).toBe(12);
    expect(contentLength({}, 'x')).toBeUndefined();
    expect(contentLength({ 'content-length': '12', 'transfer-encoding': 'chunked' }, 'x')).toBeUndefined();
    expect(() => contentLength({ 'content-length': '-1' }, 'x')).toThrow(
      expect.objectContaining({ reason: 'LengthMismatch' }),
    );
  });
});

describe('a status', () => {
  it.each([
    [400, 'InvalidSpec'],
    [401, 'Unauthorized'],
    [403, 'Forbidden'],
    [404, 'NotFound'],
    [408, 'ServerError'],
    [410, 'NotFound'],
    [418, 'InvalidSpec'],
    [425, 'ServerError'],
    [429, 'TooManyRequests'],
    [500, 'ServerError'],
    [503, 'ServerError'],
    [304, 'ServerError'],
  ] as const)('%i is %s', (status, reason) => {
    const failure = failureOfStatus(status, { 'retry-after': '7' }, 'https://h/p', NOW);
    expect(failure).toMatchObject({ reason, retryAfterMs: 7000 });
    expect(failure.message).toContain(`https://h/p: the origin answered ${status}`);
  });
});
