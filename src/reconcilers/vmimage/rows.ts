import { type Failure, REASONS, type Reason } from '../../api/failure.ts';
import { clip, timestamp } from '../../api/conditions.ts';
import type { PreviousRegistration, RegisteredArtifact, SiteRow } from '../../api/types.ts';
import type { Role } from '../../images/format.ts';
import { backoffMs } from '../../runtime/backoff.ts';
import { STALLING } from './content.ts';
import { isRoomToPrepare, recordedFor, standsFor } from './room.ts';
import { isAskedOf, isDue, lookAgain, type Round, stamp } from './round.ts';

const SITE_BACKOFF = { baseMs: 5_000, maxMs: 30 * 60_000 };
const WAITING_LOOK_MS = 5 * 60_000;
/** No pause is longer, whatever a cloud asks for. */
const LONGEST_PAUSE_MS = 24 * 3_600_000;
/** Whether the site itself is in trouble, its next probe tells. */
const SITE_LOOK_MS = 10_000;

/** The row of a site, made where it is not there yet. */
export function rowOf(round: Round, name: string): SiteRow {
  const row = round.status.sites.find((each) => each.name === name);
  if (row !== undefined) return row;
  const fresh: SiteRow = { name };
  round.status.sites.push(fresh);
  return fresh;
}

/** The row of a site, whichever controller's it is. */
export function seenRow(round: Round, name: string): SiteRow | undefined {
  return [...round.status.sites, ...round.others].find((each) => each.name === name);
}

/** Whether the site has this generation's image, well or not (held by the cloud, altered, missing at the first look). */
export function hasCurrent(row: SiteRow | undefined, generation: number): boolean {
  return row?.imageID !== undefined && row.observedGeneration === generation;
}

/** Whether what serves may be out of service, or gone, without the row's saying so: a step to that was begun and did not end. */
export function isOnItsWayOut({ imageID, operation }: SiteRow): boolean {
  return imageID !== undefined && (operation?.kind === 'Withdraw' || operation?.kind === 'Delete');
}

export function dropRow(round: Round, row: SiteRow): void {
  round.status.sites.splice(round.status.sites.indexOf(row), 1);
  round.deps.looks.forget(round.key, row.name);
}

/** Says where the row stands. A reason and message belong to what is in the way; a row that is well has none. */
export function tell(row: SiteRow, phase: string, reason?: string, message?: string): void {
  row.phase = phase;
  if (reason === undefined) delete row.reason;
  else row.reason = reason;
  if (message === undefined) delete row.message;
  else row.message = clip(message);
  delete row.progress;
}

/**
 * Whether the row tells what the last look at the cloud has found. Only another look ends that: a row that forgot it in an outage of
 * its site would be Ready after it, and machines would be made of an image that somebody has altered.
 */
export function isStanding({ phase, missingSince, reason }: SiteRow): boolean {
  return phase === 'Held' || missingSince !== undefined || reason === 'Tampered' || reason === 'Drifted';
}

/** Says what is waited for. What serves stays in its phase; what had failed has not failed for as long as it may come right by itself. */
export function tellWaiting(row: SiteRow, reason: string, message: string): void {
  const stays = row.imageID !== undefined && row.phase !== 'Failed';
  tell(row, stays ? (row.phase ?? 'Pending') : 'Pending', reason, message);
}

/** The spec is another now. What failed with the one before is no answer to it, though the next try may have to wait for the site. */
export function specChanged(row: SiteRow): void {
  if (row.phase !== 'Failed' || row.reason === 'Tampered') return;
  tell(row, 'Pending');
  clearFailure(row);
}

/** Nothing failed any more: the next failure starts its back-off afresh. */
export function clearFailure(row: SiteRow): void {
  delete row.attempts;
  delete row.nextAttemptTime;
  delete row.inputsHash;
}

/** Whether such a failure may be the site's as a whole (its credentials, its endpoint), and not this image's. */
export function isSiteTrouble(reason: string | undefined): boolean {
  if (reason === undefined || !Object.hasOwn(REASONS, reason)) return false;
  return reason === 'NetworkError' || REASONS[reason as Reason] === 'Unauthorized';
}

/**
 * Whether it is the site's for certain, so that the image only waits. Else a token that was refused in the moment in which it was
 * replaced would leave the image Stalled beside a site that is well: nothing changes there that could wake it.
 */
