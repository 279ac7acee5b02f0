import { isDeepStrictEqual } from 'node:util';
import {
  clip,
  findCondition,
  READY,
  RECONCILING,
  removeCondition,
  setCondition,
  STALLED,
  timestamp,
} from '../../api/conditions.ts';
import { Failure } from '../../api/failure.ts';
import { requestOf } from '../../api/request.ts';
import { ANNOTATIONS, type ImageSite, type ImageSiteStatus } from '../../api/types.ts';
import type { Cloud } from '../../clouds/cloud.ts';
import type { Format } from '../../images/format.ts';
import { backoffMs, jittered } from '../../runtime/backoff.ts';
import type { EventNote } from '../../stores/store.ts';
import { TAKING_OVER } from './claims.ts';
import { close, type Opened, type SiteDeps } from './opened.ts';
import type { Connection } from './connections.ts';
import { kindOf } from './secret.ts';
import { countsOf, usersAndAskers } from './users.ts';

const PROBE_INTERVAL_MS = 5 * 60_000;
const PROBE_BACKOFF = { baseMs: 5_000, maxMs: 5 * 60_000 };
/** So many failures in a row have brought the pause to its bound. Further ones are not counted: each would be a write, for ever. */
const COUNTED_FAILURES = 1 + Math.ceil(Math.log2(PROBE_BACKOFF.maxMs / PROBE_BACKOFF.baseMs));
const WAITING_LOOK_MS = 60_000;
/** The date of a probe that found all as it was is written this often. */
const WRITTEN_MS = 12 * 3_600_000;

/** One look at a site: collects what the status will say, writes it once. */
export class Visit {
  readonly #site: ImageSite;
  readonly #deps: SiteDeps;
  readonly #now: number;
  readonly #status: ImageSiteStatus;
  readonly #starts: (() => void)[] = [];
  readonly #notes: EventNote[] = [];
  #held: string | undefined;
  /** What the next probe's date holds for: another object, other credentials or a person's word are looked at at once. */
  ticket = '';

  constructor(site: ImageSite, deps: SiteDeps) {
    this.#site = site;
    this.#deps = deps;
    this.#now = deps.clock.now();
    this.#status = structuredClone(site.status);
    this.#status.observedGeneration = site.metadata.generation;
    const { claims } = deps.duties;
    if (claims === undefined) delete this.#status.controller;
    else if (!site.spec.abandoned) this.#status.controller = claims.name;
    const request = requestOf(site.metadata.annotations);
    if (request !== undefined) this.#status.lastHandledReconcileAt = request;
  }

  start(begin: () => void): void {
    this.#starts.push(begin);
  }

  holdDeletion(users: readonly string[]): void {
    const shown = users.slice(0, 5).join(', ') + (users.length > 5 ? ` and ${users.length - 5} more` : '');
    this.#held = `deletion waits for the VMImages that are registered here: ${shown}; delete them or take the site out of their spec.sites, or set spec.abandoned: true if the cloud is gone for good`;
  }

