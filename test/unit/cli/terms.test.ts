import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { labelSelector, selectorText } from '../../../src/cli/label-selector.ts';
import { type Scope, termsOf, whyOpposed } from '../../../src/cli/terms.ts';
import { Agreement, Candidacy, JointCandidacy } from '../../../src/runtime/candidacy.ts';
import { LeaseElector } from '../../../src/runtime/lease.ts';
import { HeldClock, settled } from '../../support/clock.ts';
import { LeaseServer } from '../../support/lease-server.ts';
import { TestLog } from '../stores/support.ts';

const LEASE_MS = 30_000;
/** Until a Lease that was given back is another's: a look, with its chance. */
const LOOK_MS = 3_000;
const EAST: Scope = { siteSelector: labelSelector('region=east') };
const WEST: Scope = { siteSelector: labelSelector('region=west') };

interface Member {
  readonly name: string;
  readonly alone: boolean;
  readonly works: JointCandidacy;
  readonly summary: Candidacy;
  /** Between it and the API server. */
  readonly link: { cut: boolean };
  /** As a process stops that may still tell the API server. */
  stop(): Promise<void>;
}

describe('of the controllers of one cluster', () => {
  let clock: HeldClock;
  let summary: LeaseServer;
  let ownLeases: Map<string, LeaseServer>;
  let all: Member[];
  let started: number;

  beforeEach(() => {
    clock = new HeldClock({ seed: 7 });
    summary = new LeaseServer();
    ownLeases = new Map();
    all = [];
    started = 0;
  });
  afterEach(async () => {
    for (const { works, link } of all) {
      link.cut = false;
      await works.withdraw();
    }
  });

  /** A process of the release of that name, put together as the program does it. */
  const start = async (release: string, scope: Scope): Promise<Member> => {
    const link = { cut: false };
    const own = ownLeases.get(release) ?? new LeaseServer();
    ownLeases.set(release, own);
    const identity = `${release}_${started++}`;
    const common = { identity, clock, monotonic: clock.now, log: new TestLog(), leaseMs: LEASE_MS };
    const mine = new Candidacy(new LeaseElector({ ...common, client: own.client(link) }));
    const summarizing = new Candidacy(
      new LeaseElector({ ...common, client: summary.client(link), after: mine, terms: termsOf(scope) }),
    );
    const alone = scope.siteSelector === undefined;
    const works = new JointCandidacy(mine, alone ? summarizing : new Agreement(summarizing));
    const member: Member = {
      name: identity,
      alone,
      works,
      summary: summarizing,
      link,
      stop: () => works.withdraw(),
    };
    all.push(member);
    works.stand();
    await settled();
    return member;
  };
  const pass = async (ms: number): Promise<void> => {
    for (let left = ms; left > 0; left -= 500) {
      clock.advance(500);
      await settled();
      expectOrder();
    }
  };
  /** One that serves every site works alone, and each release has one that works. */
  const expectOrder = (): void => {
    const working = all.filter(({ works }) => works.goodForMs(0));
    const names = working.map(({ name }) => name);
    if (working.some(({ alone }) => alone)) expect(names).toHaveLength(1);
    expect(new Set(names.map((name) => name.split('_')[0])).size).toBe(names.length);
  };
  const working = () => all.filter(({ works }) => works.goodForMs(0)).map(({ name }) => name);

  it('those of a hub work side by side, one of them summarizes, and each says what it serves', async () => {
    const [east] = [await start('east', EAST), await start('west', WEST)];
    await pass(LOOK_MS);
    expect(working()).toEqual(['east_0', 'west_1']);
    expect(all.map((each) => each.summary.goodForMs(0))).toEqual([true, false]);
    expect(summary.lease?.metadata.annotations).toEqual({
      'imageproxy.dev/watch-namespaces': '*',
      'imageproxy.dev/serves': 'region=east',
    });
    // The other goes on without a moment's rest when the one that summarizes stops.
    const heard: boolean[] = [];
    all[1]?.works.onChange((holds) => heard.push(holds));
    await east.stop();
    await pass(LEASE_MS);
    expect(working()).toEqual(['west_1']);
    expect(all[1]?.summary.goodForMs(0)).toBe(true);
    expect(heard).toEqual([]);
  });

  it('one of a hub does nothing beside one that serves every site, and goes on soon after that has stopped', async () => {
    const lone = await start('lone', {});
    const east = await start('east', EAST);
    await pass(2 * LEASE_MS);
    expect(working()).toEqual(['lone_0']);
    expect(east.works.holder).toBe('lone_0');
    expect(whyOpposed(termsOf(EAST), east.summary, 'default/imageproxy-summary')).toMatch(
      /imageproxy-summary is held by lone_0, which serves every site: .*give it a --site-selector/,
    );
    await lone.stop();
    await pass(LOOK_MS);
    expect(working()).toEqual(['east_1']);
    expect(east.works.holder).toBeUndefined();
  });

  it('one of a hub goes on when one that served every site has died, after its time', async () => {
    const lone = await start('lone', {});
    const east = await start('east', EAST);
    await pass(LOOK_MS);
    lone.link.cut = true;
    await pass(LEASE_MS * 0.9);
    expect(working()).toEqual([]);
    await pass(LEASE_MS * 0.1 + 2 * LOOK_MS);
    expect(working()).toEqual([east.name]);
  });

  it('one that serves every site leaves the Lease to a hub of which one is started anew', async () => {
    let east = await start('east', EAST);
    const lone = await start('lone', {});
    await pass(LOOK_MS);
    for (let time = 0; time < 3; time++) {
      await east.stop();
      await pass(LEASE_MS * 0.8);
      expect(working()).toEqual([]);
      east = await start('east', EAST);
      await pass(LOOK_MS);
      expect(working()).toEqual([east.name]);
    }
    expect(lone.works.goodForMs(0)).toBe(false);
  });

  it.each([
    ['has stopped', (east: Member) => east.stop()],
    ['has died', async (east: Member) => void (east.link.cut = true)],
  ])('one that serves every site works in the end, when the last of a hub %s', async (_what, end) => {
    const east = await start('east', EAST);
    const lone = await start('lone', {});
    await pass(LOOK_MS);
    await end(east);
    await pass(4 * LEASE_MS);
    expect(working()).toEqual([lone.name]);
    // And its successor need not wait for anybody.
    await lone.stop();
    const next = await start('lone', {});
    await pass(LOOK_MS);
    expect(working()).toEqual([next.name]);
  });

  it('one of a hub that cannot look at the common Lease stops before one that serves every site begins', async () => {
    const [east, west] = [await start('east', EAST), await start('west', WEST)];
    const lone = await start('lone', {});
    await pass(LOOK_MS);
    // Its own Lease is well, so it would go on for ever.
    summary.cutOff.add(west.link);
    await east.stop();
    await pass(LEASE_MS);
    expect(west.works.goodForMs(0)).toBe(false);
    await pass(3 * LEASE_MS);
    expect(working()).toEqual([lone.name]);
    summary.cutOff.clear();
    await pass(LOOK_MS);
    expect(west.works.holder).toBe(lone.name);
  });

  it('one of a hub that came late, and took a dead one for the holder, stops before one that serves every site begins', async () => {
    const east = await start('east', EAST);
    const lone = await start('lone', {});
    await pass(LOOK_MS);
    east.link.cut = true;
    // Some seconds before nobody has heard of it for so long that a hub is given up.
    await pass(2 * LEASE_MS - 10_000);
    const west = await start('west', WEST);
    expect(working()).toEqual([west.name]);
    summary.cutOff.add(west.link);
    await pass(15_000);
    expect([west.works.goodForMs(0), summary.lease?.spec?.holderIdentity]).toEqual([true, lone.name]);
    await pass(LEASE_MS);
    expect(working()).toEqual([lone.name]);
  });

  it('one that serves every site waits as long after a hub when it learns only later that the Lease is its own', async () => {
    const east = await start('east', EAST);
    const lone = await start('lone', {});
    await pass(LOOK_MS);
    await east.stop();
    summary.dropsAnswers = true;
    await pass(LEASE_MS + 2 * LOOK_MS);
    expect(summary.lease?.spec?.holderIdentity).toBe(lone.name);
    summary.dropsAnswers = false;
    await pass(LEASE_MS * 0.8);
    expect(working()).toEqual([]);
    await pass(LEASE_MS * 0.2 + LOOK_MS);
    expect(working()).toEqual([lone.name]);
  });

  it('one that watches other namespaces does nothing beside a hub, and does not take its place when one is started anew', async () => {
    const odd = { ...WEST, watchNamespaces: ['b', 'a'] };
    const east = await start('east', EAST);
    const other = await start('odd', odd);
    await pass(2 * LEASE_MS);
    expect(working()).toEqual([east.name]);
    expect(whyOpposed(termsOf(odd), other.summary, 'default/imageproxy-summary')).toMatch(
      /is held by east_0, which watches the namespaces \* and not a,b: .*same --watch-namespaces/,
    );
    await east.stop();
    await pass(LEASE_MS * 0.8);
    const again = await start('east', EAST);
    await pass(LOOK_MS);
    expect(working()).toEqual([again.name]);
    await again.stop();
    await pass(3 * LEASE_MS);
    expect(working()).toEqual([other.name]);
  });

  it('one that serves every site never works beside another, whoever comes, goes, dies or cannot be reached', async () => {
    const scopes: readonly (readonly [string, Scope])[] = [
      ['east', EAST],
      ['west', WEST],
      ['lone', {}],
      ['other-lone', {}],
    ];
    const seen = new Set<string>();
    const random = new HeldClock({ seed: 42 }).random;
    for (let step = 0; step < 150; step++) {
      const chance = random();
      const one = all[Math.floor(random() * all.length)];
      if (chance < 0.35 || one === undefined) {
        const [release, scope] = scopes[Math.floor(random() * scopes.length)] ?? ['east', EAST];
        if (all.length < 8) await start(release, scope);
      } else if (chance < 0.6) {
        one.link.cut = !one.link.cut;
      } else if (chance < 0.7) {
        if (summary.cutOff.has(one.link)) summary.cutOff.delete(one.link);
        else summary.cutOff.add(one.link);
      } else if (chance < 0.8) {
        await one.stop();
        all = all.filter((each) => each !== one);
      }
      await pass(Math.ceil(random() * 80) * 500);
      for (const { alone, works } of all) if (works.goodForMs(0)) seen.add(alone ? 'alone' : 'hub');
    }
    expect([...seen].toSorted()).toEqual(['alone', 'hub']);
  });
});

describe('a label selector', () => {
  it.each(['region=east', 'region=east,tier=prod', 'region in (east,west)', 'tier notin (lab)', 'site,!retired'])(
    'is text again as it was read: %s',
    (text) => {
      expect(selectorText(labelSelector(text))).toBe(text);
    },
  );
});
