import { beforeEach, describe, expect, it } from 'vitest';
import { Tenure } from '../../../src/runtime/tenure.ts';
import { HeldClock } from '../../support/clock.ts';

describe('A right that lasts for a time', () => {
  let clock: HeldClock;
  /** Of the clock that people set. */
  let offset: number;
  /** How long the machine slept: the monotonic clock stands still meanwhile. */
  let slept: number;
  let tenure: Tenure;
  let heard: boolean[];

  beforeEach(() => {
    clock = new HeldClock();
    offset = 0;
    slept = 0;
    tenure = new Tenure({
      clock: { now: () => clock.now() + offset, after: clock.after, random: clock.random },
      monotonic: () => clock.now() - slept,
      lastsMs: 10_000,
    });
    heard = [];
    tenure.onChange((holds) => heard.push(holds));
  });

  it('holds from its confirmation on, each of which makes it last longer, and tells its end by itself', () => {
    expect(tenure.goodForMs(0)).toBe(false);
    tenure.confirm(tenure.now());
    clock.advance(9_000);
    expect([tenure.goodForMs(999), tenure.goodForMs(1_000)]).toEqual([true, false]);
    tenure.confirm(tenure.now());
    clock.advance(9_999);
    expect(heard).toEqual([true]);
    clock.advance(1);
    expect([tenure.goodForMs(0), heard]).toEqual([false, [true, false]]);
    expect(clock.pending).toBe(0);
  });

  it('counts from the moment that is named, for what has come late was so a while ago', () => {
    const before = tenure.now();
    clock.advance(8_000);
    tenure.confirm(before);
    clock.advance(2_000);
    expect(heard).toEqual([true, false]);
    tenure.confirm(before);
    expect(heard).toEqual([true, false]);
  });

  it('is nobody’s to use before it may be, however often it is confirmed', () => {
    const usableFrom = tenure.now().monotonic + 25_000;
    for (let second = 0; second < 24; second += 6) {
      tenure.confirm(tenure.now(), usableFrom);
      clock.advance(6_000);
      expect(tenure.goodForMs(0)).toBe(false);
    }
    tenure.confirm(tenure.now(), usableFrom);
    clock.advance(1_000);
    expect([tenure.goodForMs(0), heard]).toEqual([true, [true]]);
  });

  it('has ended when the machine has slept longer than it lasts, or the clock was set ahead', () => {
    tenure.confirm(tenure.now());
    clock.advance(1_000);
    offset = 3_600_000;
    expect(tenure.goodForMs(0)).toBe(false);
    tenure.settle();
    expect(heard).toEqual([true, false]);
    offset = 0;
    tenure.confirm(tenure.now());
    slept = 60_000;
    offset = 60_000;
    tenure.settle();
    expect(heard).toEqual([true, false, true, false]);
  });

  it('does not last longer because the clock was set back', () => {
    tenure.confirm(tenure.now());
    offset = -3_600_000;
    clock.advance(10_000);
    expect([tenure.goodForMs(0), heard]).toEqual([false, [true, false]]);
  });

  it('ends at once when it is ended', () => {
    tenure.confirm(tenure.now());
    tenure.end();
    tenure.end();
    expect([tenure.goodForMs(0), heard, clock.pending]).toEqual([false, [true, false], 0]);
  });
});
