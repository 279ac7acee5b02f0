import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { backoffMs, jittered } from '../../../src/runtime/backoff.ts';
import { HeldClock } from '../../support/clock.ts';

const policy = fc
  .record({ baseMs: fc.integer({ min: 1, max: 60_000 }), factor: fc.integer({ min: 1, max: 1000 }) })
  .map(({ baseMs, factor }) => ({ baseMs, maxMs: baseMs * factor }));
const chance = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });

describe('the back-off', () => {
  it('lies between half and the whole of what doubling gives, and never beyond its bound', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 1_000_000 }), policy, chance, (attempts, bounds, drawn) => {
        const pause = backoffMs(attempts, bounds, { random: () => drawn });
        const full = Math.min(bounds.maxMs, bounds.baseMs * 2 ** Math.min(Math.max(attempts - 1, 0), 60));
        expect(pause).toBeGreaterThanOrEqual(Math.floor(full / 2));
        expect(pause).toBeLessThanOrEqual(full);
        expect(Number.isInteger(pause)).toBe(true);
      }),
    );
  });

  it('does not shrink from one failure to the next, whatever chance says', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 100 }), policy, chance, chance, (attempts, bounds, first, second) => {
        const before = backoffMs(attempts, bounds, { random: () => first });
        const after = backoffMs(attempts + 1, bounds, { random: () => second });
        // At the bound both are drawn from the same range.
        if (bounds.baseMs * 2 ** attempts <= bounds.maxMs) expect(after).toBeGreaterThanOrEqual(before);
        else expect(after).toBeGreaterThanOrEqual(Math.floor(bounds.maxMs / 4));
      }),
    );
  });

  it('spreads those that failed together', () => {
    const clock = new HeldClock();
    const pauses = new Set(Array.from({ length: 100 }, () => backoffMs(10, { baseMs: 1000, maxMs: 3_600_000 }, clock)));
    expect(pauses.size).toBeGreaterThan(95);
  });
});

describe('a jittered period', () => {
  it('is the period, give or take a tenth', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 2 ** 40 }), chance, (ms, drawn) => {
        const period = jittered(ms, { random: () => drawn });
        expect(period).toBeGreaterThanOrEqual(Math.floor(ms * 0.9));
        expect(period).toBeLessThanOrEqual(Math.ceil(ms * 1.1));
      }),
    );
  });
});
