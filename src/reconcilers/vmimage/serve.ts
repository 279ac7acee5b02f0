import { Failure } from '../../api/failure.ts';
import { nextLook } from './drift.ts';
import { registrationId } from './identity.ts';
import { isAllowed } from './limits.ts';
import { judgeLook } from './losses.ts';
import {
  begin,
  type OperationResult,
  registrationHashOf,
  type SiteWork,
  startCheck,
  startReactivate,
  startRegister,
  startUpdate,
} from './operations.ts';
import type { SitePart } from './register.ts';
import { mayStillPublish, mayStillServe } from './release.ts';
import { startRetire, startTidy, startTrim } from './removals.ts';
import { awaitedAt, jobKey, lookAgain } from './round.ts';
import { hasCurrent, holds, isOnItsWayOut, isStanding, recordSiteFailure, tell, tellWaiting } from './rows.ts';
import { sendable, tellContent } from './sendable.ts';
import { contradictionOf, formerOf, knowByDeclared, sameAsBytes, serves, type Wanted } from './served.ts';
import { bytesOf, durationMs } from './targets.ts';
import { attend } from './work.ts';

/** What a person at the cloud has to undo is looked at again this often. */
const STANDING_LOOK_MS = 60_000;

/** Decides and begins the one next step that brings this site to serve what is wanted. */
export async function serve(work: SiteWork, wanted: Wanted): Promise<void> {
  const { round, row } = work;
  const { busy, result } = attend(work);
  if (busy) {
    if (
      row.operation?.kind === 'Register' &&
      (isGoing(work) ||
        (row.operation.digest !== undefined && row.operation.digest !== wanted.digest && wanted.digest !== undefined))
    ) {
      // Something else is wanted now, or nothing any more: the upload is cut, and what it left is removed before the next begins.
      round.deps.jobs.leave(jobKey(round, row.name), round.key);
      begin(work, { kind: 'Tidy' });
      lookAgain(round, round.now + 1000);
    } else if (row.operation?.kind === 'Tidy' && round.status.failure !== undefined) {
      // What is wrong with the bytes goes on being told while what they left here is removed.
      tellContent(work, await wanted.content());
    }
    return;
  }
  if (result?.kind === 'Check' && !isWell(work, result)) return;
  if (holds(round, row, work.inputsHash)) return;

  const serving = await serves(row, wanted, round);
  if (serving === 'Yes') return keep(work, wanted, result);
  if (serving === 'Unknown') {
    // Only the bytes can tell whether what is declared now is what is there.
    const content = await wanted.content();
    if (content.step !== 'Ready') return tellContent(work, content);
    if (sameAsBytes(row, wanted.plan, content)) {
      knowByDeclared(row, wanted, content);
      return keep(work, wanted, result);
    }
  }
  if (row.operation?.kind === 'Tidy') return startTidy(work);
  // What was begun here holds the site that is to go, whatever else it would be allowed.
  if (isGoing(work) && row.operation?.kind === 'Register') return keepAway(work);
  if (!isAllowed(work)) return;
  const former = formerOf(row, wanted);
  if (former !== undefined) {
    if (row.operation?.kind === 'Register' || row.operation?.kind === 'Withdraw') {
      // Nothing would name what the upload of another version has left here, once its operation is forgotten.
      if (isOnItsWayOut(row)) row.retired = true;
      begin(work, { kind: 'Tidy' });
      return startTidy(work);
    }
    // From the first request on it may be in service: where this is cut and taken back, it is retired again.
    delete former.retiredAt;
    begin(work, { kind: 'Reactivate', id: former.imageID });
    return startReactivate(work, former.artifacts ?? [], wanted.digest ?? former.digest ?? '', () =>
      mayStillServe(work),
    );
  }
  if (isGoing(work)) return keepAway(work);
  return registerAnew(work, wanted);
}

/**
 * Takes what has ended at this site, and looks after what is there of this generation, while nobody can say where the bytes would
 * come from: a Secret or a CA has gone.
 */
export function lookAfter(work: SiteWork): void {
  const { round, row } = work;
  const { busy, result } = attend(work);
  if (busy || (result?.kind === 'Check' && !isWell(work, result))) return;
  // A failure stands whatever the plan was when it was recorded: without one there is nothing that could have changed.
  if (holds(round, row, row.inputsHash ?? work.inputsHash) || !hasCurrent(row, round.generation)) return;
  maintain(work, result);
}

