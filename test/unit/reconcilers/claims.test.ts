import { beforeEach, describe, expect, test } from 'vitest';
import type { ImageSite } from '../../../src/api/types.ts';
import { dutiesOf } from '../../../src/cli/hub.ts';
import { reconcileImageSite } from '../../../src/reconcilers/imagesite/index.ts';
import { Claims } from '../../../src/reconcilers/imagesite/claims.ts';
import type { SiteDeps } from '../../../src/reconcilers/imagesite/opened.ts';
import type { Change, EventNote, Store } from '../../../src/stores/store.ts';
import { HeldClock, settled } from '../../support/clock.ts';
import { imagesite } from './objects.ts';
import { ScriptedCloud } from './scripted-cloud.ts';
import { Workbench } from './workbench.ts';

const PATIENCE_MS = 30_000;

/** One ImageSite on an API server whose changes all controllers hear at once. */
class Cluster {
  readonly clock = new HeldClock();
  site: ImageSite = imagesite(
    {
      metadata: { name: 'nova', uid: 'u', labels: { region: 'east' }, finalizers: ['imageproxy.dev/site-in-use'] },
    },
    { identity: 'scripted' },
  );
  writes = 0;
  readonly #listeners = new Set<(change: Change<ImageSite>) => void>();

  subscribe(listener: (change: Change<ImageSite>) => void): void {
    this.#listeners.add(listener);
    listener({ type: 'Applied', object: this.site });
  }

  write(change: { labels?: Record<string, string>; status?: ImageSite['status'] }): void {
    const previous = this.site;
    const { labels = previous.metadata.labels ?? {}, status = previous.status } = change;
    if (JSON.stringify(status) !== JSON.stringify(previous.status)) this.writes++;
    this.site = { ...previous, metadata: { ...previous.metadata, labels }, status };
    for (const listener of this.#listeners) listener({ type: 'Applied', object: this.site, previous });
  }
}

/** A controller of that cluster, which serves the sites of some regions. */
class Controller {
  readonly events: string[] = [];
  readonly claims: Claims;
  probes = 0;
  readonly #deps: SiteDeps;

  constructor(name: string, regions: readonly string[], cluster: Cluster) {
    const bench = new Workbench();
    this.claims = new Claims({
      name,
      matches: ({ region = '' }) => regions.includes(region),
      patienceMs: PATIENCE_MS,
      clock: cluster.clock,
    });
    const store = {
      ...bench.deps.store,
      get: () => cluster.site,
      subscribe: (_kind: string, listener: (change: Change<ImageSite>) => void) => cluster.subscribe(listener),
      applyStatus: async (_site: ImageSite, status: ImageSite['status']) => cluster.write({ status }),
      event: (_site: ImageSite, { reason, message }: EventNote) => void this.events.push(`${reason}: ${message}`),
    } as unknown as Store;
    const summary = { goodForMs: () => false, onChange: () => () => undefined };
    const openCloud = async () => {
      this.probes++;
      return new ScriptedCloud();
    };
    const duties = dutiesOf({ claims: this.claims, summary }, store);
    this.#deps = { ...bench.deps, clock: cluster.clock, store, duties, openCloud };
  }

