import { type Algorithm, strongest } from '../../api/digest.ts';
import { Failure } from '../../api/failure.ts';
import { isRemovalConfirmed } from '../../api/removal.ts';
import { requestOf } from '../../api/request.ts';
import type { SiteRow, VMImage } from '../../api/types.ts';
import type { ObjectKey } from '../../stores/store.ts';
import type { Deps } from '../deps.ts';
import { type Content, describeArtifacts, gather, readMetafile, sourceDigestOf, STALLING } from './content.ts';
import { Downloads } from './downloads.ts';
import { type DownloadView } from './download.ts';
import { dateLooks, keepWaiting } from './drift.ts';
import { endOf, withdrawAll } from './end.ts';
import { endHolds, isClosed } from './held.ts';
import { inherit } from './heirs.ts';
import { hashOf } from './identity.ts';
import { clear, FINALIZER, finish, holdupOf, leaveUnwanted } from './leave.ts';
import type { SiteWork } from './operations.ts';
import {
  describeFromRows,
  isHeldByNothing,
  isOthersAlone,
  leaveOthersSites,
  othersHoldup,
  ownTargets,
  rowsInView,
} from './others.ts';
import { type MetafilePlan, type Plan, planOf } from './plan.ts';
import { giveUpRoomToPrepare } from './room.ts';
import {
  awaitedAt,
  beginRound,
  endLooks,
  isAskedOf,
  jobKey,
  lookAgain,
  note,
  remember,
  type Round,
  tellHandled,
} from './round.ts';
import { holdsAnything } from './named.ts';
import { askedAgain, dropRow, hasCurrent, rowOf, seenRow, specChanged, tell } from './rows.ts';
import { lookAfter, serve } from './serve.ts';
import type { Wanted } from './served.ts';
import { byAge } from './siblings.ts';
import { type Facts, isReady, summarize } from './summary.ts';
import { bytesOf, type Target, targetsOf } from './targets.ts';
import { openWork } from './work.ts';

/** A Secret that could not be read because the API server did not answer. */
const STORE_LOOK_MS = 10_000;
/** A named thing that is missing wakes its image itself; this is the look in case that is missed. */
const WAITING_LOOK_MS = 5 * 60_000;

/**
 * Brings one VMImage a step nearer to what its spec says. Reads what is, decides the next step of each site, writes the status
 * once, then starts what was decided. Never waits for bytes.
 *
 * @returns milliseconds after which to look again without being woken; undefined when nothing is due
 */
export async function reconcileVMImage(key: ObjectKey, deps: Deps): Promise<number | undefined> {
  const image = deps.store.get<VMImage>('VMImage', key);
  if (image === undefined) return undefined;
  const round = beginRound(image, requestOf(image.metadata.annotations), deps);
  const asked = targetsOf(image, deps.store);
  leaveOthersSites(round);
  if (isOthersAlone(round, asked)) {
    deps.jobs.leaveAll(round.key);
    deps.cache.unpinAll(image.metadata.uid);
    deps.duties.remembered.delete(round.key);
    deps.looks.forget(round.key);
    return undefined;
  }
  endHolds(round, asked);
  if (image.metadata.deletionTimestamp !== undefined) return finalize(round);
  if (!(image.metadata.finalizers ?? []).includes(FINALIZER)) {
    // From here on nothing can be registered without somebody being asked before the object goes. The change wakes us again.
    await deps.store.addFinalizer(image, FINALIZER);
    return undefined;
  }
  return conclude(round, await work(round, asked));
}

