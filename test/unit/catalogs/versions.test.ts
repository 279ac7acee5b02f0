import fc from 'fast-check';
import { describe, expect, it, test } from 'vitest';
import { compareVersions } from '../../../src/catalogs/index.ts';

const version = fc.oneof(
  fc.string({ unit: fc.constantFrom('0', '1', '9', '.', '-', ',', '/', 'a', 'b'), maxLength: 12 }),
  fc.string({ maxLength: 12 }),
);

describe('versions are ordered as vmcatcher orders them', () => {
  it.each([
    ['1', '2'],
    ['9', '10'],
    ['1.2', '1.2.1'],
    ['1.9.3', '1.10.0'],
    ['3.3.0-1', '3.3.0-2'],
    ['3.3.0-9', '3.3.0-10'],
    ['20141029', '20141030'],
    ['20240423', '20240423.1'],
    ['2.7.2-1-2', '2.7.2-1-10'],
    ['1.0-alpha', '1.0-beta'],
    ['1.0-rc2', '1.0-rc10'],
    // A number is newer than a word.
    ['1.rc', '1.0'],
    ['', '0'],
    ['99999999999999999999', '100000000000000000000'],
  ])('%s is older than %s', (older, newer) => {
    expect(compareVersions(older, newer)).toBeLessThan(0);
    expect(compareVersions(newer, older)).toBeGreaterThan(0);
  });

  it('takes leading zeros for nothing, and goes on after them', () => {
    expect(compareVersions('1.07', '1.7')).toBe(0);
    expect(compareVersions('01.5', '1.7')).toBeLessThan(0);
  });

  test('the order is total: any two can be compared, and chains hold', () => {
    fc.assert(
      fc.property(version, version, version, (a, b, c) => {
        expect(compareVersions(a, a)).toBe(0);
        expect(Math.sign(compareVersions(a, b)) + Math.sign(compareVersions(b, a))).toBe(0);
        if (compareVersions(a, b) <= 0 && compareVersions(b, c) <= 0) {
          expect(compareVersions(a, c)).toBeLessThanOrEqual(0);
        }
        if (compareVersions(a, b) === 0) {
          expect(Math.sign(compareVersions(a, c))).toBe(Math.sign(compareVersions(b, c)));
        }
      }),
      { numRuns: 2000 },
    );
  });

  test('a long version takes no long time', () => {
    const long = '1-'.repeat(100_000);
    expect(compareVersions(`${long}1`, `${long}2`)).toBeLessThan(0);
  });
});