function isOfTheSite(reason: string): boolean {
  return isSiteTrouble(reason) && reason !== 'Forbidden';
}

/** Whether a step failed so that time alone does not mend it: the cloud does not let us, or will not have it. */
export function isRefusal({ failureClass, reason }: Failure): boolean {
  return STALLING.includes(failureClass) && !isOfTheSite(reason);
}

/** Somebody asks for a fresh look: every back-off is void, whether or not the site can be looked at in this round. */
export function askedAgain(row: SiteRow): void {
  // Who asks once more has read that the day's losses are used up.
  if (row.reason === 'LossLimit') delete row.losses;
  // And who asks where losses are only reported wants it back.
  if (row.reason === 'Lost') row.reason = 'LossAccepted';
  // Whoever waits for an answer must not take the old failure for it while the next try waits for the site's first probe. (What has
  // been seen at the cloud is no failed try: it stands until the next look.)
  const isTold = row.phase === 'Failed' || (row.phase === 'Pending' && row.inputsHash !== undefined);
  if (isTold && row.reason !== 'Tampered') tell(row, 'Pending');
  clearFailure(row);
}

/** Remembers a failed step, with what decides when it is tried again. */
export function recordSiteFailure(
  round: Round,
  row: SiteRow,
  failure: Failure,
  inputsHash: string,
  { isLook = false, isRepair = false } = {},
): void {
  if (failure.reason === 'Aborted') return;
  row.inputsHash = recordedFor(round, failure.reason, inputsHash);
  const isStalling = STALLING.includes(failure.failureClass);
  // A look asks for nothing that a change of the image could mend: whatever kept it from being made, it is made again.
  const failureClass = isOfTheSite(failure.reason) || (isLook && isStalling) ? 'Transient' : failure.failureClass;
  // How often a named thing was looked for changes nothing, and would be a write at every look.
  if (failureClass !== 'Waiting') row.attempts = (row.attempts ?? 0) + 1;
  // A look that could not be made takes nothing back of what the last has found, nor does a refused repair of what the cloud holds.
  const stays = (isLook && isStanding(row)) || (isRepair && row.phase === 'Held');
  if (!stays) {
    if (STALLING.includes(failureClass)) tell(row, 'Failed', failure.reason, failure.message);
    else tellWaiting(row, failure.reason, failure.message);
  }
  const { clock } = round.deps;
  // What the cloud refuses today it may take tomorrow (a role is given, a change taken back), and no input would tell of that.
  const pause =
    failureClass === 'Transient' || (isRepair && isStalling)
      ? Math.max(failure.retryAfterMs ?? 0, backoffMs(row.attempts ?? 1, SITE_BACKOFF, clock))
      : failureClass === 'Waiting'
        ? Math.max(failure.retryAfterMs ?? 0, failure.reason === 'SiteNotReady' ? SITE_LOOK_MS : WAITING_LOOK_MS)
        : undefined;
  if (pause === undefined) delete row.nextAttemptTime;
  else row.nextAttemptTime = timestamp(round.now + pause);
}

/**
 * Whether an earlier failure still holds the row. A changed input or a person's request ends the waiting; so does time, for what
 * time can mend.
 */
export function holds(round: Round, row: SiteRow, inputsHash: string): boolean {
  if (isAskedOf(round, row)) askedAgain(row);
  if (row.inputsHash === undefined) return false;
  if (row.reason === 'CacheFull' && isRoomToPrepare(round)) {
    clearFailure(row);
    return false;
  }
  if (!standsFor(round, row.inputsHash, inputsHash, [])) {
    clearFailure(row);
    return false;
  }
  if (row.nextAttemptTime === undefined) return true;
  const next = Math.max(Date.parse(row.nextAttemptTime), round.deps.looks.waitsUntil(round.key, row.name) ?? 0);
  if (isDue(round, next, LONGEST_PAUSE_MS)) return false;
  lookAgain(round, next);
  return true;
}

/**
 * The parts that went into service become the row's; what was in service before becomes the first of `previous`. No id that the
 * row has named is forgotten: what nothing names is never retired and never removed.
 */