  /** @param again whether what was probed before is only tried once more, in its time, and nobody asked for it */
  probing(again: boolean): void {
    const ready = findCondition(this.#status.conditions, READY);
    // What the last probe has told stands until the next tells something else: who reads kstatus would see a site that is well in
    // progress every five minutes, and one in trouble would be written twice at every probe.
    if (again && ready !== undefined) return;
    if (ready === undefined) this.#ready(false, 'Probing', 'endpoint and credentials are being tried');
    this.#set(RECONCILING, true, 'Probing', 'endpoint and credentials are being tried');
  }

  probed({ cloud, inputsHash, probe }: Opened): number {
    const { name } = this.#site.metadata;
    const known = this.#status.identity;
    this.#status.lastProbeTime = timestamp(this.#now);
    delete this.#status.attempts;
    delete this.#status.nextAttemptTime;
    const confirmed = this.#site.metadata.annotations?.[ANNOTATIONS.confirmIdentity];
    if (known !== undefined && known !== probe.identity && confirmed !== probe.identity) {
      close(name, this.#deps);
      void cloud.close();
      this.#stalled(
        'IdentityChanged',
        `this site was ${known}, and is ${probe.identity} now: nothing is made, taken as gone or deleted there. If it is meant so, annotate the ImageSite with ${ANNOTATIONS.confirmIdentity}: "${probe.identity}"; else put endpoint and Secret back`,
      );
      return this.#schedule(PROBE_INTERVAL_MS);
    }
    this.#status.identity = probe.identity;
    this.#status.cloud = {
      name: kindOf(this.#site),
      ...(probe.version === undefined ? {} : { version: probe.version }),
      details: probe.details,
      ...(probe.endpoints.length === 0 ? {} : { endpoints: [...probe.endpoints] }),
    };
    this.#deps.sites.set({ name, cloud, identity: probe.identity, inputsHash, formats: this.#formats(cloud) });
    this.#ready(true, 'Probed', probe.identity);
    return this.#schedule(jittered(PROBE_INTERVAL_MS, this.#deps.clock));
  }

  /** The connection stays; which formats go there may have been edited. */
  keep(open: Connection): void {
    this.#deps.sites.set({ ...open, formats: this.#formats(open.cloud) });
  }

  failed(failure: Failure): number {
    close(this.#site.metadata.name, this.#deps);
    if (failure.reason === 'Aborted') return 1000;
    const stalling = failure.failureClass === 'InvalidSpec' || failure.failureClass === 'Unauthorized';
    if (stalling) this.#stalled(failure.reason, failure.message);
    else this.#ready(false, failure.reason, failure.message);
    return this.#schedule(this.#pauseAfter(failure));
  }

  /**
   * The count of failures and the date of the next probe are told as long as they change what is told or when: a thing that is
   * missing is looked for every minute, and an endpoint that is dead for good tried every few, without a write.
   */
  #pauseAfter({ failureClass, retryAfterMs }: Failure): number {
    const before = this.#status.attempts ?? 0;
    delete this.#status.attempts;
    delete this.#status.nextAttemptTime;
    if (failureClass === 'Waiting') return WAITING_LOOK_MS;
    const attempts = Math.min(before + 1, COUNTED_FAILURES);
    const pause = Math.max(retryAfterMs ?? 0, backoffMs(attempts, PROBE_BACKOFF, this.#deps.clock));
    this.#status.attempts = attempts;
    if (attempts < COUNTED_FAILURES) this.#status.nextAttemptTime = timestamp(this.#now + pause);
    return pause;
  }

  takingOver(): void {
    this.#ready(
      false,
      TAKING_OVER,
      'another controller served this site until now: this one begins as soon as that one has certainly ended',
    );
  }

  notReady(reason: string, message: string): void {
    this.#ready(false, reason, message);
    this.#status.conditions = [...removeCondition(this.#status.conditions, RECONCILING)];
  }

  async conclude(next: number | undefined): Promise<number | undefined> {
    const { store, sites } = this.#deps;
    if (this.#held !== undefined) this.#set('DeletionHeld', true, 'InUse', this.#held);
    this.#status.counts = countsOf(this.#site, this.#deps);
    const before = findCondition(this.#site.status?.conditions, READY);
    const after = findCondition(this.#status.conditions, READY);
    if (after !== undefined && before?.status !== after.status && after.reason !== 'Probing') {
      this.#notes.push({
        type: after.status === 'True' ? 'Normal' : 'Warning',
        reason: after.reason,
        message: after.message,
      });
    }
    this.#keepDates();
    await store.applyStatus(this.#site, this.#status);
    for (const begin of this.#starts) begin();
    for (const note of this.#notes) {
      store.event(this.#site, note);
      this.#deps.metrics.told(this.#site.kind, note);
    }
    // The images of a site that has just come or gone look again.
    if (before?.status !== after?.status || sites.takeChange(this.#site.metadata.name)) {
      for (const image of usersAndAskers(this.#site, this.#deps)) this.#deps.wake('VMImage', image);
    }
    return next;
  }

  #schedule(pauseMs: number): number {
    this.#deps.sites.schedule(this.#site.metadata.name, this.ticket, this.#now + pauseMs);
    return pauseMs;
  }

  /** The date of a probe is written with what the probe has found: alone it would be a write for each site every five minutes. */
  #keepDates(): void {
    const { lastProbeTime } = this.#site.status;
    if (lastProbeTime === undefined || this.#now - Date.parse(lastProbeTime) >= WRITTEN_MS) return;
    if (isDeepStrictEqual({ ...this.#status, lastProbeTime }, this.#site.status))
      this.#status.lastProbeTime = lastProbeTime;
  }

  #formats(cloud: Cloud): Format[] {
    const accepted = this.#site.spec.acceptedFormats ?? [];
    return accepted.length === 0
      ? [...cloud.traits.formats]
      : accepted.filter((format) => cloud.traits.formats.includes(format));
  }

  #ready(value: boolean, reason: string, message: string): void {
    this.#set(READY, value, reason, message);
    this.#status.conditions = [...removeCondition(this.#status.conditions, STALLED)];
    if (value) this.#status.conditions = [...removeCondition(this.#status.conditions, RECONCILING)];
    else this.#set(RECONCILING, true, reason, message);
  }

  #stalled(reason: string, message: string): void {
    this.#set(READY, false, reason, message);
    this.#set(STALLED, true, reason, message);
    this.#status.conditions = [...removeCondition(this.#status.conditions, RECONCILING)];
  }

  #set(type: string, value: boolean, reason: string, message: string): void {
    const observedGeneration = this.#site.metadata.generation;
    this.#status.conditions = [
      ...setCondition(
        this.#status.conditions,
        { type, status: value, reason, message: clip(message), observedGeneration },
        this.#now,
      ),
    ];
  }
}
