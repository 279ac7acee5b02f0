import { describe, expect, test } from 'vitest';
import type { ImageSite } from '../../../src/api/types.ts';
import type { Cloud, Probe } from '../../../src/clouds/cloud.ts';
import { reconcileImageSite } from '../../../src/reconcilers/imagesite/index.ts';
import type { SiteDeps } from '../../../src/reconcilers/imagesite/opened.ts';
import { settled } from '../../support/clock.ts';
import { imagesite } from './objects.ts';
import { ScriptedCloud } from './scripted-cloud.ts';
import { Workbench } from './workbench.ts';

/** A cloud whose probe ends when the test says so, and that counts how often it was closed. */
class SlowCloud extends ScriptedCloud {
  closed = 0;
  readonly answer = Promise.withResolvers<Probe>();

  override probe(): Promise<Probe> {
    return this.answer.promise;
  }

  override async close(): Promise<void> {
    this.closed++;
  }

  async answers(): Promise<void> {
    this.answer.resolve({ identity: 'scripted', details: {}, endpoints: [] });
    await settled();
  }
}

class Sites {
  readonly bench = new Workbench();
  readonly opened: SlowCloud[] = [];
  readonly #deps: SiteDeps;

  constructor() {
    const { deps } = this.bench;
    Object.assign(deps.store, {
      applyStatus: async () => undefined,
      event: () => undefined,
      removeFinalizer: async ({ metadata }: ImageSite) => void this.bench.sites.delete(metadata.name),
    });
    const openCloud = async (): Promise<Cloud> => {
      const cloud = new SlowCloud();
      this.opened.push(cloud);
      return cloud;
    };
    this.#deps = { ...deps, openCloud };
  }

  /** The site as it is now, looked at once. */
  async look(site: Parameters<typeof imagesite>[0]): Promise<void> {
    const fresh = imagesite(
      { ...site, metadata: { finalizers: ['imageproxy.dev/site-in-use'], ...site?.metadata } },
      { identity: 'scripted' },
    );
    this.bench.sites.set('nova', fresh);
    await this.again();
  }

  async again(): Promise<void> {
    await reconcileImageSite({ name: 'nova' }, this.#deps);
    await settled();
  }

  get inUse(): Cloud | undefined {
    return this.bench.connections.get('nova')?.cloud;
  }
}

describe('the connection to a site that is being probed', () => {
  test("is the site's once the probe is good", async () => {
    const sites = new Sites();
    await sites.look({});
    await sites.opened[0]?.answers();
    await sites.again();
    expect(sites.inUse).toBe(sites.opened[0]);
    expect(sites.opened[0]?.closed).toBe(0);
  });

  test.each<[string, (sites: Sites) => Promise<void>]>([
    [
      'deleted',
      async (sites) => {
        await sites.look({ metadata: { deletionTimestamp: '2026-11-21T12:00:00Z' } });
      },
    ],
    [
      'gone',
      async (sites) => {
        sites.bench.sites.delete('nova');
        await sites.again();
      },
    ],
    ['suspended', (sites) => sites.look({ spec: { suspend: true } })],
    ['abandoned', (sites) => sites.look({ spec: { abandoned: true } })],
    ['made again under its name', (sites) => sites.look({ metadata: { uid: 'another' } })],
  ])('is closed when the site is %s meanwhile, whether or not the probe has ended', async (_, goes) => {
    for (const endsFirst of [true, false]) {
      const sites = new Sites();
      await sites.look({});
      const [cloud] = sites.opened;
      if (endsFirst) await cloud?.answers();
      await goes(sites);
      if (!endsFirst) await cloud?.answers();
      expect(cloud?.closed).toBe(1);
      expect(sites.inUse).toBeUndefined();
    }
  });
});
