import { timestamp } from '../../api/conditions.ts';
import { Failure, type PlainFailure, REASONS, type Reason } from '../../api/failure.ts';
import type { ListFacts } from '../../catalogs/catalog.ts';
import type { KeptList } from '../../catalogs/kept.ts';
import type { ReadOutcome } from '../../catalogs/reading.ts';
import { backoffMs, jittered } from '../../runtime/backoff.ts';
import { cleanUrl } from '../../sources/url.ts';
import { STALLING } from '../vmimage/content.ts';
import { inputsOf, listSource, trustOf } from './material.ts';
import { isDue } from '../vmimage/round.ts';
import { durationMs } from '../vmimage/targets.ts';
import { type Look, lookAgain, note, stamp, tellCondition, told } from './look.ts';

export const FETCHED = 'Fetched';
export const VERIFIED = 'Verified';

/** Readings side by side: a thousand subscriptions that are new, or due after a long pause, take turns. */
const LANE = { name: 'lists', limit: 4 };
const HOUR_MS = 3_600_000;
const BACKOFF = { baseMs: 30_000, maxMs: 30 * 60_000 };
const WAITING_LOOK_MS = 5 * 60_000;
/** What only the publisher can mend, with another list. */
const OF_THE_PUBLISHER: readonly Reason[] = ['ListExpired', 'ListFromFuture'];
/** Those that came due while the program was down are spread over this time, or a tenth of their interval if that is less. */
const SPREAD_MS = 60_000;

export function readingKey(uid: string): string {
  return `list/${uid}`;
}

/** Takes the outcome of a reading into the status. Whether there was one. */
export function takeReading(look: Look): boolean {
  const { deps, uid, asker, memory, subscription, status } = look;
  const outcome = deps.jobs.take<ReadOutcome>(readingKey(uid), asker);
  if (outcome === undefined) return false;
  const failed = outcome.ok ? undefined : Failure.from(outcome.error);
  if (failed?.reason === 'Aborted') return false;
  look.answers = memory.readFor;
  // What was judged by trust that has been taken away meanwhile is applied only when it has been judged anew.
  const doubtful = isDoubtful(look);
  look.judged = memory.inputs === inputsOf(subscription, deps.store);
  const { format } = subscription.spec;
  if (!outcome.ok) {
    const failure = Failure.from(outcome.error);
    deps.metrics.listRead(format, failure.reason);
    refused(look, failure, 'Fetch');
    // It ended before anything was judged: a ConfigMap of the new trust is missing, for instance.
    if (doubtful && status.list !== undefined)
      tellCondition(
        look,
        VERIFIED,
        'Unknown',
        failure.reason,
        `the accepted list is not judged anew: ${failure.message}`,
      );
    return true;
  }
  const { value } = outcome;
  deps.lists.set(uid, value.kept);
  if (value.kind === 'Accepted') {
    deps.metrics.listRead(format, value.fresh ? 'Accepted' : 'Unchanged');
    accepted(look, value.kept, value.fresh);
    return true;
  }
  const failure = Failure.fromPlain(value.failure);
  deps.metrics.listRead(format, failure.reason);
  refused(look, failure, value.stage);
  if (value.stage === 'Fetch' && value.kept !== undefined) tellKept(look, value.kept, value.doubt);
  return true;
}

/** Where no list could be fetched, what is verified or not is the accepted one. */
function tellKept(look: Look, kept: KeptList, doubt: PlainFailure | undefined): void {
  const fault = kept.distrust ?? doubt;
  if (fault !== undefined) {
    tellCondition(look, VERIFIED, false, fault.reason, `the accepted list: ${fault.message}`);
  } else if (isAccepted(kept, look) && !isPastDate(look)) {
    tellCondition(look, VERIFIED, true, VERIFIED, wordsOf(look.status.list ?? {}));
  }
}

function isPastDate({ status: { list }, now }: Look): boolean {
  return list?.expiresAt !== undefined && Date.parse(list.expiresAt) <= now;
}

/**
 * The accepted list ends at its date also where its origin cannot be reached then, and nothing new comes of it. After a good look the
 * next one is due at that date, and tells.
 */
export function tellPastDate(look: Look): void {
  const { expiresAt } = look.status.list ?? {};
  if (expiresAt === undefined || look.status.attempts === undefined) return;
  if (told(look, VERIFIED)?.status === 'False') return;
  if (!isPastDate(look)) {
    lookAgain(look, Date.parse(expiresAt));
    return;
  }
  const message = `the accepted list expired at ${expiresAt}: its publisher must sign a new one`;
  tellCondition(look, VERIFIED, false, 'ListExpired', message);
  note(look, 'Warning', 'ListExpired', message);
}

/**
 * Whether VMImages may be made and changed after the accepted list: while it holds, and what was served last was no other than it should
 * be. Else they may only go, as list and subscription say.
 */
export function isInForce(look: Look): boolean {
  return told(look, VERIFIED)?.status === 'True' && !isPastDate(look);
}

