import { isDeepStrictEqual } from 'node:util';
import { Failure } from '../../api/failure.ts';
import { requestOf } from '../../api/request.ts';
import { ANNOTATIONS, FINALIZERS, type ImageSite } from '../../api/types.ts';
import type { CloudContext } from '../../clouds/cloud.ts';
import type { ObjectKey, Secret } from '../../stores/store.ts';
import { forResource } from '../../telemetry/log.ts';
import type { Deps } from '../deps.ts';
import { overlap } from './claims.ts';
import { hashOf } from '../vmimage/identity.ts';
import { close, leave, type Opened, type SiteDeps, siteKey } from './opened.ts';
import { caOf, fingerprint, secretOf } from './secret.ts';
import { usersOf } from './users.ts';
import { Visit } from './visit.ts';

const FINALIZER = FINALIZERS.siteInUse;

/**
 * Keeps one target cloud open: reads its Secret, probes endpoint and credentials, records who we are there, and guards its
 * deletion. Trouble of the site itself is told here, once; its images wait and wake with it.
 *
 * @returns milliseconds after which to look again without being woken
 */
export async function reconcileImageSite(key: ObjectKey, deps: SiteDeps): Promise<number | undefined> {
  const site = deps.store.get<ImageSite>('ImageSite', key);
  if (site === undefined) {
    leave(key.name, deps);
    deps.sites.forget(key.name);
    return undefined;
  }
  const terminating = site.metadata.deletionTimestamp !== undefined;
  const guarded = (site.metadata.finalizers ?? []).includes(FINALIZER);
  if (!deps.duties.serves(key.name)) {
    // Another controller's, or nobody's: it is neither probed nor opened, but one that nobody needs may go.
    close(key.name, deps);
    deps.sites.forget(key.name);
    await leaveToOthers(site, deps);
    if (terminating && guarded && deps.duties.summarizes && usersOf(site, deps).length === 0)
      await deps.store.removeFinalizer(site, FINALIZER);
    return undefined;
  }
  if (!guarded && !terminating) {
    await deps.store.addFinalizer(site, FINALIZER);
    return undefined;
  }
  const visit = new Visit(site, deps);
  if (terminating && guarded) {
    const users = usersOf(site, deps);
    if (users.length === 0 || site.spec.abandoned) {
      leave(key.name, deps);
      await deps.store.removeFinalizer(site, FINALIZER);
      return undefined;
    }
    // Its images still need it to be cleaned up there, so it goes on working until the last has gone.
    visit.holdDeletion(users);
  }
  if (site.spec.suspend || site.spec.abandoned) {
    leave(key.name, deps);
    // The day it is taken up again, it is probed at once.
    deps.sites.forget(key.name);
    const reason = site.spec.abandoned ? 'Abandoned' : 'Suspended';
    visit.notReady(
      reason,
      site.spec.abandoned
        ? 'the cloud is gone for good (spec.abandoned): nothing is sent there, and what was registered is forgotten as its images go'
        : 'nothing is sent there while spec.suspend is true',
    );
    return visit.conclude(undefined);
  }
  const waitMs = deps.duties.claims?.waitMs(site) ?? 0;
  if (waitMs > 0) {
    visit.takingOver();
    return visit.conclude(waitMs);
  }
  return visit.conclude(await probe(site, visit, deps));
}

/** Says where another took over what this controller would serve; takes its name away where it has served under another selector. */
async function leaveToOthers(site: ImageSite, { duties: { claims }, store, metrics }: SiteDeps): Promise<void> {
  if (claims === undefined) return;
  const taken = claims.takenBy(site);
  if (taken !== undefined) {
    const note = { type: 'Warning', reason: 'SelectorsOverlap', message: overlap(claims.name, taken) } as const;
    store.event(site, note);
    metrics.told(site.kind, note);
  }
  if (!claims.isLeftOver(site)) return;
  const { controller: _ours, ...status } = site.status;
  await store.applyStatus(site, status);
}

/** What a probe was begun for. */
interface ProbeView {
  ticket: string;
  request: string | undefined;
}

async function probe(site: ImageSite, visit: Visit, deps: SiteDeps): Promise<number | undefined> {
  const { name, uid } = site.metadata;
  const jobKey = `probe/${uid}`;
  const request = requestOf(site.metadata.annotations);
  const asked = request !== undefined && request !== site.status.lastHandledReconcileAt;
  let secret: Secret | undefined;
  let ca: string | undefined;
  try {
    secret = await secretOf(site, deps);
    ca = await caOf(site, deps);
  } catch (error) {
    const failure = Failure.from(error);
    // The API server did not answer. That says nothing of the site, and closing it would cut the uploads that run there.
    if (failure.failureClass === 'Transient' || failure.reason === 'Unauthorized') throw failure;
    return visit.failed(failure);
  }
  // Only what the connection is made of: an edit of limits or of drift must not cut the uploads that run.
  const { directory, openstack, ec2, opennebula, handler } = site.spec;
  const inputsHash = hashOf([
    directory,
    openstack,
    ec2,
    opennebula,
    handler,
    secret === undefined ? '' : fingerprint(secret),
    ca,
  ]);
  visit.ticket = hashOf([uid, inputsHash, site.metadata.annotations?.[ANNOTATIONS.confirmIdentity]]);

  // An object that had this name before is nobody's concern any more.
  deps.jobs.leaveAll(siteKey(name), (key) => key === jobKey);
  const purpose: ProbeView = { ticket: visit.ticket, request };
  const begun = deps.jobs.view<ProbeView>(jobKey);
  if (begun !== undefined && !isDeepStrictEqual(begun, purpose)) {
    // It began with other credentials, or before somebody asked: its answer, which may be a minute away, says nothing of what is now.
    deps.jobs.leave(jobKey, siteKey(name));
    deps.sites.suspect(name);
  }
  const outcome = deps.jobs.take<Opened>(jobKey, siteKey(name));
  if (outcome !== undefined)
    return outcome.ok ? visit.probed(outcome.value) : visit.failed(Failure.from(outcome.error));
  const open = deps.sites.get(name);
  const current = open !== undefined && open.inputsHash === inputsHash;
  if (current) visit.keep(open);
  const dueAt = deps.sites.dueAt(name, visit.ticket);
  if (!asked && dueAt > deps.clock.now()) return dueAt - deps.clock.now();
  if (!current && open !== undefined) close(name, deps);
  visit.probing(!asked && (current || deps.sites.isProbed(name, visit.ticket)));
  // Else the site could go while it is probed, and the connection would have no owner.
  const discard = ({ cloud }: Opened) => {
    if (!current) void cloud.close();
  };
  visit.start(() =>
    deps.jobs.start(jobKey, siteKey(name), { view: purpose, discard }, async (handle) => {
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

function contextOf(site: ImageSite, secret: Secret | undefined, ca: string | undefined, deps: Deps): CloudContext {
  const log = forResource(deps.log, { kind: site.kind, name: site.metadata.name });
  // A person's word on what the site is counts for the cloud as well, which guards its own identity.
  const known = site.metadata.annotations?.[ANNOTATIONS.confirmIdentity] ?? site.status.identity;
  return {
    site: site.metadata.name,
    secret: secret === undefined ? undefined : new Map(Object.entries(secret.data)),
    ...(ca === undefined ? {} : { ca }),
    ...(known === undefined ? {} : { knownIdentity: known }),
    transfers: deps.transfers,
    log,
    now: () => deps.clock.now(),
  };
}
