import type { Logger } from 'pino';
import {
  clip,
  findCondition,
  READY,
  RECONCILING,
  removeCondition,
  setCondition,
  STALLED,
} from '../../api/conditions.ts';
import { Failure } from '../../api/failure.ts';
import { ANNOTATIONS, FINALIZERS, type ImageSite, type ImageSiteStatus, type VMImage } from '../../api/types.ts';
import type { Cloud, CloudContext, Probe } from '../../clouds/cloud.ts';
import type { Format } from '../../images/format.ts';
import { backoffMs, jittered } from '../../runtime/backoff.ts';
import { timestamp } from '../../runtime/clock.ts';
import type { EventNote, ObjectKey, Secret } from '../../stores/store.ts';
import type { Deps } from '../deps.ts';
import { readCa } from '../vmimage/credentials.ts';
import { hashOf } from '../vmimage/identity.ts';

const FINALIZER = FINALIZERS.siteInUse;
const PROBE_INTERVAL_MS = 5 * 60_000;
const PROBE_BACKOFF = { baseMs: 5_000, maxMs: 5 * 60_000 };
const WAITING_LOOK_MS = 60_000;

/** Opens a cloud; `clouds/index.ts` in the program, something of their own in tests. */
export type OpenCloud = (spec: ImageSite['spec'], context: CloudContext) => Promise<Cloud>;

export type SiteDeps = Deps & { openCloud: OpenCloud };

interface Opened {
  cloud: Cloud;
  inputsHash: string;
  probe: Probe;
}

/**
 * Keeps one target cloud open: reads its Secret, probes endpoint and credentials, records who we are there, and guards its
 * deletion. Trouble of the site itself is told here, once; its images wait and wake with it.
 *
 * @returns milliseconds after which to look again without being woken
 */
export async function reconcileImageSite(key: ObjectKey, deps: SiteDeps): Promise<number | undefined> {
  const site = deps.store.get<ImageSite>('ImageSite', key);
  if (site === undefined) {
    close(key.name, deps);
    return undefined;
  }
  const terminating = site.metadata.deletionTimestamp !== undefined;
  const guarded = (site.metadata.finalizers ?? []).includes(FINALIZER);
  if (!guarded && !terminating) {
    await deps.store.addFinalizer(site, FINALIZER);
    return undefined;
  }
  const visit = new Visit(site, deps);
  if (terminating && guarded) {
    const users = usersOf(site, deps);
    if (users.length === 0 || site.spec.abandoned) {
      close(key.name, deps);
      await deps.store.removeFinalizer(site, FINALIZER);
      return undefined;
    }
    // Its images still need it to be cleaned up there, so it goes on working until the last has gone.
    visit.holdDeletion(users);
  }
  if (site.spec.suspend || site.spec.abandoned) {
    close(key.name, deps);
    const reason = site.spec.abandoned ? 'Abandoned' : 'Suspended';
    visit.notReady(
      reason,
      site.spec.abandoned
        ? 'the cloud is gone for good (spec.abandoned): nothing is sent there, and what was registered is forgotten as its images go'
        : 'nothing is sent there while spec.suspend is true',
    );
    return visit.conclude(undefined);
  }
  return visit.conclude(await probe(site, visit, deps));
}

async function probe(site: ImageSite, visit: Visit, deps: SiteDeps): Promise<number | undefined> {
  const { name, uid } = site.metadata;
  const jobKey = `probe/${uid}`;
  const asked = requestOf(site) !== undefined && requestOf(site) !== site.status.lastHandledReconcileAt;
  let secret: Secret | undefined;
  let ca: string | undefined;
  try {
    secret = await secretOf(site, deps);
    ca = await caOf(site, deps);
  } catch (error) {
    return visit.failed(Failure.from(error), 'unreadable');
  }
  const inputsHash = hashOf([site.spec, secret === undefined ? '' : fingerprint(secret), ca]);

  const outcome = deps.jobs.take<Opened>(jobKey, siteKey(name));
  if (outcome !== undefined) {
    if (!outcome.ok) return visit.failed(Failure.from(outcome.error), inputsHash);
    if (outcome.value.inputsHash === inputsHash) return visit.probed(outcome.value);
    await outcome.value.cloud.close();
  }
  const open = deps.sites.get(name);
  const current = open !== undefined && open.inputsHash === inputsHash;
  const dueAt = deps.sites.dueAt(name, inputsHash);
  if (!asked && dueAt > deps.clock.now()) return dueAt - deps.clock.now();
  if (!current && open !== undefined) close(name, deps);
  visit.probing();
  visit.start(() =>
    deps.jobs.start(jobKey, siteKey(name), { view: {} }, async (handle) => {
      const cloud = current ? open.cloud : await deps.openCloud(site.spec, contextOf(site, secret, ca, deps));
      try {
        return {
          cloud,
          inputsHash,
          probe: await cloud.probe(AbortSignal.any([handle.signal, AbortSignal.timeout(60_000)])),
        };
      } catch (error) {
        if (!current) await cloud.close();
        throw error;
      }
    }),
  );
  return undefined;
}

