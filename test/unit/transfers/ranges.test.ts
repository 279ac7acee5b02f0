import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Ranges } from '../../../src/transfers/ranges.ts';

/** A file cut into pieces, in any order. */
const pieces = fc.array(fc.integer({ min: 1, max: 1000 }), { minLength: 1, maxLength: 40 }).chain((lengths) => {
  let end = 0;
  const parts = lengths.map((length) => ({ start: end, end: (end += length) }));
  return fc.shuffledSubarray(parts, { minLength: parts.length });
});

describe('ranges', () => {
  it('have a watermark that is the end of what is there from the beginning without a gap, in any order of writes', () => {
    fc.assert(
      fc.property(pieces, (parts) => {
        const ranges = new Ranges();
        const there = new Set<number>();
        for (const { start, end } of parts) {
          ranges.add(start, end);
          for (let at = start; at < end; at += 1) there.add(at);
          let expected = 0;
          while (there.has(expected)) expected += 1;
          expect(ranges.watermark).toBe(expected);
          expect(ranges.size).toBe(there.size);
        }
      }),
      { numRuns: 60 },
    );
  });

  it('have a watermark that never goes back', () => {
    fc.assert(
      fc.property(pieces, (parts) => {
        const ranges = new Ranges();
        let last = 0;
        for (const { start, end } of parts) {
          ranges.add(start, end);
          expect(ranges.watermark).toBeGreaterThanOrEqual(last);
          last = ranges.watermark;
        }
      }),
    );
  });

  it('refuse a byte that is there already, and stay as they were', () => {
    fc.assert(
      fc.property(pieces, fc.nat({ max: 2000 }), fc.integer({ min: 1, max: 500 }), (parts, start, length) => {
        const ranges = new Ranges();
        const some = parts.slice(0, Math.ceil(parts.length / 2));
        for (const part of some) ranges.add(part.start, part.end);
        const before = { watermark: ranges.watermark, size: ranges.size };
        const overlaps = some.some((part) => start < part.end && part.start < start + length);
        if (overlaps) {
          expect(() => ranges.add(start, start + length)).toThrow(RangeError);
          expect({ watermark: ranges.watermark, size: ranges.size }).toEqual(before);
        } else {
          ranges.add(start, start + length);
          expect(ranges.size).toBe(before.size + length);
        }
      }),
    );
  });

  it('take no range that is none', () => {
    const ranges = new Ranges();
    ranges.add(5, 5);
    expect(ranges.size).toBe(0);
    for (const [start, end] of [
      [2, 1],
      [-1, 1],
      [0.5, 1],
      [0, Number.NaN],
    ] as const) {
      expect(() => ranges.add(start, end)).toThrow(RangeError);
    }
  });
});