async function work(round: Round, asked: readonly Target[]): Promise<Facts> {
  const { image, deps } = round;
  const targets = ownTargets(asked, deps.duties);
  if (targets.length < asked.length && targets.length === 0) describeFromRows(round);
  if (round.asked) {
    // The word is heard in this round alone, so it counts for what can only be done in a later one as well.
    delete round.status.failure;
    for (const row of round.status.sites) if (isAskedOf(round, row)) askedAgain(row);
  }
  const facts = (more: Partial<Facts>): Facts => ({
    image,
    guid: round.guid,
    rows: round.status.sites,
    required: asked.filter((target) => !target.optional).map((target) => target.name),
    optional: asked.filter((target) => target.optional).map((target) => target.name),
    fetched: false,
    disposition: 'Serve',
    ...more,
  });

  inherit(round, targets);
  if (image.spec.suspend) {
    // Nothing that runs may publish any more; partial files stay for the day it is taken up again.
    deps.jobs.leaveAll(round.key);
    deps.cache.unpinAll(image.metadata.uid);
    // Nor may it keep others from the space that it had waited for.
    deps.downloads.leave(round.key);
    giveUpRoomToPrepare(round);
    return facts({ disposition: 'Suspended' });
  }
  if (image.status.observedGeneration !== round.generation) for (const row of round.status.sites) specChanged(row);
  const older = deps.siblings.of(image).find((other) => byAge(other, image) < 0);
  if (older !== undefined) {
    deps.cache.unpinAll(image.metadata.uid);
    const handover = older.metadata.deletionTimestamp !== undefined;
    const message = handover
      ? `VMImage ${older.metadata.name} has the same guid ${round.guid} and is being deleted; its registrations come here when it has gone`
      : `VMImage ${older.metadata.name} has the same guid ${round.guid} and is older: delete it to have its registrations handed over, or give this image a guid of its own`;
    return facts({ trouble: { stalled: !handover, reason: 'GuidInUse', message } });
  }

  const end = endOf(round);
  if (end !== undefined) {
    withdrawAll(round, targets, end);
    return facts({ disposition: end });
  }

  const required = asked.filter((target) => !target.optional);
  const isServed = (target: Target) => isReady(seenRow(round, target.name), round.generation);
  // Where none has to serve, one that may stands for all: what serves now goes last.
  const served = () => (required.length > 0 ? required.every(isServed) : asked.length === 0 || asked.some(isServed));
  const servedHere = () => ownTargets(required, deps.duties).every(isServed);
  const left = new Set(targets);
  const open = (target: Target, plan: { inputsHash: string }): SiteWork | undefined => {
    left.delete(target);
    const row = rowOf(round, target.name);
    if (!isExpelled(round, target, row)) return openWork(round, target, row, plan);
    if (clear(round, target, row, hashOf(['expelled', row.name]))) dropRow(round, row);
    return undefined;
  };
  let wanted: Wanted;
  let content: Content | undefined;
  try {
    wanted = wantedOf(round, await planOf(image, deps), targets, (found) => {
      content = found;
    });
    for (const target of targets) {
      const work = open(target, wanted.plan);
      if (work !== undefined) await serve(work, wanted);
    }
  } catch (error) {
    const failure = Failure.from(error);
    lookAgain(round, round.now + (failure.failureClass === 'Transient' ? STORE_LOOK_MS : WAITING_LOOK_MS));
    // Nobody knows what would be fetched. That is missed only where something has to be: what serves is looked after as ever.
    for (const target of left) {
      const work = open(target, { inputsHash: hashOf(['no plan', round.generation]) });
      if (work !== undefined) lookAfter(work);
    }
    const lacks = ({ name }: Target) => !hasCurrent(seenRow(round, name), round.generation);
    if (failure.failureClass === 'Waiting' && !ownTargets(required, deps.duties).some(lacks)) {
      leaveUnwanted(round, asked, served());
      round.unanswered = isAwaited(round, targets);
      return facts({});
    }
    const stalled = STALLING.includes(failure.failureClass);
    for (const target of targets) {
      if (!lacks(target) || deps.jobs.runs(jobKey(round, target.name))) continue;
      const row = rowOf(round, target.name);
      const phase = row.imageID !== undefined ? row.phase : stalled ? 'Failed' : 'Pending';
      tell(row, phase ?? 'Pending', failure.reason, failure.message);
    }
    round.unanswered = !stalled && isAwaited(round, targets);
    return facts({ trouble: { stalled, reason: failure.reason, message: failure.message } });
  }
  leaveUnwanted(round, asked, served());
  if (content === undefined) {
    // Nobody has asked for the bytes in this round. While a site is at work it does not ask, though it may be sending them, or follow
    // the download that brings them; one that failed will ask again.
    const atWork = targets.some((target) => deps.jobs.runs(jobKey(round, target.name)));
    if (!atWork) deps.cache.unpinAll(image.metadata.uid);
    if (servedHere()) {
      deps.jobs.leaveAll(round.key, (key) => key.startsWith('site/'));
      delete round.status.failure;
    }
  }
  if (content?.step === 'Ready') describeArtifacts(round, wanted.plan.parts, content.blobs);
  const failed = content?.step === 'Failed' ? content : undefined;
  round.unanswered = failed?.stalled !== true && isAwaited(round, targets);
  const download = content?.step === 'Fetching' ? leastFar([...content.views.values()]) : undefined;
  return facts({
    fetched: content?.step === 'Ready',
    ...(failed === undefined
      ? {}
      : { trouble: { stalled: failed.stalled, reason: failed.failure.reason, message: failed.failure.message } }),
    ...(download === undefined ? {} : { download }),
  });
}