function accepted(look: Look, kept: KeptList, fresh: boolean): void {
  const { status, subscription, deps } = look;
  const { list, warnings } = kept;
  status.lastCheckedTime = stamp(look);
  delete status.attempts;
  status.nextAttemptTime = timestamp(look.now + jittered(durationMs(subscription.spec.interval, HOUR_MS), deps.clock));
  status.list = factsOf(list, kept);
  const words = wordsOf(status.list);
  tellCondition(look, FETCHED, true, FETCHED, `${kept.url} was read`);
  tellCondition(look, VERIFIED, true, VERIFIED, words);
  if (!fresh) return;
  note(look, 'Normal', 'ListAccepted', words);
  for (const warning of warnings.slice(0, 4)) note(look, 'Warning', 'ListWarning', warning);
  look.log.info({ version: list.version, digest: list.digest, warnings }, `list accepted: ${words}`);
}

function refused(look: Look, failure: Failure, stage: 'Fetch' | 'Verify'): void {
  const { status, subscription, deps, log } = look;
  const { reason, message, failureClass } = failure;
  const attempts = (status.attempts ?? 0) + 1;
  status.attempts = attempts;
  const interval = durationMs(subscription.spec.interval, HOUR_MS);
  const pause =
    failureClass === 'Transient'
      ? Math.min(interval, Math.max(failure.retryAfterMs ?? 0, backoffMs(attempts, BACKOFF, deps.clock)))
      : failureClass === 'Waiting' && !OF_THE_PUBLISHER.includes(reason)
        ? Math.min(interval, WAITING_LOOK_MS)
        : jittered(interval, deps.clock);
  status.nextAttemptTime = timestamp(look.now + pause);
  const before = told(look, stage === 'Fetch' ? FETCHED : VERIFIED);
  if (stage === 'Fetch') {
    tellCondition(look, FETCHED, false, reason, message);
    if (told(look, VERIFIED) === undefined)
      tellCondition(look, VERIFIED, 'Unknown', 'NotFetched', 'the list was not fetched yet');
  } else {
    tellCondition(look, FETCHED, true, FETCHED, `${cleanUrl(subscription.spec.url)} was read`);
    tellCondition(look, VERIFIED, false, reason, message);
  }
  if (before?.reason !== reason || before.status !== 'False') {
    note(look, 'Warning', reason, message);
    log.warn({ reason, err: failure.cause, attempts }, `list not accepted: ${message}`);
  }
}

/** The failure that the last reading ended in, as the conditions keep it; with what is wrong with the accepted list beside it. */
export function lastFailure(look: Look): { reason: string; message: string; stalled: boolean } | undefined {
  const failed = [FETCHED, VERIFIED].flatMap((type) => {
    const condition = told(look, type);
    return condition?.status === 'False' ? [condition] : [];
  });
  const [first] = failed;
  if (first === undefined) return undefined;
  const { reason } = first;
  const failureClass = Object.hasOwn(REASONS, reason) ? REASONS[reason as Reason] : 'Transient';
  const message = failed.map((condition) => condition.message).join('; ');
  return { reason, message, stalled: STALLING.includes(failureClass) };
}

/**
 * Starts a reading when one is due. `Needed`: what the images are compared with is not there, or no longer what the spec speaks of;
 * `Periodic`: only to see whether there is a new list.
 */
export async function readWhenDue(look: Look): Promise<'Needed' | 'Periodic' | 'Runs' | undefined> {
  const { deps, uid, memory, asker, subscription } = look;
  const key = readingKey(uid);
  const inputs = inputsOf(subscription, deps.store);
  const kept = await deps.lists.head(uid);
  if (isOutdated(look, kept, inputs)) doubt(look);
  const need = needOf(look, kept);
  if (deps.jobs.runs(key)) {
    if (memory.inputs === inputs) return need === 'Needed' ? 'Needed' : 'Runs';
    // What runs was begun with what counts no longer; it ends, and wakes us for the next.
    deps.jobs.leave(key, asker);
    return 'Needed';
  }
  const dueAt = need === 'Needed' || isAwaited(look) ? look.now : dateOfNext(look);
  if (dueAt > look.now) {
    memory.inputs ??= inputs;
    lookAgain(look, dueAt);
    return undefined;
  }
  memory.inputs = inputs;
  look.starts.push(() => {
    if (look.request !== undefined) memory.readFor = look.request;
    deps.jobs.start(key, asker, { lane: LANE, view: {} }, ({ signal }) => read(look, inputs, signal));
  });
  return need ?? 'Periodic';
}

/** Whether a reading that somebody asked for has yet to end. */
function isAwaited({ request, handledBefore, memory, answers = memory.answered }: Look): boolean {
  return request !== undefined && request !== handledBefore && request !== answers;
}

/** Whether the kept list was read, or last judged, with something else than what counts now. */
function isOutdated({ memory, subscription, generation }: Look, kept: KeptList | undefined, inputs: string): boolean {
  if (memory.inputs !== undefined) return memory.inputs !== inputs;
  // The first look after a start: a keyring or a bundle may have changed while nobody looked.
  return kept?.inputs === undefined ? subscription.status.observedGeneration !== generation : kept.inputs !== inputs;
}

