import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LeaseElector } from '../../../src/runtime/lease.ts';
import { HeldClock, settled } from '../../support/clock.ts';
import { LeaseServer } from '../../support/lease-server.ts';
import { TestLog } from '../stores/support.ts';

describe('A lease', () => {
  let server: LeaseServer;
  let clock: HeldClock;
  let offset: number;
  const ends: (() => Promise<void>)[] = [];

  beforeEach(() => {
    server = new LeaseServer();
    clock = new HeldClock();
    offset = 0;
  });
  afterEach(async () => {
    server.down = false;
    const all = ends.splice(0).map((end) => end());
    if (!server.hangs) await Promise.all(all);
  });

  const candidate = async (
    identity: string,
  ): Promise<{ elector: LeaseElector; heard: boolean[]; end(): Promise<void> }> => {
    const elector = new LeaseElector({
      client: server.client(),
      identity,
      // Its wall clock may be set; the time that passes may not.
      clock: { now: () => clock.now() + offset, after: clock.after, random: clock.random },
      monotonic: clock.now,
      log: new TestLog(),
    });
    const heard: boolean[] = [];
    elector.onChange((leads) => heard.push(leads));
    const stop = new AbortController();
    const running = elector.run(stop.signal);
    const end = async () => {
      stop.abort();
      await running;
    };
    ends.push(end);
    await settled();
    return { elector, heard, end };
  };
  const pass = async (ms: number): Promise<void> => {
    for (let left = ms; left > 0; left -= 500) {
      clock.advance(Math.min(500, left));
      await settled();
    }
  };

  it('is taken where nobody holds it, and kept', async () => {
    const { elector, heard } = await candidate('a');
    expect(heard).toEqual([true]);
    expect(server.lease?.spec).toMatchObject({
      holderIdentity: 'a',
      leaseDurationSeconds: 15,
      leaseTransitions: 0,
      renewTime: expect.stringMatching(/\.\d{6}Z$/),
    });
    await pass(120_000);
    expect(heard).toEqual([true]);
    expect(elector.goodForMs(5_000)).toBe(true);
    expect(elector.goodForMs(15_000)).toBe(false);
  });

  it('is held by one of two', async () => {
    const [a, b] = [await candidate('a'), await candidate('b')];
    await pass(120_000);
    expect([a.elector.goodForMs(0), b.elector.goodForMs(0)]).toEqual([true, false]);
    expect(b.elector.holder).toBe('a');
  });

  it('is given back at the end, so that the next need not wait for it to run out', async () => {
    const a = await candidate('a');
    const b = await candidate('b');
    await a.end();
    expect(a.elector.goodForMs(0)).toBe(false);
    await pass(4_000);
    expect(b.elector.goodForMs(0)).toBe(true);
    expect(server.lease?.spec?.leaseTransitions).toBe(1);
  });

  it.each(['made', 'taken'])(
    'that is being %s when the stop comes is given back, though the answer is lost',
    async (what) => {
      if (what === 'taken') server.lease = { metadata: { resourceVersion: '0' }, spec: { holderIdentity: '' } };
      server.losesAnswers = true;
      const a = await candidate('a');
      expect(server.lease?.spec).toMatchObject({ holderIdentity: 'a' });
      expect(a.elector.goodForMs(0)).toBe(false);
      const ended = a.end();
      await settled();
      server.losesAnswers = false;
      await pass(5_000);
      await ended;
      expect(a.heard).toEqual([]);
      expect(server.lease?.spec).toMatchObject({ holderIdentity: '' });
    },
  );

  it('is used no more well before another can have it, when the API server is out of reach', async () => {
    const a = await candidate('a');
    await pass(6_000);
    server.down = true;
    await pass(13_500);
    expect(a.elector.goodForMs(0)).toBe(false);
    expect(a.heard).toEqual([true, false]);
    server.down = false;
    await pass(4_000);
    expect(a.heard).toEqual([true, false, true]);
  });

  it('tells its end when it comes, and not when a request that hangs has ended', async () => {
    const { elector, heard } = await candidate('a');
    server.hangs = true;
    await pass(10_500);
    expect(elector.goodForMs(0)).toBe(false);
    expect(heard).toEqual([true, false]);
  });

  it('of a holder that died is taken when it was seen silent for its whole time, whatever the clocks say', async () => {
    server.lease = {
      metadata: { resourceVersion: '1' },
      spec: { holderIdentity: 'dead', leaseDurationSeconds: 40, renewTime: '1999-01-01T00:00:00.000000Z' },
    };
    const { elector } = await candidate('b');
    await pass(39_000);
    expect(elector.goodForMs(0)).toBe(false);
    await pass(6_000);
    expect(elector.goodForMs(0)).toBe(true);
  });

  it('is not taken from somebody alive when our clock jumps ahead, and not kept by one whose clock jumps back', async () => {
    const a = await candidate('a');
    const b = await candidate('b');
    await pass(5_000);
    offset = 3_600_000;
    // Both see an hour gone; a has renewed since by its own measure, or stops at once: never two.
    expect(a.elector.goodForMs(0)).toBe(false);
    await pass(9_000);
    expect(b.elector.goodForMs(0)).toBe(false);
    expect(a.elector.goodForMs(0)).toBe(true);
    server.down = true;
    offset = -3_600_000;
    await pass(15_000);
    expect(a.elector.goodForMs(0)).toBe(false);
  });

  it('that another has written over our head is not ours, whatever time is left', async () => {
    const { elector, heard } = await candidate('a');
    server.lease = {
      metadata: { resourceVersion: 'x' },
      spec: { holderIdentity: 'admin', leaseDurationSeconds: 15, renewTime: 'now' },
    };
    await pass(4_000);
    expect(elector.goodForMs(0)).toBe(false);
    expect(heard).toEqual([true, false]);
  });

  it('is never good for two at a time, whoever comes and goes', async () => {
    const all = [await candidate('a'), await candidate('b'), await candidate('c')];
    for (let second = 0; second < 300; second++) {
      server.down = second % 50 > 30;
      await pass(1_000);
      expect(all.filter(({ elector }) => elector.goodForMs(0)).length).toBeLessThanOrEqual(1);
    }
    expect(all.some(({ heard }) => heard.length > 2)).toBe(true);
  });
});
