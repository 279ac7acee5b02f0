import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { timestamp } from '../../../src/api/conditions.ts';
import { systemClock } from '../../../src/runtime/clock.ts';
import { HeldClock } from '../../support/clock.ts';

describe('the system clock', () => {
  it('takes back a timer that is no longer wanted', async () => {
    const ran: string[] = [];
    const cancel = systemClock.after(0, () => ran.push('cancelled'));
    cancel();
    await new Promise<void>((resolve) => systemClock.after(0, () => resolve()));
    expect(ran).toEqual([]);
  });

  it('does not take a date weeks away for one that has passed, as setTimeout alone would', async () => {
    let ran = false;
    const cancel = systemClock.after(2 ** 33, () => {
      ran = true;
    });
    await new Promise<void>((resolve) => systemClock.after(5, () => resolve()));
    expect(ran).toBe(false);
    cancel();
  });

  it('writes times as Kubernetes does: RFC 3339, UTC, whole seconds', () => {
    expect(timestamp(Date.parse('2026-11-21T13:00:00.999+01:00'))).toBe('2026-11-21T12:00:00Z');
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 4e12 }), (ms) => {
        expect(Date.parse(timestamp(ms))).toBe(Math.floor(ms / 1000) * 1000);
      }),
    );
  });
});

describe('the held clock of the tests', () => {
  it('runs timers in the order of their dates, each at its date, those set on the way too', () => {
    const clock = new HeldClock({ start: 0 });
    const ran: string[] = [];
    const note = (name: string) => () => void ran.push(`${name} at ${clock.now()}`);
    clock.after(30, note('c'));
    clock.after(10, () => {
      note('a')();
      clock.after(5, note('b'));
    });
    clock.after(30, note('d'));
    const cancel = clock.after(20, note('never'));
    cancel();
    clock.advance(29);
    expect(ran).toEqual(['a at 10', 'b at 15']);
    clock.advance(1);
    expect(ran).toEqual(['a at 10', 'b at 15', 'c at 30', 'd at 30']);
    expect(clock.now()).toBe(30);
    expect(clock.pending).toBe(0);
  });

  it('draws the same chances from the same seed, all in [0, 1)', () => {
    const draws = (seed: number) => Array.from({ length: 1000 }, new HeldClock({ seed }).random);
    expect(draws(7)).toEqual(draws(7));
    expect(draws(7)).not.toEqual(draws(8));
    expect(draws(7).every((each) => each >= 0 && each < 1)).toBe(true);
    const mean = draws(7).reduce((sum, each) => sum + each, 0) / 1000;
    expect(mean).toBeGreaterThan(0.45);
    expect(mean).toBeLessThan(0.55);
  });
});