/** Whether the kept list has yet to be judged with what counts now. */
function isDoubtful({ memory, judged }: Look): boolean {
  return memory.doubtful === true && !judged;
}

function doubt(look: Look): void {
  look.memory.doubtful = true;
  look.judged = false;
}

function needOf(look: Look, kept: KeptList | undefined): 'Needed' | undefined {
  if (isDoubtful(look)) return 'Needed';
  // A look that failed has its own date; nothing is gained by coming before it.
  const lost = kept === undefined || !isAccepted(kept, look);
  return lost && look.status.attempts === undefined ? 'Needed' : undefined;
}

/**
 * Whether the kept list is what images may be compared with: that of the place which the spec names, and the one which the status says
 * was accepted last. Another one is left of the time before another controller followed the list, or of a backup: it would bring
 * old images back.
 */
export function isAccepted({ url, list }: KeptList, look: Look): boolean {
  const { status, subscription } = look;
  const { spec } = subscription;
  if (isDoubtful(look) || url !== cleanUrl(spec.url) || list.format !== spec.format) return false;
  return status.list?.digest === undefined || status.list.digest === list.digest;
}

function dateOfNext(look: Look): number {
  const { status, memory, subscription, deps, now } = look;
  const interval = durationMs(subscription.spec.interval, HOUR_MS);
  const last = status.lastCheckedTime === undefined ? 0 : Date.parse(status.lastCheckedTime);
  const planned = status.nextAttemptTime === undefined ? 0 : Date.parse(status.nextAttemptTime);
  let dueAt = planned;
  // Only after a good look: what failed has a date of its own, and none of these would be over by looking.
  if (status.attempts === undefined) {
    // An interval that was made shorter counts from now on.
    dueAt = Math.min(planned, last + 1.1 * interval);
    const expiresAt = status.list?.expiresAt === undefined ? Infinity : Date.parse(status.list.expiresAt);
    // The list says when it has to be looked at again: then it is told that it is past its date, or there is a new one.
    if (expiresAt < dueAt) dueAt = Math.max(expiresAt, last) + 1000;
  }
  if (isDue(look, dueAt, 1.1 * interval)) dueAt = Math.min(dueAt, now);
  if (memory.inputs === undefined && dueAt <= now) {
    memory.spreadUntil ??= now + Math.round(Math.min(SPREAD_MS, interval / 10) * deps.clock.random());
  }
  return Math.max(dueAt, memory.spreadUntil ?? 0);
}

async function read({ subscription, deps, uid }: Look, inputs: string, signal: AbortSignal): Promise<ReadOutcome> {
  const { spec, status } = subscription;
  const { format, rollback } = spec;
  if (format === 'OCI') {
    throw new Failure('NotSupported', 'spec.format: tags of a repository (OCI) are not followed by this version');
  }
  const source = await listSource(subscription, deps);
  const trust = await trustOf(subscription, deps);
  const accepted = status.list?.digest === undefined ? undefined : status.list;
  const [at, folder] = [deps.clock.now(), deps.lists.folder(uid)];
  const task = { format, source, trust, at, folder, accepted, rollback, inputs };
  return deps.catalogs.read(task, signal);
}

/** Who has asked is answered by what comes of a reading: till that has ended, the conditions tell of the one before. */
export function leaveUnanswered(look: Look): void {
  const { status, handledBefore } = look;
  if (!isAwaited(look)) return;
  if (handledBefore === undefined) delete status.lastHandledReconcileAt;
  else status.lastHandledReconcileAt = handledBefore;
}

function factsOf(list: ListFacts, kept: KeptList): NonNullable<Look['status']['list']> {
  const { identity, title, version, digest, createdAt, expiresAt, signer } = list;
  return {
    ...(identity === undefined ? {} : { identity }),
    ...(title === undefined ? {} : { title }),
    ...(version === undefined ? {} : { version }),
    digest,
    ...(createdAt === undefined ? {} : { createdAt }),
    ...(expiresAt === undefined ? {} : { expiresAt }),
    ...(signer === undefined ? {} : { endorser: signer.subject ?? signer.name, fingerprint: signer.fingerprint }),
    url: kept.url,
    format: list.format,
    acceptedTime: kept.acceptedAt,
    ...(kept.warnings.length === 0 ? {} : { warnings: kept.warnings.slice(0, 8).map((each) => each.slice(0, 1024)) }),
  };
}

/** `version 20141029 of 2014-10-29T00:00:00Z, signed by /DC=…`. */
export function wordsOf({ version, createdAt, endorser }: NonNullable<Look['status']['list']>): string {
  const words = [
    ...(version === undefined ? [] : [`version ${version}`]),
    ...(createdAt === undefined ? [] : [`of ${createdAt}`]),
  ];
  const by = endorser === undefined ? 'not signed as a whole' : `signed by ${endorser}`;
  return [...(words.length === 0 ? [] : [words.join(' ')]), by].join(', ');
}
