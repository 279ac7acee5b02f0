import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatAge, formatBytes, parseBytes, parseDuration, parseShare } from '../../../src/cli/quantity.ts';

describe('sizes', () => {
  it.each([
    ['20Gi', 20 * 2 ** 30],
    ['1.5G', 1.5e9],
    ['512Ki', 2 ** 19],
    ['1048576', 1048576],
    ['3GiB', 3 * 2 ** 30],
  ])('%s is %i bytes', (text, bytes) => {
    expect(parseBytes(text)).toBe(bytes);
  });

  it.each(['', 'x', '-1Gi', '1 Gi', '99999999999999999Gi', '10%', '1e9'])('%j is no size', (text) => {
    expect(parseBytes(text)).toBeUndefined();
  });

  it.each([
    ['80%', 0.8],
    ['100%', 1],
    ['0.5 %', 0.005],
    ['0%', undefined],
    ['101%', undefined],
    ['80', undefined],
  ])('%s is a share of %s', (text, share) => {
    expect(parseShare(text)).toBe(share);
  });

  it('are written in the unit that keeps them short', () => {
    expect([0, 1023, 1024, 1536, 1048575, 2 ** 30, 2 ** 60].map(formatBytes)).toEqual([
      '0 B',
      '1023 B',
      '1.0 KiB',
      '1.5 KiB',
      '1.0 MiB',
      '1.0 GiB',
      '1024 PiB',
    ]);
    fc.assert(
      fc.property(fc.nat(Number.MAX_SAFE_INTEGER), (bytes) => {
        expect(formatBytes(bytes).length).toBeLessThanOrEqual(9);
      }),
    );
  });
});

describe('durations', () => {
  it.each([
    ['90s', 90_000],
    ['5m', 300_000],
    ['1h30m', 5_400_000],
    ['250ms', 250],
    ['1m250ms', 60_250],
    ['2d', 172_800_000],
    ['0', 0],
    ['1.5s', 1500],
  ])('%s is %i ms', (text, ms) => {
    expect(parseDuration(text)).toBe(ms);
  });

  it.each(['', '5', 'm', '5x', '1m2h', '-1s'])('%j is none', (text) => {
    expect(parseDuration(text)).toBeUndefined();
  });

  it('are read back as they were put together', () => {
    fc.assert(
      fc.property(fc.nat(99), fc.nat(23), fc.nat(59), fc.nat(59), (d, h, m, s) => {
        expect(parseDuration(`${d}d${h}h${m}m${s}s`)).toBe((((d * 24 + h) * 60 + m) * 60 + s) * 1000);
      }),
    );
  });
});

describe('ages', () => {
  // https://github.com/kubernetes/apimachinery/blob/master/pkg/util/duration/duration_test.go
  it.each([
    [0, '0s'],
    [119, '119s'],
    [120, '2m'],
    [190, '3m10s'],
    [10 * 60, '10m'],
    [179 * 60, '179m'],
    [3 * 3600, '3h'],
    [3 * 3600 + 5 * 60, '3h5m'],
    [47 * 3600, '47h'],
    [48 * 3600, '2d'],
    [50 * 3600, '2d2h'],
    [8 * 86400, '8d'],
    [729 * 86400, '729d'],
    [2 * 365 * 86400, '2y'],
    [(2 * 365 + 3) * 86400, '2y3d'],
    [9 * 365 * 86400, '9y'],
    [-100, '<invalid>'],
  ])('%i s are written %s, as kubectl does', (seconds, text) => {
    expect(formatAge(seconds * 1000)).toBe(text);
  });
});
