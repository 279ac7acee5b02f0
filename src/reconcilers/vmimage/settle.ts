import { clip } from '../../api/conditions.ts';
import { Failure } from '../../api/failure.ts';
import type { SiteRow } from '../../api/types.ts';
import type { CloudRecord } from '../../clouds/cloud.ts';
import type { Outcome } from '../../runtime/jobs.ts';
import { type OperationResult, type OperationView, type SiteWork } from './operations.ts';
import { nextAttempt } from './identity.ts';
import { tellMissing } from './losses.ts';
import { holdsAnything } from './named.ts';
import { note, type Round, stamp } from './round.ts';
import {
  clearFailure,
  clearImage,
  loseImage,
  isOnItsWayOut,
  isSiteTrouble,
  putInService,
  recordSiteFailure,
  setPrevious,
} from './rows.ts';

/** Sixteen ids in one try (`nextAttempt`). Glance never gives a deleted id again, but so many burnt in a row are not bad luck. */
const LAST_ATTEMPT = 2 ** 16 - 1;

/** Takes the outcome of the site's job into the row. */
export function settle(
  work: SiteWork,
  outcome: Outcome<OperationResult>,
  view: OperationView | undefined,
): OperationResult | undefined {
  if (!outcome.ok) {
    settleFailure(work, Failure.from(outcome.error), view);
    return undefined;
  }
  const { round, row } = work;
  const result = outcome.value;
  endFailure(row, result);
  if (result.kind !== 'Check') delete row.operation;
  switch (result.kind) {
    case 'Register': {
      const before = row.imageID;
      putInService(round, row, result.registered.parts, result.digest);
      row.siteIdentity = work.connection.identity;
      row.registrationHash = result.registrationHash;
      remember(row, result.registered.forgotten);
      const verb = result.registered.adopted ? 'found again' : 'registered';
      const place = before === undefined || before === row.imageID ? '' : `, in place of ${before}`;
      note(round, 'Normal', 'Registered', `${verb} at ${row.name} as ${row.imageID}${place}`);
      break;
    }
    case 'Reactivate':
      putInService(round, row, result.artifacts, result.digest);
      row.registrationHash = result.registrationHash;
      note(round, 'Normal', 'Reactivated', `back in service at ${row.name} as ${row.imageID}`);
      break;
    case 'Update':
      row.registrationHash = result.registrationHash;
      row.lastCheckedTime = stamp(round);
      note(round, 'Normal', 'Updated', `the registration ${row.imageID} at ${row.name} is as the spec says`);
      break;
    case 'Retire':
      noteRetired(round, row);
      note(round, 'Normal', 'Retired', `retired at ${row.name}: ${result.ids.join(', ')}`);
      break;
    case 'Withdraw':
      if (row.imageID !== undefined) row.retired = true;
      remember(row, result.forgotten);
      noteRetired(round, row);
      if (result.ids.length > 0)
        note(round, 'Normal', 'Withdrawn', `out of service at ${row.name}: ${result.ids.join(', ')}`);
      break;
    case 'Trim': {
      const gone = new Set(result.ids);
      const previous = (row.previous ?? []).filter(
        (each) => !(each.artifacts ?? []).every((part) => gone.has(part.id)),
      );
      setPrevious(row, previous);
      if (result.ids.length > 0) note(round, 'Normal', 'Removed', `removed from ${row.name}: ${result.ids.join(', ')}`);
      if (result.failed !== undefined) keepRefused(work, result.failed);
      break;
    }
    case 'Delete':
      clearImage(row);
      delete row.previous;
      if (result.ids.length > 0) note(round, 'Normal', 'Removed', `removed from ${row.name}: ${result.ids.join(', ')}`);
      break;
    case 'Tidy':
      remember(row, result.forgotten);
      noteReturned(row, result.active);
      if (result.failed !== undefined) leaveRefused(work, result.failed);
      break;
    case 'Check':
      break;
  }
  return result;
}

/** What has ended well ends the failure before it, and with it the back-off. */
function endFailure(row: SiteRow, { kind }: OperationResult): void {
  // To clear up around what serves is no look at it: one that failed before is owed as much as ever.
  const isServing = row.imageID !== undefined && row.retired !== true;
  if (isServing && row.nextAttemptTime !== undefined && ['Retire', 'Trim', 'Tidy'].includes(kind)) return;
  const { attempts } = row;
  clearFailure(row);
  // The look before a repair is no repair: one that is refused again and again would be tried every few seconds.
  if (kind === 'Check' && row.imageID !== undefined && row.registrationHash === undefined && attempts !== undefined)
    row.attempts = attempts;
}

/** A former version that cannot be removed is out of service already: it is told, and keeps nothing from going on. */
function keepRefused(work: SiteWork, failure: Failure): void {
  const { round, row } = work;
  const message = `a registration beyond spec.history cannot be removed from ${row.name}, and is asked for again after the next look: ${failure.message}`;
  round.log.info({ site: row.name, operation: 'Trim', reason: failure.reason, err: failure.cause }, failure.message);
  row.operation = { kind: 'Trim', startedAt: stamp(round), message: clip(message) };
  note(round, 'Warning', failure.reason, message);
  suspectSite(work, failure);
}

/** Nor does what an upload has left and what cannot be removed: what serves goes on, and an upload that comes finds it again. */
function leaveRefused(work: SiteWork, failure: Failure): void {
  const { round, row } = work;
  const message = `what an interrupted upload left cannot be removed from ${row.name}, and stays until the next upload or the image's deletion: ${failure.message}`;
  round.log.info({ site: row.name, operation: 'Tidy', reason: failure.reason, err: failure.cause }, failure.message);
  note(round, 'Warning', failure.reason, message);
  suspectSite(work, failure);
}