/** One look at a site: collects what the status will say, writes it once. */
class Visit {
  readonly #site: ImageSite;
  readonly #deps: SiteDeps;
  readonly #now: number;
  readonly #status: ImageSiteStatus;
  readonly #starts: (() => void)[] = [];
  readonly #notes: EventNote[] = [];
  #held: string | undefined;

  constructor(site: ImageSite, deps: SiteDeps) {
    this.#site = site;
    this.#deps = deps;
    this.#now = deps.clock.now();
    this.#status = structuredClone(site.status);
    this.#status.observedGeneration = site.metadata.generation;
    const request = requestOf(site);
    if (request !== undefined) this.#status.lastHandledReconcileAt = request;
  }

  start(begin: () => void): void {
    this.#starts.push(begin);
  }

  holdDeletion(users: readonly string[]): void {
    const shown = users.slice(0, 5).join(', ') + (users.length > 5 ? ` and ${users.length - 5} more` : '');
    this.#held = `deletion waits for the VMImages that are registered here: ${shown}; delete them or take the site out of their spec.sites, or set spec.abandoned: true if the cloud is gone for good`;
  }

  probing(): void {
    if (findCondition(this.#status.conditions, READY) === undefined)
      this.#ready(false, 'Probing', 'endpoint and credentials are being tried');
    this.#set(RECONCILING, true, 'Probing', 'endpoint and credentials are being tried');
  }

  probed({ cloud, inputsHash, probe }: Opened): number {
    const { name } = this.#site.metadata;
    const known = this.#status.identity;
    this.#status.lastProbeTime = timestamp(this.#now);
    delete this.#status.attempts;
    const confirmed = this.#site.metadata.annotations?.[ANNOTATIONS.confirmIdentity];
    if (known !== undefined && known !== probe.identity && confirmed !== probe.identity) {
      close(name, this.#deps);
      void cloud.close();
      this.#stalled(
        'IdentityChanged',
        `this site was ${known}, and is ${probe.identity} now: nothing is made, taken as gone or deleted there. If it is meant so, annotate the ImageSite with ${ANNOTATIONS.confirmIdentity}: "${probe.identity}"; else put endpoint and Secret back`,
      );
      return this.#next(inputsHash, PROBE_INTERVAL_MS);
    }
    this.#status.identity = probe.identity;
    this.#status.cloud = {
      name: kindOf(this.#site),
      ...(probe.version === undefined ? {} : { version: probe.version }),
      details: probe.details,
    };
    this.#deps.sites.set({ name, cloud, identity: probe.identity, inputsHash, formats: this.#formats(cloud) });
    this.#ready(true, 'Probed', probe.identity);
    return this.#next(inputsHash, jittered(PROBE_INTERVAL_MS, this.#deps.clock));
  }

  failed(failure: Failure, inputsHash: string): number {
    close(this.#site.metadata.name, this.#deps);
    if (failure.reason === 'Aborted') return 1000;
    const attempts = (this.#status.attempts ?? 0) + 1;
    this.#status.attempts = attempts;
    const pause =
      failure.failureClass === 'Waiting'
        ? WAITING_LOOK_MS
        : Math.max(failure.retryAfterMs ?? 0, backoffMs(attempts, PROBE_BACKOFF, this.#deps.clock));
    const stalling = failure.failureClass === 'InvalidSpec' || failure.failureClass === 'Unauthorized';
    if (stalling) this.#stalled(failure.reason, failure.message);
    else this.#ready(false, failure.reason, failure.message);
    return this.#next(inputsHash, pause);
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
    await store.applyStatus(this.#site, this.#status);
    for (const begin of this.#starts) begin();
    for (const note of this.#notes) store.event(this.#site, note);
    // The images of a site that has just come or gone look again.
    if (before?.status !== after?.status || sites.takeChange(this.#site.metadata.name)) {
      for (const image of usersAndAskers(this.#site, this.#deps)) this.#deps.wake('VMImage', image);
    }
    return next;
  }

  #next(inputsHash: string, pauseMs: number): number {
    this.#status.nextAttemptTime = timestamp(this.#now + pauseMs);
    this.#deps.sites.schedule(this.#site.metadata.name, inputsHash, this.#now + pauseMs);
    return pauseMs;
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

export function siteKey(name: string): string {
  return `ImageSite/${name}`;
}

/** The site's Secret, in the controller's own namespace. @throws Failure SecretNotFound | InvalidSecret */
async function secretOf(site: ImageSite, deps: Deps): Promise<Secret | undefined> {
  const { spec } = site;
  const reference = (spec.openstack ?? spec.ec2 ?? spec.opennebula)?.secretRef;
  if (reference === undefined) return undefined;
  const { name, namespace = deps.settings.controllerNamespace } = reference;
  if (namespace !== deps.settings.controllerNamespace) {
    throw new Failure(
      'InvalidSecret',
      `spec.${kindOf(site)}.secretRef.namespace: a site's Secret is read from the controller's own namespace, ${deps.settings.controllerNamespace}, not from ${namespace}`,
    );
  }
  const secret = await deps.store.secret({ namespace, name });
  if (secret === undefined)
    throw new Failure(
      'SecretNotFound',
      `spec.${kindOf(site)}.secretRef: there is no Secret ${namespace}/${name}; create it`,
    );
  return secret;
}

/** Certificates that the site's endpoint is trusted by. @throws Failure ConfigMapNotFound | SecretNotFound | InvalidSecret */
async function caOf(site: ImageSite, deps: Deps): Promise<string | undefined> {
  const reference = (site.spec.openstack ?? site.spec.ec2 ?? site.spec.opennebula)?.caRef;
  if (reference === undefined) return undefined;
  return readCa(deps.settings.controllerNamespace, reference, `spec.${kindOf(site)}`, deps);
}

function fingerprint(secret: Secret): string {
  return hashOf(
    Object.fromEntries(Object.entries(secret.data).map(([key, value]) => [key, Buffer.from(value).toString('base64')])),
  );
}

function contextOf(site: ImageSite, secret: Secret | undefined, ca: string | undefined, deps: Deps): CloudContext {
  const log: Logger = deps.log.child({ kind: 'ImageSite', name: site.metadata.name });
  return {
    site: site.metadata.name,
    secret: secret === undefined ? undefined : new Map(Object.entries(secret.data)),
    ...(ca === undefined ? {} : { ca }),
    ...(site.status.identity === undefined ? {} : { knownIdentity: site.status.identity }),
    transfers: deps.transfers,
    log,
    now: () => deps.clock.now(),
  };
}

function kindOf(site: ImageSite): string {
  return (
    (['directory', 'openstack', 'ec2', 'opennebula', 'handler'] as const).find(
      (kind) => site.spec[kind] !== undefined,
    ) ?? 'site'
  );
}

function close(name: string, deps: SiteDeps): void {
  const open = deps.sites.get(name);
  if (open === undefined) return;
  deps.sites.delete(name);
  void open.cloud
    .close()
    .catch((error: unknown) => deps.log.warn({ err: error, site: name }, 'the connection to a site did not close'));
}

/** VMImages that have something registered (or begun) at the site. */
function usersOf(site: ImageSite, deps: Deps): string[] {
  return deps.store
    .list<VMImage>('VMImage')
    .filter(
      (image) =>
        image.status.sites?.some(
          (row) =>
            row.name === site.metadata.name &&
            (row.imageID !== undefined || row.operation !== undefined || (row.previous?.length ?? 0) > 0),
        ) === true,
    )
    .map((image) => `${image.metadata.namespace}/${image.metadata.name}`);
}

function usersAndAskers(site: ImageSite, deps: Deps): string[] {
  const { name } = site.metadata;
  return deps.store
    .list<VMImage>('VMImage')
    .filter(
      (image) =>
        image.spec.siteSelector !== undefined ||
        image.spec.sites?.some((each) => each.name === name) === true ||
        image.status.sites?.some((row) => row.name === name) === true,
    )
    .map((image) => `${image.metadata.namespace}/${image.metadata.name}`);
}

function countsOf(site: ImageSite, deps: Deps): NonNullable<ImageSiteStatus['counts']> {
  const counts = { images: 0, registered: 0, failed: 0 };
  for (const image of deps.store.list<VMImage>('VMImage')) {
    const row = image.status.sites?.find((each) => each.name === site.metadata.name);
    if (row === undefined) continue;
    counts.images++;
    if (row.phase === 'Ready' && row.imageID !== undefined) counts.registered++;
    if (row.phase === 'Failed') counts.failed++;
  }
  return counts;
}

function requestOf(site: ImageSite): string | undefined {
  const { annotations = {} } = site.metadata;
  return annotations[ANNOTATIONS.requestedAt] ?? annotations[ANNOTATIONS.fluxRequestedAt];
}
