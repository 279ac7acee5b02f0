import { READY } from '../../api/conditions.ts';
import { Failure } from '../../api/failure.ts';
import { type ImageSubscription } from '../../api/types.ts';
import type { KeptList } from '../../catalogs/kept.ts';
import { cleanUrl } from '../../sources/url.ts';
import type { ObjectKey } from '../../stores/store.ts';
import type { Deps } from '../deps.ts';
import { STALLING } from '../vmimage/content.ts';
import { attentionOf, countsOf } from './counts.ts';
import { follow } from './follow.ts';
import { imagesOf } from './inventory.ts';
import { FINALIZER, leave } from './leave.ts';
import { beginLook, endLook, type Look, lookAgain, note, told } from './look.ts';
import {
  isAccepted,
  isInForce,
  lastFailure,
  leaveUnanswered,
  readWhenDue,
  takeReading,
  tellPastDate,
  wordsOf,
} from './reading.ts';
import type { Summary } from './summary.ts';
import { conclude, tellImages, type Verdict } from './verdict.ts';

const BROKEN_LOOK_MS = 5 * 60_000;

/**
 * Brings one ImageSubscription a step nearer to its list: takes what a reading has brought, compares the accepted list with the
 * VMImages that there are, starts the next reading when it is due, and writes the status once. A list that cannot be read, or not be
 * accepted, makes and changes nothing but the conditions.
 *
 * @returns milliseconds after which to look again without being woken; undefined when nothing is due
 */
export async function reconcileImageSubscription(key: ObjectKey, deps: Deps): Promise<number | undefined> {
  const subscription = deps.store.get<ImageSubscription>('ImageSubscription', key);
  if (subscription === undefined) return undefined;
  const guarded = (subscription.metadata.finalizers ?? []).includes(FINALIZER);
  const look = beginLook(subscription, deps);
  if (subscription.metadata.deletionTimestamp !== undefined) {
    if (!guarded) return undefined;
    if (await leave(look)) {
      await deps.store.removeFinalizer(subscription, FINALIZER);
      return undefined;
    }
    return write(look);
  }
  if (!guarded) {
    // From here on its images cannot lose their owner before somebody has asked what becomes of them. The change wakes us again.
    await deps.store.addFinalizer(subscription, FINALIZER);
    return undefined;
  }
  if (subscription.spec.suspend) {
    // Conditions stay as they were, as for a VMImage.
    deps.jobs.leaveAll(look.asker);
    return write(look);
  }
  // What a store refused the last time is tried again with each list that is read.
  if (takeReading(look) || look.asked) {
    delete look.memory.followed;
    delete look.memory.unanswered;
    delete look.memory.refused;
  }
  tellPastDate(look);
  const reading = await readWhenDue(look);
  leaveUnanswered(look);
  const kept = await deps.lists.head(look.uid);
  conclude(look, await verdictOf(look, kept, reading === 'Needed'));
  return write(look);
}

async function verdictOf(look: Look, kept: KeptList | undefined, needed: boolean): Promise<Verdict> {
  const { spec } = look.subscription;
  const current = kept !== undefined && isAccepted(kept, look) ? kept : undefined;
  let followed: { summary: Summary; more: boolean } | undefined;
  try {
    followed = current === undefined ? undefined : await follow(look, current, isInForce(look));
  } catch (error) {
    const failure = Failure.from(error);
    if (!STALLING.includes(failure.failureClass)) throw failure;
    lookAgain(look, look.now + BROKEN_LOOK_MS);
    return { state: 'Stalled', reason: failure.reason, message: failure.message };
  }
  if (current !== undefined && followed === undefined) lookAgain(look, look.now);
  if (followed !== undefined) tellSummary(look, followed);
  if (needed || (current !== undefined && followed === undefined)) {
    return { state: 'Going', reason: 'Reading', message: `${cleanUrl(spec.url)} is being read` };
  }
  const failure = lastFailure(look);
  if (current?.distrust !== undefined) {
    const { reason, message } = current.distrust;
    const verdict = { reason, message: `${message}; what becomes of its images, spec.onUntrusted says` };
    warnOnce(look, verdict);
    return { state: 'Stalled', ...verdict };
  }
  if (failure !== undefined) {
    const { reason, message, stalled } = failure;
    return { state: stalled ? 'Stalled' : 'Going', reason, message: `${message}${untouched(look)}` };
  }
  if (followed === undefined) return { state: 'Going', reason: 'Reading', message: 'the list is being read' };
  const { summary, more } = followed;
  if (summary.held !== undefined) {
    warnOnce(look, summary.held);
    return { state: 'Going', ...summary.held };
  }
  const message = [wordsOf(look.status.list ?? {}), ...countsInWords(look)].join('; ');
  return more ? { state: 'Going', reason: 'Applying', message } : { state: 'Ready', reason: 'Followed', message };
}

function tellSummary(look: Look, { summary }: { summary: Summary }): void {
  const { subscription, deps, status } = look;
  const images = imagesOf(subscription, deps.store);
  status.counts = countsOf(images, summary);
  tellImages(look, status.counts);
  const before = new Set((status.attention ?? []).map(({ id, reason }) => `${reason} ${id}`));
  status.attention = attentionOf(images, summary);
  const conflicts = status.attention.filter(({ reason = '' }) => CONFLICTS.includes(reason));
  for (const { id, reason = '', message = '' } of conflicts
    .filter((row) => !before.has(`${row.reason} ${row.id}`))
    .slice(0, 5)) {
    note(look, 'Warning', reason, `entry ${id}: ${message}`);
  }
  if (summary.dueAt !== undefined) lookAgain(look, summary.dueAt);
}

/** What a person is told by an event too, beside the row. */
const CONFLICTS: readonly string[] = ['GuidInUse', 'NameInUse', 'InvalidSpec'];

function warnOnce(look: Look, { reason, message }: { reason: string; message: string }): void {
  if (told(look, READY)?.reason !== reason) note(look, 'Warning', reason, message);
}

/** Why nobody has to worry about the images when a list cannot be had. */
function untouched(look: Look): string {
  const { list, counts } = look.status;
  const images = counts?.images ?? 0;
  if (list === undefined || images === 0) return '';
  const only = isInForce(look) ? '' : ', and no other is made of it';
  return `; the ${images} images of the list accepted before (${wordsOf(list)}) stay as they are${only}`;
}

function countsInWords({ status: { counts = {} } }: Look): string[] {
  const {
    entries = 0,
    selected = 0,
    pendingApproval = 0,
    ready = 0,
    images = 0,
    retired = 0,
    skipped = 0,
    failed = 0,
  } = counts;
  const parts: readonly (readonly [number, string])[] = [
    [pendingApproval, 'waiting for approval'],
    [retired, 'retired'],
    [failed, 'stalled'],
    [skipped, 'entries skipped'],
  ];
  return [
    `${selected} of ${entries} entries chosen`,
    `${ready} of ${images - retired} images in service`,
    ...parts.flatMap(([count, what]) => (count > 0 ? [`${count} ${what}`] : [])),
  ];
}

/** Writes the status once, then starts what was decided. */
async function write(look: Look): Promise<number | undefined> {
  const { subscription, deps, status } = look;
  await deps.store.applyStatus(subscription, status);
  endLook(look);
  for (const start of look.starts) start();
  for (const each of look.notes) {
    deps.store.event(subscription, each);
    deps.metrics.told(subscription.kind, each);
  }
  return look.lookAgainAt === undefined ? undefined : Math.max(0, look.lookAgainAt - deps.clock.now());
}
