import type { ImageSite, VMImage } from '../../../src/api/types.ts';
import type { Cloud } from '../../../src/clouds/cloud.ts';
import { SiteConnections } from '../../../src/reconcilers/imagesite/connections.ts';
import type { Deps } from '../../../src/reconcilers/deps.ts';
import { ALONE } from '../../../src/reconcilers/duties.ts';
import { Looks } from '../../../src/reconcilers/vmimage/looks.ts';
import { Pace } from '../../../src/reconcilers/vmimage/pace.ts';
import type { SiteWork } from '../../../src/reconcilers/vmimage/operations.ts';
import { beginRound, endLooks, type Round, tellHandled } from '../../../src/reconcilers/vmimage/round.ts';
import { Siblings } from '../../../src/reconcilers/vmimage/siblings.ts';
import { registrationOf } from '../../../src/reconcilers/vmimage/targets.ts';
import { Jobs } from '../../../src/runtime/jobs.ts';
import type { EventNote } from '../../../src/stores/store.ts';
import { createLogger } from '../../../src/telemetry/log.ts';
import { HeldClock, settled } from '../../support/clock.ts';
import { imagesite } from './objects.ts';

/** The kernel around the steps of a reconciler: real jobs and connections, resources in memory, time held. */
export class Workbench {
  readonly clock = new HeldClock();
  readonly images = new Map<string, VMImage>();
  readonly sites = new Map<string, ImageSite>();
  readonly connections = new SiteConnections();
  readonly siblings = new Siblings('test');
  /** Askers that jobs woke. */
  readonly woken: string[] = [];
  readonly jobs = new Jobs((asker) => void this.woken.push(asker));
  readonly unpinned: string[] = [];
  /** What the cache may hold. */
  quotaBytes = 2 ** 30;
  /** Events of the concluded rounds. */
  readonly told: EventNote[] = [];
  readonly deps: Deps;

  constructor() {
    this.deps = {
      store: {
        get: (kind: string, { name }: { name: string }) =>
          kind === 'ImageSite'
            ? this.sites.get(name)
            : [...this.images.values()].find((image) => image.metadata.name === name),
        list: (kind: string) => [...(kind === 'ImageSite' ? this.sites : this.images).values()],
      },
      cache: {
        unpinAll: (holder: string) => void this.unpinned.push(holder),
        stats: () => ({ quotaBytes: this.quotaBytes }),
      },
      jobs: this.jobs,
      sites: this.connections,
      siblings: this.siblings,
      looks: new Looks(this.clock.now()),
      pace: new Pace(),
      clock: this.clock,
      log: createLogger({ level: 'silent' }),
      metrics: { transferred: () => undefined, told: () => undefined },
      authority: { goodForMs: () => true },
      duties: ALONE,
      wake: () => undefined,
      settings: { instance: 'test', lossConfirmMs: 60_000 },
    } as unknown as Deps;
  }

  add(image: VMImage): VMImage {
    this.images.set(image.metadata.uid, image);
    this.siblings.note({ type: 'Applied', object: image });
    return image;
  }

  /** A ready site with this cloud behind it. */
  site(name: string, cloud: Cloud, spec: Partial<ImageSite['spec']> = {}): ImageSite {
    const site = imagesite({ metadata: { name, uid: `uid-${name}` }, spec });
    this.sites.set(name, site);
    this.connections.set({ name, cloud, formats: ['Raw'], inputsHash: 'i', identity: name });
    return site;
  }

  round(image: VMImage, requestedAt?: string): Round {
    return beginRound(this.images.get(image.metadata.uid) ?? image, requestedAt, this.deps);
  }

  /** Where the image meets the site in this round. */
  work(round: Round, name = 'nova'): SiteWork {
    const row = round.status.sites.find((each) => each.name === name);
    const site = this.sites.get(name);
    const connection = this.connections.get(name);
    if (row === undefined || site === undefined || connection === undefined) throw new Error(`no ${name}`);
    return { round, row, site, connection, registration: registrationOf(round.image, undefined), inputsHash: 'inputs' };
  }

  /** Writes the round's status and starts what was decided, as the reconciler does; then lets the jobs run. */
  async conclude(round: Round): Promise<VMImage> {
    tellHandled(round);
    this.told.push(...round.notes);
    const image = { ...round.image, status: structuredClone(round.status) };
    this.add(image);
    endLooks(round);
    for (const start of round.starts) start();
    await settled();
    return image;
  }
}