  /** Until it waits for something. @returns after how many milliseconds it asks to be woken */
  async work(): Promise<number | undefined> {
    await reconcileImageSite({ name: 'nova' }, this.#deps);
    await settled();
    return reconcileImageSite({ name: 'nova' }, this.#deps);
  }

  get serves(): boolean {
    return this.#deps.duties.serves('nova');
  }

  get isConnected(): boolean {
    return this.#deps.sites.get('nova') !== undefined;
  }
}

describe('a site that several controllers may serve', () => {
  let cluster: Cluster;
  beforeEach(() => {
    cluster = new Cluster();
  });
  const controller = () => cluster.site.status.controller;

  test('bears the name of the one that serves it, from before anything is done there', async () => {
    const east = new Controller('site-east/east', ['east'], cluster);
    const west = new Controller('site-west/west', ['west'], cluster);
    await west.work();
    expect([controller(), west.probes]).toEqual([undefined, 0]);
    await east.work();
    expect([controller(), east.isConnected, east.claims.fault]).toEqual(['site-east/east', true, undefined]);
  });

  test('is taken over by the last that came; the other steps back, says so, and neither writes in turns', async () => {
    const first = new Controller('one/first', ['east'], cluster);
    await first.work();
    const second = new Controller('two/second', ['east', 'west'], cluster);
    expect(await second.work()).toBeGreaterThan(PATIENCE_MS - 1000);
    expect([controller(), second.serves, second.probes]).toEqual(['two/second', true, 0]);
    expect(cluster.site.status.conditions?.find(({ type }) => type === 'Ready')).toMatchObject({
      status: 'False',
      reason: 'TakingOver',
    });
    expect(first.serves).toBe(false);
    await first.work();
    expect([first.isConnected, first.probes]).toEqual([false, 1]);
    const words =
      'the selectors of the controllers one/first and two/second both match it; two/second came later and serves it: give them --site-selectors that do not overlap, or remove one and start the other anew';
    expect(first.claims.fault).toBe(`ImageSite nova: ${words}`);
    expect(first.events).toContain(`SelectorsOverlap: ${words}`);
    // Only when the first has certainly ended it is touched.
    cluster.clock.advance(PATIENCE_MS);
    await second.work();
    expect([second.isConnected, second.claims.fault]).toEqual([true, undefined]);
    const { writes } = cluster;
    for (let round = 0; round < 3; round++) {
      await first.work();
      await second.work();
    }
    expect([cluster.writes, controller()]).toEqual([writes, 'two/second']);
  });

  test('whose labels were changed goes to the other without a word of trouble, which begins when the first has ended', async () => {
    const east = new Controller('one/east', ['east'], cluster);
    const west = new Controller('two/west', ['west'], cluster);
    await east.work();
    cluster.write({ labels: { region: 'west' } });
    await east.work();
    // Its name is not taken away by itself: the other would not know that there is something to wait for.
    expect([east.isConnected, controller()]).toEqual([false, 'one/east']);
    await west.work();
    expect([controller(), west.probes]).toEqual(['two/west', 0]);
    cluster.clock.advance(PATIENCE_MS);
    await west.work();
    expect([west.isConnected, east.claims.fault, west.claims.fault]).toEqual([true, undefined, undefined]);
    // And back.
    cluster.write({ labels: { region: 'east' } });
    await west.work();
    await east.work();
    expect(controller()).toBe('one/east');
    cluster.clock.advance(PATIENCE_MS);
    await east.work();
    expect([east.isConnected, west.isConnected]).toEqual([true, false]);
  });

  test('goes back to the one that lost it, when the one that took it starts with another selector', async () => {
    const first = new Controller('one/first', ['east'], cluster);
    await first.work();
    await new Controller('two/second', ['east', 'west'], cluster).work();
    expect(first.serves).toBe(false);
    const mended = new Controller('two/second', ['west'], cluster);
    await mended.work();
    expect([controller(), first.serves]).toEqual([undefined, true]);
    await first.work();
    expect([controller(), first.isConnected, first.claims.fault]).toEqual(['one/first', true, undefined]);
  });

  test('that was taken over is left alone as long again after a restart in that time', async () => {
    await new Controller('one/first', ['east'], cluster).work();
    await new Controller('two/second', ['east'], cluster).work();
    const again = new Controller('two/second', ['east'], cluster);
    await again.work();
    expect([controller(), again.probes]).toEqual(['two/second', 0]);
    cluster.clock.advance(PATIENCE_MS);
    await again.work();
    expect(again.isConnected).toBe(true);
  });

  test('is gone on with at once by the same controller after a restart', async () => {
    await new Controller('one/first', ['east'], cluster).work();
    const again = new Controller('one/first', ['east'], cluster);
    await again.work();
    expect(again.isConnected).toBe(true);
  });
});