export function putInService(round: Round, row: SiteRow, artifacts: RegisteredArtifact[], digest: string): void {
  const ids = new Set(artifacts.map((part) => part.id));
  const before = row.artifacts ?? [];
  const former: PreviousRegistration[] = [...(row.previous ?? [])];
  const stays = row.imageID !== undefined && ids.has(row.imageID);
  if (row.imageID !== undefined && !stays) {
    const { imageID } = row;
    former.unshift({ imageID, ...(row.digest === undefined ? {} : { digest: row.digest }), artifacts: before });
  }
  // What came back into service is no longer among the retired; neither is a kernel that a retired disk once shared with it, or
  // the trimming of that one would take the kernel out of service.
  const previous = former.filter((each) => !ids.has(each.imageID)).map((each) => withoutParts(each, ids));
  // A kernel whose disk stays or comes back without it.
  const named = new Set([...ids, ...previous.flatMap((each) => each.artifacts.map((part) => part.id))]);
  const left = [...before, ...former.flatMap((each) => each.artifacts ?? [])].filter((part) => !named.has(part.id));
  setPrevious(row, [...previous, ...leftOver(left)]);
  row.artifacts = artifacts;
  row.digest = digest;
  const idOf = (role: Role) => artifacts.find((part) => part.role === role)?.id;
  setOrDelete(row, 'imageID', idOf('Disk'));
  setOrDelete(row, 'kernelID', idOf('Kernel'));
  setOrDelete(row, 'ramdiskID', idOf('Ramdisk'));
  row.registeredAt = stamp(round);
  row.lastCheckedTime = stamp(round);
  delete row.retired;
  delete row.missingSince;
  // What was found amiss with this very image, only another look ends: the cloud may hold it as it did before it was out of service.
  if (!stays) delete row.lookFound;
}

/**
 * One that has lost a part this way is not the thing any more that its digest names: brought back as it stands, it would serve without
 * its kernel. What is left of it is found by its bytes where the image is registered anew.
 */
function withoutParts({ digest, ...former }: PreviousRegistration, ids: ReadonlySet<string>) {
  const before = former.artifacts ?? [];
  const artifacts = before.filter((part) => !ids.has(part.id));
  const isWhole = artifacts.length === before.length && digest !== undefined;
  return { ...former, ...(isWhole ? { digest } : {}), artifacts };
}

/** Parts of what is no more a whole. Their place is the last: they are no version to go back to, and trimmed first. */
function leftOver(parts: RegisteredArtifact[]): PreviousRegistration[] {
  const first = parts.find(({ role }) => role === 'Disk') ?? parts[0];
  return first === undefined ? [] : [{ imageID: first.id, artifacts: parts }];
}

/** As many former registrations as the CRD lets a row name; there are more only where the cloud does not let go of them. */
const MOST_PREVIOUS = 16;

/** The oldest that are out of service fall off: they carry our marks, by which the image's deletion finds them. */
export function setPrevious(row: SiteRow, previous: readonly PreviousRegistration[]): void {
  let excess = previous.length - MOST_PREVIOUS;
  const named = previous.toReversed().filter((each) => each.retiredAt === undefined || excess-- <= 0);
  if (named.length === 0) delete row.previous;
  else row.previous = named.toReversed().slice(0, MOST_PREVIOUS);
}

/**
 * Parts of the row's image have gone from the cloud. The others stay named: they are in service until the image is whole again, and
 * where its bytes do not come nothing else would have them removed with it.
 */
export function loseImage(row: SiteRow, gone: readonly string[]): void {
  const left = (row.artifacts ?? []).filter((part) => !gone.includes(part.id));
  clearImage(row);
  setPrevious(row, [...(row.previous ?? []), ...leftOver(left)]);
}

/** The row's image has gone from the cloud: nothing of it is left to name. */
export function clearImage(row: SiteRow): void {
  for (const field of [
    'imageID',
    'kernelID',
    'ramdiskID',
    'digest',
    'artifacts',
    'registeredAt',
    'registrationHash',
    'missingSince',
    'lookFound',
    'retired',
  ] as const) {
    delete row[field];
  }
}

function setOrDelete(row: SiteRow, field: 'imageID' | 'kernelID' | 'ramdiskID', value: string | undefined): void {
  if (value === undefined) delete row[field];
  else row[field] = value;
}