/** Whether a look that somebody asked for has yet to end. What has failed is not looked at again: that is the answer. */
function isAwaited(round: Round, targets: readonly Target[]): boolean {
  const { status, generation } = round;
  return status.sites.some(
    (row) =>
      hasCurrent(row, generation) &&
      (row.phase !== 'Failed' || row.reason === 'Tampered') &&
      awaitedAt(round, row.name) !== undefined &&
      targets.some(({ name }) => name === row.name),
  );
}

/** What the sites shall serve. The bytes, and with a metafile even the parts, are asked for only when a site needs them. */
function wantedOf(
  round: Round,
  plan: Plan | MetafilePlan,
  targets: readonly Target[],
  found: (content: Content) => void,
): Wanted {
  const { downloads } = round.deps;
  const known = 'parts' in plan ? plan : undefined;
  const asked = 'parts' in plan ? plan.parts : [plan.metafile];
  downloads.ask(round.key, asked);
  if (known !== undefined) downloads.leave(round.key, asked);
  if (round.asked) for (const part of asked) downloads.forgive(part);
  const disk = known?.parts.find((part) => part.role === 'Disk');
  let gathered: Promise<Content> | undefined;
  const wanted: Wanted = {
    plan: { parts: known?.parts ?? [], inputsHash: plan.inputsHash },
    digest:
      'metafile' in plan
        ? strongest(plan.metafile.declared)
        : disk === undefined
          ? undefined
          : sourceDigestOf(disk, undefined),
    content: () => (gathered ??= bring()),
  };
  async function bring(): Promise<Content> {
    if ('metafile' in plan) {
      const named = await readMetafile(round, plan);
      if ('step' in named) {
        found(named);
        return named;
      }
      wanted.plan = named;
      downloads.ask(round.key, named.parts);
      downloads.leave(round.key, [plan.metafile, ...named.parts]);
    }
    // What an earlier spec asked for is nobody's any more.
    const current = new Set(wanted.plan.parts.map(Downloads.key));
    round.deps.jobs.leaveAll(round.key, (key) => !key.startsWith('fetch/') || current.has(key));
    const content = await gather(round, wanted.plan.parts, plan.inputsHash, {
      ...boundOf(round, targets),
      also: cloudDigests(round, targets),
    });
    found(content);
    return content;
  }
  return wanted;
}

/** The site admits the namespace no longer, or is another place now; something is there, and a person has said that it may go. */
function isExpelled(round: Round, target: Target, row: SiteRow): boolean {
  return isClosed(round, target, row) && holdsAnything(row) && isRemovalConfirmed(round.image, row);
}