/** Whether what the look has found may be maintained further. Who asked while it ran is waiting for the next. */
function isWell(work: SiteWork, result: Extract<OperationResult, { kind: 'Check' }>): boolean {
  const { round, row } = work;
  if (judgeLook(work, result)) return true;
  if (awaitedAt(round, row.name) !== undefined) lookAgain(round, round.now + 1000);
  return false;
}

function isGoing({ site }: SiteWork): boolean {
  return site.metadata.deletionTimestamp !== undefined;
}

/** A site that is being deleted takes nothing new: it goes with its last image, and credentials and finalizer would go under an upload. */
function keepAway(work: SiteWork): void {
  const { row } = work;
  if (row.operation !== undefined) {
    // What was begun holds the site; what it left there goes while it can still be reached.
    begin(work, { kind: 'Tidy' });
    return startTidy(work);
  }
  // It stays as altered as it was, whatever else is wanted meanwhile.
  if (row.reason === 'Tampered') return;
  tellWaiting(
    row,
    'SiteNotReady',
    `ImageSite ${row.name} is being deleted and takes nothing new: take it out of spec.sites, or make the site again when it has gone`,
  );
}

/** The image is there, unless the spec says of it what it is not. */
function keep(work: SiteWork, wanted: Wanted, result: OperationResult | undefined): void {
  const { round, row } = work;
  const contradiction = contradictionOf(row, wanted, round);
  if (contradiction === undefined) return maintain(work, result);
  recordSiteFailure(round, row, contradiction, work.inputsHash);
}

/** The image is there: its registration, its predecessors and the cloud's own word are looked after, one thing at a time. */
function maintain(work: SiteWork, result: OperationResult | undefined): void {
  const { round, row, site, registration } = work;
  const { image } = round;
  // Its way out of service was begun and is taken back: how far it came nobody knows, so it is taken for out of service.
  if (isOnItsWayOut(row)) row.retired = true;
  if (row.operation !== undefined && !['Reactivate', 'Update', 'Retire', 'Trim', 'Tidy'].includes(row.operation.kind)) {
    // An upload of something that is no longer wanted was interrupted, perhaps by that way out of service.
    begin(work, { kind: 'Tidy' });
  }
  if (row.operation?.kind === 'Tidy') return startTidy(work);
  if (row.retired === true) {
    // What was allowed when it came may have been edited while it was out of service, or the limits.
    if (!isAllowed(work)) return;
    begin(work, { kind: 'Reactivate', id: row.imageID ?? '' });
    return startReactivate(work, row.artifacts ?? [], row.digest ?? '', () => mayStillServe(work));
  }
  // The row told of other bytes meanwhile, and no look has ended what the last one found: it is Ready after the next at the earliest.
  if (row.lookFound !== undefined && !isStanding(row)) {
    if (result?.kind !== 'Check') return startCheck(work);
    return lookAgain(round, round.now + STANDING_LOOK_MS);
  }
  // (What has been altered is not ours to be brought up to date: that would be told as if it were well. And of what is missing a look
  // decides first: what has gone could never be brought up to date.)
  const mayBeUpdated = row.reason !== 'Tampered' && row.missingSince === undefined;
  const isEdited = row.observedGeneration !== round.generation;
  if (mayBeUpdated && row.registrationHash !== registrationHashOf(registration)) {
    // Drift is put right from a look alone (`judgeLook`). While the site refuses that, its people may hold or alter the image too: a
    // repair that is only tried again would never tell so. What a look has found standing has the next look in its own time.
    const isDrift = row.registrationHash === undefined;
    const isLeft = isDrift && isStanding(row) && !isEdited;
    if (isDrift && !isLeft && result?.kind !== 'Check') return startCheck(work);
    if (!isLeft) {
      if (!isAllowed(work, { isRepair: isDrift })) return;
      begin(work, { kind: 'Update' });
      return startUpdate(work, () => mayStillServe(work));
    }
  }
  row.observedGeneration = round.generation;
  // What the last look found stays told until a look finds it gone.
  const standing = isStanding(row);
  // A look that failed is owed: its failure stays told until another has been made, whenever the next would have been due.
  const isOwed = row.nextAttemptTime !== undefined;
  if (!standing && !isOwed) tell(row, 'Ready');
  const previous = row.previous ?? [];
  // Before any is removed: one that cannot be would keep the others in service for ever.
  // Those that stay after all are retired once more where their removal had begun: some Glances let go of what is active alone, so a
  // removal that was cut may have left one so, and nothing else would look at it again.
  const kind = row.operation?.kind;
  const isTakenBack = kind === 'Retire' || (kind === 'Trim' && isEdited);
  const unretired = previous.filter(
    ({ retiredAt }, n) => retiredAt === undefined || (isTakenBack && n < image.spec.history),
  );
  if (unretired.length > 0) {
    begin(work, { kind: 'Retire' });
    return startRetire(
      work,
      unretired.flatMap((each) => each.artifacts ?? []),
    );
  }
  const excess = previous.slice(image.spec.history);
  if (excess.length > 0) {
    // What the cloud did not let go of (volumes may be clones of it) is asked for again after the next look.
    const refused = kind === 'Trim' ? row.operation?.message : undefined;
    if (refused === undefined || isEdited || result?.kind === 'Check') {
      begin(work, { kind: 'Trim' });
      return startTrim(work, excess);
    }
    if (!standing && !isOwed) tell(row, 'Ready', 'Trim', refused);
  } else delete row.operation;
  const interval = standing ? STANDING_LOOK_MS : durationMs(site.spec.drift?.interval, 30 * 60_000);
  const second =
    row.missingSince === undefined
      ? Number.POSITIVE_INFINITY
      : Date.parse(row.missingSince) + round.deps.settings.lossConfirmMs;
  const next = Math.min(nextLook(round, row, interval), second);
  const isAsked = awaitedAt(round, row.name) !== undefined;
  if (isAsked || (result?.kind !== 'Check' && (isOwed || next <= round.now))) return startCheck(work);
  lookAgain(round, Math.max(next, round.now + 1000));
}

