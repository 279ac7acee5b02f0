import { isRemovalConfirmed } from '../../api/removal.ts';
import { FINALIZERS, type ImageSite, type SiteRow, type VMImage } from '../../api/types.ts';
import { howToConfirm, isElsewhere } from './held.ts';
import { heirOf, isInherited } from './heirs.ts';
import { hashOf } from './identity.ts';
import { begin, type OperationView } from './operations.ts';
import { startDelete, startTidy, startWithdraw } from './removals.ts';
import { giveUpRoomToPrepare } from './room.ts';
import { jobKey, lookAgain, note, type Round } from './round.ts';
import { holdsAnything } from './named.ts';
import { dropRow, holds, tell } from './rows.ts';
import { matchesSelector, notAdmitted, registrationOf, type Target, targetsOf } from './targets.ts';
import { attend, openWork } from './work.ts';

/** Takes the image out of service at a site, and keeps it there: `spec.state: Deactivated`, or an expiry that says so. */
export function withdraw(
  round: Round,
  target: Target,
  row: SiteRow,
  phase: 'Deactivated' | 'Expired',
  inputsHash: string,
): void {
  // Before anything is told of the row: its phase says that this site was looked at.
  const wasTakenOut = isTakenOut(row);
  const isAskable = !wasTakenOut && target.site?.spec.abandoned !== true;
  if (!isAskable && !holdsAnything(row)) return tell(row, phase, phase, NOTHING_HERE);
  const work = openWork(round, target, row, { inputsHash }, 'Leave');
  if (work === undefined) return;
  const { busy, result } = attend(work);
  if (busy) {
    if (row.operation?.kind === 'Register') begin(work, { kind: 'Tidy' });
    if (row.operation?.kind === 'Tidy') round.deps.jobs.leave(jobKey(round, row.name), round.key);
    return;
  }
  if (holds(round, row, work.inputsHash)) return;
  // What an interrupted upload left is retired or removed with the rest, after what serves: where the cloud does not let it be removed,
  // an image with a hole in it would stay in service until a person sees to that.
  const isLeft = row.operation?.kind === 'Register' || row.operation?.kind === 'Tidy';
  if (result?.kind !== 'Withdraw' && (!wasTakenOut || isInService(row) || isLeft)) {
    begin(work, { kind: 'Withdraw' });
    return startWithdraw(work);
  }
  delete row.operation;
  row.observedGeneration = round.generation;
  const ids = row.imageID === undefined ? (row.previous ?? []).map((each) => each.imageID) : [row.imageID];
  tell(row, phase, phase, ids.length === 0 ? NOTHING_HERE : `out of service here: ${ids.join(', ')}`);
}

const NOTHING_HERE = 'nothing is registered here';

/** Whether the site was asked, and what it had of the image taken out of service or removed. */
export function isTakenOut(row: SiteRow): boolean {
  return row.phase === 'Deactivated' || row.phase === 'Expired';
}

/** Whether machines can still be made of any version of the image that the row names. */
export function isInService(row: SiteRow): boolean {
  const current = row.imageID !== undefined && row.retired !== true;
  return current || (row.previous ?? []).some((each) => each.retiredAt === undefined);
}

/** Removes every registration of the image from a site, also what the row does not know of. True when nothing is left there. */
export function clear(round: Round, target: Target, row: SiteRow, inputsHash: string): boolean {
  if (target.site?.spec.abandoned === true) {
    const forgotten = row.imageID ?? (holdsAnything(row) ? 'what was begun' : 'whatever is');
    note(
      round,
      'Warning',
      'Abandoned',
      `ImageSite ${row.name} is abandoned: ${forgotten} there is forgotten, not removed`,
    );
    return true;
  }
  if (holdsAnything(row) && isElsewhere(round, row) && isRemovalConfirmed(round.image, row)) {
    note(
      round,
      'Warning',
      'LeftBehind',
      `${row.imageID ?? 'what was begun'} is left at ${row.siteIdentity}, which ${row.name} is no longer`,
    );
    return true;
  }
  const work = openWork(round, target, row, { inputsHash }, 'Leave');
  if (work === undefined) return false;
  const { busy, result } = attend(work);
  if (busy) {
    if (row.operation?.kind !== 'Delete') {
      round.deps.jobs.leave(`site/${round.image.metadata.uid}/${row.name}`, round.key);
      begin(work, { kind: 'Delete' });
      lookAgain(round, round.now + 500);
    }
    return false;
  }
  if (result?.kind === 'Delete') return true;
  if (holds(round, row, work.inputsHash)) return false;
  begin(work, { kind: 'Delete' });
  startDelete(work);
  return false;
}

