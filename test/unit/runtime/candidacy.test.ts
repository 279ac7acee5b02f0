import { describe, expect, it } from 'vitest';
import { Candidacy, JointCandidacy } from '../../../src/runtime/candidacy.ts';
import { type Lease, type LeaseClient, LeaseElector, type LeaseSpec } from '../../../src/runtime/lease.ts';
import { HeldClock, settled } from '../../support/clock.ts';
import { TestLog } from '../stores/support.ts';

/** A server that answers when it is told to. */
class SlowServer implements LeaseClient {
  lease: Lease | undefined;
  readonly written: (string | null | undefined)[] = [];
  #version = 0;
  #gate: PromiseWithResolvers<void> | undefined;

  hold(): () => void {
    this.#gate = Promise.withResolvers<void>();
    return () => this.#gate?.resolve();
  }

  async read(): Promise<Lease | undefined> {
    await this.#gate?.promise;
    return this.lease;
  }

  create(spec: LeaseSpec): Promise<Lease> {
    return this.#write(spec);
  }

  update(_lease: Lease, spec: LeaseSpec): Promise<Lease> {
    return this.#write(spec);
  }

  async #write(spec: LeaseSpec): Promise<Lease> {
    this.written.push(spec.holderIdentity);
    this.lease = { metadata: { resourceVersion: String(++this.#version) }, spec };
    return this.lease;
  }
}

function candidacy(): { server: SlowServer; clock: HeldClock; candidacy: Candidacy } {
  const server = new SlowServer();
  const clock = new HeldClock();
  const elector = new LeaseElector({ client: server, identity: 'me', clock, monotonic: clock.now, log: new TestLog() });
  return { server, clock, candidacy: new Candidacy(elector) };
}

describe('A candidacy', () => {
  it('holds nothing before it stands, and resolves whoever waits when it holds', async () => {
    const { candidacy: mine } = candidacy();
    const held = mine.held(new AbortController().signal);
    await settled();
    expect(mine.goodForMs(0)).toBe(false);
    mine.stand();
    mine.stand();
    await held;
    expect(mine.goodForMs(0)).toBe(true);
    await mine.withdraw();
    expect(mine.goodForMs(0)).toBe(false);
  });

  it('is given up by whoever waits when the signal says so', async () => {
    const { candidacy: mine } = candidacy();
    const stop = new AbortController();
    const held = mine.held(stop.signal);
    stop.abort(new Error('enough'));
    await expect(held).rejects.toThrow('enough');
    await expect(mine.held(stop.signal)).rejects.toThrow('enough');
  });

  it('that stands again while it is still being given back takes the Lease only after that', async () => {
    const { server, candidacy: mine } = candidacy();
    mine.stand();
    await mine.held(new AbortController().signal);
    const open = server.hold();
    const withdrawn = mine.withdraw();
    mine.stand();
    await settled();
    expect(mine.goodForMs(0)).toBe(false);
    open();
    await withdrawn;
    await mine.held(new AbortController().signal);
    // Never given back under the feet of the second stand.
    expect(server.written).toEqual(['me', '', 'me']);
    expect(server.lease?.spec?.holderIdentity).toBe('me');
    await mine.withdraw();
  });
});

describe('Two Leases that are held together', () => {
  const LEASE_MS = 15_000;

  function joint(identity: string, clock: HeldClock, servers: readonly [SlowServer, SlowServer]): JointCandidacy {
    const of = (client: SlowServer, after?: Candidacy) =>
      new Candidacy(
        new LeaseElector({
          client,
          identity,
          clock,
          monotonic: clock.now,
          leaseMs: LEASE_MS,
          log: new TestLog(),
          ...(after === undefined ? {} : { after }),
        }),
      );
    const first = of(servers[0]);
    return new JointCandidacy(first, of(servers[1], first));
  }
  const pass = async (clock: HeldClock, ms: number): Promise<void> => {
    for (let left = ms; left > 0; left -= 500) {
      clock.advance(500);
      await settled();
    }
  };
  const heldBy = (holderIdentity: string): Lease => ({
    metadata: { resourceVersion: '0' },
    spec: { holderIdentity, leaseDurationSeconds: LEASE_MS / 1000 },
  });

  it('are ours at once where nobody holds them, and given back, the second first', async () => {
    const servers = [new SlowServer(), new SlowServer()] as const;
    const both = joint('me', new HeldClock(), servers);
    const heard: boolean[] = [];
    both.onChange((holds) => heard.push(holds));
    both.stand();
    await both.held(new AbortController().signal);
    expect(servers.map(({ written }) => written)).toEqual([['me'], ['me']]);
    await both.withdraw();
    expect(servers.map(({ written }) => written)).toEqual([
      ['me', ''],
      ['me', ''],
    ]);
    expect(heard).toEqual([true, false]);
  });

  it('are not ours while another holds the second, which is named; lost, when another takes it', async () => {
    const clock = new HeldClock();
    const servers = [new SlowServer(), new SlowServer()] as const;
    servers[1].lease = heldBy('other');
    const both = joint('me', clock, servers);
    both.stand();
    await pass(clock, 5_000);
    expect([both.goodForMs(0), both.holder]).toEqual([false, 'other']);
    servers[1].lease = heldBy('');
    await pass(clock, 4_000);
    expect(both.goodForMs(0)).toBe(true);
    servers[1].lease = heldBy('usurper');
    await pass(clock, 4_000);
    expect([both.goodForMs(0), both.holder]).toEqual([false, 'usurper']);
    await both.withdraw();
  });

  it('are never one each with two that wait for each other: the second is left alone without the first', async () => {
    const clock = new HeldClock();
    const servers = [new SlowServer(), new SlowServer()] as const;
    servers[0].lease = heldBy('other');
    const both = joint('me', clock, servers);
    both.stand();
    await pass(clock, 10_000);
    expect(servers[1].written).toEqual([]);
    await both.withdraw();
  });

  it('of a holder that died are both ours in the time of one', async () => {
    const clock = new HeldClock();
    const servers = [new SlowServer(), new SlowServer()] as const;
    for (const server of servers) server.lease = heldBy('dead');
    const both = joint('me', clock, servers);
    both.stand();
    await pass(clock, LEASE_MS + 5_000);
    expect(both.goodForMs(0)).toBe(true);
    await both.withdraw();
  });
});
