import { expect, it } from 'vitest';
import { Rate } from '../../../src/reconcilers/vmimage/rate.ts';
import { HeldClock } from '../../support/clock.ts';

const MIB = 2 ** 20;

function rated() {
  const clock = new HeldClock();
  const rate = new Rate(clock);
  let bytes = 0;
  const come = (more: number, ms = 250) => {
    clock.advance(ms);
    rate.note((bytes += more));
  };
  return { clock, rate, come };
}

it('is not known before bytes have come for 25 ms, and changes at most five times a second', () => {
  const { rate, come } = rated();
  come(MIB, 24);
  expect(rate.bytesPerSecond).toBe(0);
  come(MIB, 1);
  expect(rate.bytesPerSecond).toBe(80 * MIB);
  come(0, 199);
  expect(rate.bytesPerSecond).toBe(80 * MIB);
  come(0, 1);
  expect(rate.bytesPerSecond).toBe(56 * MIB);
});

it('follows what comes, and a single pause does not upset it', () => {
  const { rate, come } = rated();
  for (let n = 0; n < 20; n++) come(MIB);
  expect(rate.bytesPerSecond).toBe(4 * MIB);
  come(MIB, 2000);
  expect(rate.bytesPerSecond).toBeGreaterThan(2 * MIB);
  for (let n = 0; n < 40; n++) come(MIB / 4);
  expect(rate.bytesPerSecond).toBeCloseTo(MIB, -2);
});

it('is nothing when nothing has come for three seconds, and what comes then is measured anew', () => {
  const { clock, rate, come } = rated();
  for (let n = 0; n < 20; n++) come(100 * MIB);
  clock.advance(3000);
  expect(rate.bytesPerSecond).toBe(400 * MIB);
  clock.advance(1);
  expect(rate.bytesPerSecond).toBe(0);
  come(MIB, 6999);
  expect(rate.bytesPerSecond).toBeCloseTo(MIB / 10, -1);
});

it('of another stream begins anew', () => {
  const { rate, come } = rated();
  come(MIB);
  rate.reset(0);
  expect(rate.bytesPerSecond).toBe(0);
});
