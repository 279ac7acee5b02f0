import fc from 'fast-check';
import { describe, expect, it, test } from 'vitest';
import { readDate } from '../../../src/catalogs/dates.ts';

const pad = (number: number) => String(number).padStart(2, '0');

describe('a date of a list', () => {
  it.each([
    ['2013-10-13T21:05:54Z', '2013-10-13T21:05:54Z'],
    ['2499-12-31T22:00:00Z', '2499-12-31T22:00:00Z'],
    ['2026-01-31T12:00:00.123456789Z', '2026-01-31T12:00:00Z'],
    ['2026-01-31t12:00:00z', '2026-01-31T12:00:00Z'],
    ['2026-01-31T12:00:00+05:30', '2026-01-31T06:30:00Z'],
    ['2024-02-29T00:00:00Z', '2024-02-29T00:00:00Z'],
    ['Thu, 20 Nov 2025 10:10:10 +0000', '2025-11-20T10:10:10Z'],
    ['2 Jan 2026 00:30:00 +0200', '2026-01-01T22:30:00Z'],
  ])('%s is %s', (text, expected) => {
    expect(readDate(text)).toBe(expected);
  });

  it.each([
    '',
    '2026-01-31',
    '2026-01-31T12:00:00',
    '2026-01-31X12:00:00Z',
    '2026-02-30T12:00:00Z',
    '2025-02-29T00:00:00Z',
    '2026-13-01T00:00:00Z',
    '2026-00-01T00:00:00Z',
    '2026-01-31T24:00:00Z',
    '2026-01-31T12:60:00Z',
    '2026-01-31T12:00:00+24:00',
    '2026-01-31T12:00:00Z ',
    '1/31/2026',
    '1769860800',
    'Thu, 20 Nix 2025 10:10:10 +0000',
    '31 Feb 2026 00:00:00 +0000',
  ])('%j is none', (text) => {
    expect(readDate(text)).toBeUndefined();
  });

  test('keeps its moment, in whatever zone it was written', () => {
    const date = fc.date({
      min: new Date('1970-01-02T00:00:00Z'),
      max: new Date('9998-12-31T00:00:00Z'),
      noInvalidDate: true,
    });
    fc.assert(
      fc.property(date, fc.integer({ min: -23 * 60, max: 23 * 60 }), (moment, minutes) => {
        const second = Math.floor(moment.getTime() / 1000) * 1000;
        const local = new Date(second + minutes * 60_000).toISOString().slice(0, 19);
        const zone = `${minutes < 0 ? '-' : '+'}${pad(Math.trunc(Math.abs(minutes) / 60))}:${pad(Math.abs(minutes) % 60)}`;
        expect(readDate(local + zone)).toBe(new Date(second).toISOString().replace('.000', ''));
      }),
    );
  });
});
