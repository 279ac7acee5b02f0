import { findCondition, READY } from '../../api/conditions.ts';
import type { ImageSite } from '../../api/types.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Change } from '../../stores/store.ts';

/** Reason of a site that bears a new name, and is left alone for a while. */
export const TAKING_OVER = 'TakingOver';

export interface ClaimsOptions {
  /** Of this controller, for people and for the others: namespace and name of its Lease. */
  name: string;
  /** Whether the labels of an ImageSite are those that it serves. */
  matches(labels: Readonly<Record<string, string>>): boolean;
  /** How long a controller may go on with a site before it has certainly heard, or lost its Lease; in milliseconds. */
  patienceMs: number;
  clock: Pick<Clock, 'now'>;
}

/**
 * Whose each site is, where several controllers share an API server and the selectors of two may match the same. Who serves a site
 * has its name in the site's status. One that comes anew takes over what bears another name, and begins when that other has
 * certainly ended; one that sees its name replaced steps back. So of two whose selectors overlap the last that came works, and they
 * do not write one row in turns for ever.
 */
export class Claims {
  readonly name: string;
  readonly #options: ClaimsOptions;
  /** By uid: sites that bear our name, or bore it when we last looked. */
  readonly #serving = new Set<string>();
  /** By uid: sites that have borne our name since this process started, while our selector matched them. */
  readonly #served = new Set<string>();
  /** By uid: when what was taken over may be touched. */
  readonly #beginsAt = new Map<string, number>();
  /** By uid: what another has taken over, and we would serve. */
  readonly #lost = new Map<string, { site: string; to: string }>();

  constructor(options: ClaimsOptions) {
    this.name = options.name;
    this.#options = options;
  }

  /** Is told every change of an ImageSite, before anybody decides by it. */
  note({ type, object, previous }: Pick<Change<ImageSite>, 'type' | 'object' | 'previous'>): void {
    const { uid, name } = object.metadata;
    if (type === 'Deleted') {
      for (const each of [this.#serving, this.#served, this.#beginsAt, this.#lost]) each.delete(uid);
      return;
    }
    const { controller } = object.status;
    if (!this.#matches(object)) this.#serving.delete(uid);
    else if (controller === this.name) {
      this.#serving.add(uid);
      this.#served.add(uid);
      // A restart begins the time anew: how much of it has passed nobody has written down.
      if (previous === undefined ? isBeingTakenOver(object) : isAnother(previous.status.controller, this.name))
        this.#beginsAt.set(uid, this.#options.clock.now() + this.#options.patienceMs);
    }
    const to = this.takenBy(object);
    if (to === undefined) this.#lost.delete(uid);
    else this.#lost.set(uid, { site: name, to });
  }

  isOurs(site: ImageSite): boolean {
    return this.#matches(site) && this.takenBy(site) === undefined;
  }

  /** Who has taken over a site that we serve, and would serve. */
  takenBy(site: ImageSite): string | undefined {
    const { controller } = site.status;
    const taken = this.#serving.has(site.metadata.uid) && isAnother(controller, this.name);
    return taken && this.#matches(site) ? controller : undefined;
  }

  /** For how many milliseconds a site of ours is to be left alone, because another served it until now. */
  waitMs({ metadata: { uid }, status: { controller } }: ImageSite): number {
    const { patienceMs, clock } = this.#options;
    if (isAnother(controller, this.name)) return patienceMs;
    const left = (this.#beginsAt.get(uid) ?? 0) - clock.now();
    // A clock that was set back must not make it longer.
    return Math.min(Math.max(left, 0), patienceMs);
  }

  /** Whether it bears our name from a time when we had another selector: who lost it to us then may have it back. */
  isLeftOver(site: ImageSite): boolean {
    return site.status.controller === this.name && !this.#matches(site) && !this.#served.has(site.metadata.uid);
  }

  /** What a person must put right; undefined when nothing. */
  get fault(): string | undefined {
    const [first] = this.#lost.values();
    if (first === undefined) return undefined;
    const more = this.#lost.size > 1 ? ` (and ${this.#lost.size - 1} more)` : '';
    return `ImageSite ${first.site}${more}: ${overlap(this.name, first.to)}`;
  }

  #matches({ metadata }: ImageSite): boolean {
    return this.#options.matches(metadata.labels ?? {});
  }
}

/** What is said of a site that was taken over from a controller which would serve it still. */
export function overlap(ours: string, theirs: string): string {
  return `the selectors of the controllers ${ours} and ${theirs} both match it; ${theirs} came later and serves it: give them --site-selectors that do not overlap, or remove one and start the other anew`;
}

function isBeingTakenOver({ status }: ImageSite): boolean {
  return findCondition(status.conditions, READY)?.reason === TAKING_OVER;
}

function isAnother(controller: string | undefined, ours: string): controller is string {
  return controller !== undefined && controller !== ours;
}
