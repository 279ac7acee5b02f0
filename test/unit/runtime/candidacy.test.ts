import { describe, expect, it } from 'vitest';
import { Candidacy } from '../../../src/runtime/candidacy.ts';
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