/**
 * Rows of sites that the spec does not ask for any more. One that was taken out of `spec.sites` goes as the deletion policy says,
 * once the remaining sites are ready; one that a selector no longer matches stays until a person confirms it, for a changed
 * label is no order to delete.
 */
export function leaveUnwanted(round: Round, targets: readonly Target[], othersReady: boolean): void {
  const wanted = new Set(targets.map((target) => target.name));
  for (const row of [...round.status.sites]) {
    if (wanted.has(row.name)) continue;
    if (!holdsAnything(row)) {
      round.deps.jobs.leave(`site/${round.image.metadata.uid}/${row.name}`, round.key);
      dropRow(round, row);
      continue;
    }
    const isListed = round.image.spec.sites !== undefined;
    const isConfirmed = isRemovalConfirmed(round.image, row);
    if (!isListed && !isConfirmed) {
      const { reason, fact } = whyUnselected(round, row);
      const stays = `${row.imageID ?? 'its registration'} stays until you ${howToConfirm(round, row)}`;
      tell(row, row.phase ?? 'Ready', reason, `${fact}; ${stays}`);
      continue;
    }
    if (!othersReady && !isConfirmed) {
      tell(
        row,
        row.phase ?? 'Ready',
        'WaitsForOthers',
        `taken out of spec.sites: removed when the remaining sites are ready, or at once when you ${howToConfirm(round, row)}`,
      );
      continue;
    }
    if (round.image.spec.deletionPolicy === 'Retain') {
      if (!tidied(round, departing(round, row), row)) continue;
      note(
        round,
        'Normal',
        'Retained',
        `${row.imageID ?? 'what was registered'} stays at ${row.name} (spec.deletionPolicy: Retain) and is no longer looked after`,
      );
      dropRow(round, row);
      continue;
    }
    if (clear(round, departing(round, row), row, hashOf(['removed', row.name]))) dropRow(round, row);
  }
}

/** Why `spec.siteSelector` does not choose the site (any more): not always because of its labels. */
function whyUnselected({ image, deps, namespace }: Round, { name }: SiteRow): { reason: string; fact: string } {
  const site = deps.store.get<ImageSite>('ImageSite', { name });
  const reason = 'ConfirmationRequired';
  if (site === undefined) return { reason, fact: `there is no ImageSite ${name} any more` };
  if (site.metadata.deletionTimestamp !== undefined) return { reason, fact: `ImageSite ${name} is being deleted` };
  if (!matchesSelector(site.metadata.labels ?? {}, image.spec.siteSelector ?? {}))
    return { reason, fact: `spec.siteSelector does not match ImageSite ${name} any more` };
  return { reason: 'NamespaceNotAllowed', fact: notAdmitted(site, namespace) };
}

/**
 * The image is being deleted: work is stopped, registrations go or stay as `deletionPolicy` says (it may be changed even now), or
 * are handed over to a younger image of the same guid. True when nothing holds the image any more.
 */