async function registerAnew(work: SiteWork, wanted: Wanted): Promise<void> {
  const { round, row, site } = work;
  const content = await wanted.content();
  if (content.step === 'Failed' && content.stalled && row.operation?.kind === 'Register') {
    // An upload had begun with these bytes (it followed them, or a crash ended it): nothing will come after it.
    begin(work, { kind: 'Tidy' });
    startTidy(work);
  }
  // A metafile that is still on its way names no parts yet.
  if (content.step === 'Failed' || wanted.plan.parts.length === 0) return tellContent(work, content);
  let attempt = row.operation?.kind === 'Register' ? (row.operation.attempt ?? 1) : 1;
  const parts: SitePart[] = [];
  let follows = false;
  for (const part of wanted.plan.parts) {
    const sent = await sendable(work, part, content);
    if (sent === undefined) return;
    follows ||= sent.follows;
    if (sent.bytes.size > (bytesOf(site.spec.maxImageSize) ?? Number.POSITIVE_INFINITY)) {
      const failure = new Failure(
        'TooLarge',
        `${part.field}: the ${part.role.toLowerCase()} has ${sent.bytes.size} bytes, ImageSite ${row.name} takes at most ${site.spec.maxImageSize}`,
      );
      return recordSiteFailure(round, row, failure, work.inputsHash);
    }
    parts.push({
      role: part.role,
      id: '',
      sourceDigest: sent.sourceDigest,
      format: sent.format,
      ...(sent.virtualSize === undefined ? {} : { virtualSize: sent.virtualSize }),
      bytes: sent.bytes,
      ...(sent.recheck === undefined ? {} : { recheck: sent.recheck }),
      transform: sent.transform,
    });
  }
  const digest = wanted.digest ?? parts.find((part) => part.role === 'Disk')?.sourceDigest ?? '';
  // A new digest starts with attempt 1; the attempts of an interrupted one go on.
  if (row.operation?.digest !== digest) attempt = 1;
  for (const part of parts) {
    part.id = registrationId({
      instance: round.deps.settings.instance,
      namespace: round.namespace,
      guid: round.guid,
      role: part.role,
      digest: part.sourceDigest,
      transform: part.transform,
      site: row.name,
      attempt,
    });
  }
  const id = parts.find((part) => part.role === 'Disk')?.id ?? '';
  begin(work, { kind: 'Register', id, digest, attempt });
  startRegister(work, { attempt, parts, mayPublish: () => mayStillPublish(work) }, digest, follows);
}
