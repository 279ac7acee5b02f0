import { beforeEach, describe, expect, it } from 'vitest';
import { watchHearing } from '../../../src/cli/hearing.ts';
import { Health } from '../../../src/telemetry/health.ts';
import { HeldClock, settled } from '../../support/clock.ts';

const MINUTE = 60_000;

describe('a process whose watches may hang', () => {
  let clock: HeldClock;
  let health: Health;
  let stop: AbortController;
  let store: { lastContact: number; answers(): Promise<boolean> };
  let up: boolean;
  let asked: number;

  beforeEach(() => {
    clock = new HeldClock();
    health = new Health();
    stop = new AbortController();
    up = true;
    asked = 0;
    store = {
      lastContact: clock.now(),
      answers: async () => {
        asked++;
        return up;
      },
    };
    watchHearing(health, store, clock, stop.signal);
  });
  const pass = async (minutes: number, heard: 'heard' | 'silent'): Promise<void> => {
    for (let minute = 0; minute < minutes; minute++) {
      clock.advance(MINUTE / 2);
      if (heard === 'heard') store.lastContact = clock.now();
      clock.advance(MINUTE / 2);
      await settled();
    }
  };
  const reason = async () => (await health.checkLive()).find(({ ok }) => !ok)?.reason;

  it('lives while it hears something every minute, and asks nothing of its own', async () => {
    await pass(60, 'heard');
    expect(await reason()).toBeUndefined();
    expect(asked).toBe(0);
  });

  it('is to be started anew when it hears nothing for a quarter of an hour, and the API server answered three times since', async () => {
    await pass(17, 'silent');
    expect(await reason()).toBeUndefined();
    expect(asked).toBe(2);
    await pass(1, 'silent');
    expect(await reason()).toBe('it answers, but our watches have not heard from it for 15 minutes');
  });

  it('lives on while the API server is down, however long: a restart would help nobody', async () => {
    up = false;
    await pass(180, 'silent');
    expect(await reason()).toBeUndefined();
    expect(asked).toBeGreaterThan(100);
    // It is back, and the watches with it.
    up = true;
    await pass(1, 'silent');
    await pass(10, 'heard');
    expect(await reason()).toBeUndefined();
  });

  it('does not take a clock that was set forward for silence', async () => {
    await pass(5, 'heard');
    clock.advance(24 * 60 * MINUTE);
    await settled();
    expect(asked).toBe(1);
    await pass(5, 'heard');
    expect(await reason()).toBeUndefined();
    expect(asked).toBe(1);
  });

  it('lives again when it hears again', async () => {
    await pass(20, 'silent');
    expect(await reason()).toBeDefined();
    store.lastContact = clock.now();
    await pass(1, 'heard');
    expect(await reason()).toBeUndefined();
  });

  it('looks no more once it has been stopped', async () => {
    stop.abort();
    await pass(3, 'silent');
    expect(clock.pending).toBe(0);
  });
});