function noteRetired(round: Round, row: SiteRow): void {
  setPrevious(
    row,
    (row.previous ?? []).map((each) => (each.retiredAt === undefined ? { ...each, retiredAt: stamp(round) } : each)),
  );
}

/** What was retired and is active all the same (an upload that was cut had found it by its bytes) is to be retired once more. */
function noteReturned(row: SiteRow, active: readonly string[]): void {
  const serving = new Set(row.artifacts?.map((part) => part.id));
  const returned = new Set(active.filter((id) => !serving.has(id)));
  for (const each of row.previous ?? []) if (each.artifacts?.some(({ id }) => returned.has(id))) delete each.retiredAt;
}

/**
 * Registrations that a lost state had forgotten come back as what they are: former ones, to be retired like any other. What was sent
 * for them is not proven by us, so they return to service only when they are found by their bytes (`formerOf`).
 */
function remember(row: SiteRow, forgotten: readonly CloudRecord[]): void {
  const parts = forgotten.map((record) => ({ role: record.role, id: record.id, digest: record.sourceDigest }));
  const disks = parts.filter((part) => part.role === 'Disk');
  const former = disks.map((disk) => ({ imageID: disk.id, digest: disk.digest, artifacts: [disk] }));
  // Which disk a kernel belonged to is forgotten too: the last place, where it is trimmed first.
  const boot = parts.filter((part) => part.role !== 'Disk');
  const [first] = boot;
  setPrevious(row, [
    ...(row.previous ?? []),
    ...former,
    ...(first === undefined ? [] : [{ imageID: first.id, artifacts: boot }]),
  ]);
}

function settleFailure(work: SiteWork, failure: Failure, view: OperationView | undefined): void {
  const { round, row } = work;
  if (failure.reason === 'Aborted') return;
  round.log.info(
    { site: row.name, operation: view?.kind, reason: failure.reason, err: failure.cause },
    failure.message,
  );
  if (failure.reason === 'IdTaken' && row.operation !== undefined) {
    const attempt = nextAttempt(row.operation.attempt ?? 1, round.deps.clock);
    delete row.operation.id;
    if (attempt <= LAST_ATTEMPT) {
      // The next attempt is written down before it is made: the id derives from it.
      row.operation.attempt = attempt;
      return;
    }
    // The next try goes another way from the start.
    delete row.operation.attempt;
  }
  // The download fell behind its upload: what comes next is sent from the complete file, and nothing is wrong with the site. Or the
  // bytes are wrong, which the download tells for all sites; a kernel that was sent before the disk may be there all the same.
  if (view?.follows === true && (failure.reason === 'UploadCut' || isVerdictOnBytes(failure))) return;
  if (view?.kind === 'Reactivate' && (failure.failureClass === 'VerificationFailed' || failure.reason === 'Gone')) {
    forgetFormer(row, failure);
    delete row.operation;
    note(round, 'Warning', failure.reason, failure.message);
    return;
  }
  if (view?.kind === 'Update' && failure.reason === 'Gone') {
    // As good as a look that did not find it: the next one decides.
    clearFailure(row);
    tellMissing(round, row, failure.message);
    delete row.operation;
    note(round, 'Warning', failure.reason, failure.message);
    return;
  }
  const isRepair = view?.kind === 'Update';
  recordSiteFailure(round, row, failure, work.inputsHash, { isLook: view?.kind === 'Check', isRepair });
  note(round, 'Warning', failure.reason, failure.message);
  if (row.nextAttemptTime === undefined && !mayBeLeft(row)) delete row.operation;
  suspectSite(work, failure);
}

/**
 * Whether the refused operation is all that tells of something at the site: an upload that was complete when its last step was refused,
 * or what could not be removed. A row that forgot it would hold nothing, and the image's deletion would not even ask the cloud.
 */
function mayBeLeft(row: SiteRow): boolean {
  const { operation: _, ...rest } = row;
  const kind = row.operation?.kind;
  return kind === 'Register' || kind === 'Withdraw' || isOnItsWayOut(row) || !holdsAnything(rest);
}

/** The site itself may be in trouble: it is asked, so that this is told once, there. */
function suspectSite({ round, row }: SiteWork, { reason }: Failure): void {
  if (!isSiteTrouble(reason) && reason !== 'SiteNotReady') return;
  round.deps.sites.suspect(row.name);
  round.deps.wake('ImageSite', row.name);
}

function isVerdictOnBytes({ failureClass, reason }: Failure): boolean {
  return failureClass === 'UnsafeImage' || (failureClass === 'VerificationFailed' && reason !== 'CloudDigestMismatch');
}

/**
 * A retired registration that has gone, or whose bytes are not what they were, cannot come back; it is registered anew. What is still
 * there goes on being named, for it may be in service from a try before.
 */
function forgetFormer(row: SiteRow, { reason }: Failure): void {
  const id = row.operation?.id;
  if (id === row.imageID) {
    // Of several parts nobody knows which: those that are there would else be nobody's.
    const isAlone = (row.artifacts?.length ?? 0) <= 1;
    return loseImage(row, reason === 'Gone' && isAlone && id !== undefined ? [id] : []);
  }
  const previous = row.previous ?? [];
  for (const each of previous) if (each.imageID === id) delete each.digest;
  setPrevious(
    row,
    previous.filter((each) => each.imageID !== id || reason !== 'Gone'),
  );
}