/** The smallest bound that any of the sites sets would keep the image from the others, so it is the largest that counts. */
function boundOf(round: Round, targets: readonly Target[]): { maxBytes: number; bound: string } {
  const { maxImageBytes } = round.deps.settings;
  const own = { maxBytes: maxImageBytes, bound: 'that this controller takes at all: publish a smaller image' };
  let largest: { maxBytes: number; bound: string } | undefined;
  for (const { name, site } of targets) {
    const size = site?.spec.maxImageSize;
    const maxBytes = bytesOf(size);
    if (maxBytes === undefined || maxBytes >= maxImageBytes) return own;
    if (maxBytes <= (largest?.maxBytes ?? 0)) continue;
    largest = {
      maxBytes,
      bound: `that ImageSite ${name} takes: raise its spec.maxImageSize (${size}), or publish a smaller image`,
    };
  }
  return largest ?? own;
}

/** Digests that the sites' clouds compute themselves, so that ours is there when theirs comes. */
function cloudDigests(round: Round, targets: readonly Target[]): Algorithm[] {
  const digests = targets.map((target) => round.deps.sites.get(target.name)?.cloud.traits.digest);
  return [...new Set(digests.filter((digest) => digest !== undefined))];
}

async function finalize(round: Round): Promise<number | undefined> {
  const { image, deps } = round;
  if (!(image.metadata.finalizers ?? []).includes(FINALIZER)) return undefined;
  const done = finish(round) && !round.others.some(holdsAnything);
  const holdup = holdupOf(image, round.status.sites) ?? othersHoldup(round);
  const facts: Facts = {
    image,
    guid: round.guid,
    rows: round.status.sites,
    required: [...round.status.sites, ...round.others].map((row) => row.name),
    optional: [],
    fetched: true,
    disposition: 'Deleting',
    ...(holdup === undefined ? {} : { trouble: { stalled: false, reason: 'DeletionHeld', message: holdup } }),
  };
  const next = await conclude(round, facts);
  if (!done || !deps.duties.summarizes) return next;
  // Another controller may have written an operation into its row since: then this is not the end.
  await deps.store.removeFinalizer(image, FINALIZER, isHeldByNothing);
  return undefined;
}

/** Writes the status once, then starts what was decided. */
async function conclude(round: Round, facts: Facts): Promise<number | undefined> {
  const { image, deps, status } = round;
  const before = image.status.conditions?.find((condition) => condition.type === 'Ready');
  tellHandled(round);
  summarize({ ...facts, rows: rowsInView(round, facts) }, status, round.now);
  remember(round);
  keepWaiting(round);
  dateLooks(round);
  const after = status.conditions?.find((condition) => condition.type === 'Ready');
  if (facts.trouble?.stalled === true && deps.duties.summarizes && before?.message !== after?.message)
    note(round, 'Warning', after?.reason ?? 'Failed', after?.message ?? '');
  const due = round.starts.length === 0 ? deps.pace.notBefore(round.key, status, round.now) : undefined;
  if (due === undefined) {
    // Nothing is begun for what has gone meanwhile: nobody would ever remove it.
    if ((await deps.store.applyStatus(image, status, deps.duties.share)) === undefined) return undefined;
    deps.pace.wrote(round.key, status, round.now);
    if (round.request !== undefined) deps.looks.hear(round.key, round.request);
  } else lookAgain(round, due);
  endLooks(round);
  for (const start of round.starts) start();
  for (const each of round.notes) {
    deps.store.event(image, each);
    deps.metrics.told(image.kind, each);
  }
  if (round.lookAgainAt === undefined) return undefined;
  return Math.max(0, round.lookAgainAt - deps.clock.now());
}

function leastFar(views: readonly DownloadView[]): DownloadView | undefined {
  return [...views].sort(
    (a, b) =>
      a.bytes / (a.totalBytes ?? Number.POSITIVE_INFINITY) - b.bytes / (b.totalBytes ?? Number.POSITIVE_INFINITY),
  )[0];
}