export function finish(round: Round): boolean {
  const { image, deps } = round;
  const heir = heirOf(image, deps.siblings);
  // Nobody would ever look at, or remove, what was handed over at a site that the heir does not ask for.
  const inherited = new Set(heir === undefined ? [] : targetsOf(heir, deps.store).map((target) => target.name));
  const keepAt = (site: string) =>
    image.spec.deletionPolicy === 'Retain' ? 'Retained' : inherited.has(site) ? 'HandedOver' : undefined;
  // Downloads and conversions are given up at once; what touches a cloud ends first, so that nothing is made behind our back.
  const prefix = `site/${image.metadata.uid}/`;
  deps.jobs.leaveAll(
    round.key,
    (key) =>
      key.startsWith(prefix) &&
      (keepAt(key.slice(prefix.length)) === undefined || deps.jobs.view<OperationView>(key)?.kind === 'Tidy'),
  );
  const kept = round.status.sites.filter((row) => keepAt(row.name) !== undefined);
  if (kept.some((row) => deps.jobs.runs(jobKey(round, row.name)))) {
    lookAgain(round, round.now + 500);
    return false;
  }
  for (const row of [...round.status.sites]) {
    const keep = keepAt(row.name);
    if (keep === undefined) {
      const gone = () => clear(round, departing(round, row), row, hashOf(['deleted', image.metadata.uid]));
      if (!holdsAnything(row) || gone()) dropRow(round, row);
      continue;
    }
    if (keep === 'HandedOver') continue;
    // An heir removes what is half-made when it takes over; here nobody else would.
    if (!tidied(round, departing(round, row), row)) continue;
    letGo(round, row, keep, 'spec.deletionPolicy: Retain');
  }
  // Last, for as long as this image is there its heir waits, and may go before it has taken over.
  if (round.status.sites.every((row) => keepAt(row.name) === 'HandedOver')) {
    if (!round.status.sites.every((row) => isInherited(row, heir))) {
      lookAgain(round, round.now + 500);
      return false;
    }
    const why = `handed over to VMImage ${heir?.metadata.name}, which has the same guid`;
    for (const row of [...round.status.sites]) letGo(round, row, 'HandedOver', why);
  }
  deps.cache.unpinAll(image.metadata.uid);
  giveUpRoomToPrepare(round);
  return round.status.sites.length === 0;
}

function letGo(round: Round, row: SiteRow, reason: 'Retained' | 'HandedOver', why: string): void {
  if (row.imageID !== undefined) note(round, 'Normal', reason, `${row.imageID} stays at ${row.name}: ${why}`);
  dropRow(round, row);
}

/**
 * Whether nothing half-made is left of an upload that was under way when the site was let go of: it is cut and its record removed,
 * or it would be `saving` there for ever. Retain is a way out of a site that cannot be reached, so that does not hold it.
 */
function tidied(round: Round, target: Target, row: SiteRow): boolean {
  const uploads = () => row.operation?.kind === 'Register' || row.operation?.kind === 'Tidy';
  if (!uploads()) return true;
  const work = openWork(round, target, row, { inputsHash: hashOf(['tidied', row.name]) }, 'Leave');
  if (work === undefined) return true;
  const { busy, result } = attend(work);
  if (busy) {
    if (row.operation?.kind === 'Register') {
      round.deps.jobs.leave(`site/${round.image.metadata.uid}/${row.name}`, round.key);
      begin(work, { kind: 'Tidy' });
    }
    return false;
  }
  if (result?.kind === 'Tidy' || !uploads() || holds(round, row, work.inputsHash)) return true;
  begin(work, { kind: 'Tidy' });
  tell(row, 'Deleting', 'Tidy', 'what an interrupted upload left is being removed');
  startTidy(work);
  return false;
}

/** Why the deletion waits, and the ways out. */
export function holdupOf(image: VMImage, rows: readonly SiteRow[]): string | undefined {
  const held = rows.find((row) => row.reason !== undefined && !['Delete', 'Tidy', 'Busy'].includes(row.reason));
  if (held === undefined) return undefined;
  return `deletion waits for ${held.name}: ${held.message ?? held.reason}. Ways out: repair the site; set spec.deletionPolicy: Retain on ${image.metadata.name} to leave ${held.imageID ?? 'its registration'} there; or set spec.abandoned: true on ImageSite ${held.name} if that cloud is gone for good`;
}

/** The site of a row that the spec does not name. */
export function departing(round: Round, row: SiteRow): Target {
  return {
    name: row.name,
    optional: false,
    registration: registrationOf(round.image, undefined),
    site: round.deps.store.get('ImageSite', { name: row.name }),
  };
}

export const FINALIZER = FINALIZERS.registrations;
