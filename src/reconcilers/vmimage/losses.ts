import { timestamp } from '../../api/conditions.ts';
import { ANNOTATIONS, type SiteRow, type VMImage } from '../../api/types.ts';
import { noteLook } from './drift.ts';
import { isAllowed } from './limits.ts';
import { begin, type OperationResult, type SiteWork, startUpdate } from './operations.ts';
import { mayStillServe } from './release.ts';
import { isAskedOf, lookAgain, note, type Round, stamp } from './round.ts';
import { loseImage, tell } from './rows.ts';

const DAY_MS = 24 * 3_600_000;
/** An image that is gone is registered again; somebody who removes it again and again means it. */
const MAX_LOSSES_A_DAY = 3;
/** More than this many, or this share, gone at once is not the loss of images but of something greater. */
const MASS_LOSS = { count: 3, share: 0.05 };

/**
 * What a look at the cloud means for the row. True when the image is there and may be maintained further; false when this round
 * is over for the row.
 */
export function judgeLook(work: SiteWork, result: Extract<OperationResult, { kind: 'Check' }>): boolean {
  const { round, row, site } = work;
  const { look, census } = result;
  noteLook(round, row);
  // Who has asked wants to see that it was done.
  if (result.asked !== undefined) row.lastCheckedTime = stamp(round);
  if (look.gone.length > 0) return judgeGone(work, look.gone, census);
  delete row.missingSince;
  for (const each of look.notes ?? []) note(round, 'Normal', 'Pending', `${row.name}: ${each}`);
  if (look.tampered !== undefined) {
    row.lookFound = 'Tampered';
    tell(
      row,
      'Failed',
      'Tampered',
      `${row.imageID} at ${row.name} is not what was registered: ${look.tampered}; have the cloud's operator look at it, then delete it there to get it registered again`,
    );
    lookAgain(round, round.now + 60_000);
    return false;
  }
  if (look.held !== undefined) {
    row.lookFound = 'Held';
    const done = look.held === 'Deactivated' ? 'deactivated' : 'hidden';
    tell(
      row,
      'Held',
      'HeldByCloud',
      `somebody at ${row.name} has ${done} ${row.imageID}; ask the cloud's operator, who alone can undo it`,
    );
    return true;
  }
  delete row.lookFound;
  if (row.phase === 'Held' || row.reason === 'Tampered' || row.reason === 'Drifted') tell(row, 'Ready');
  if (look.changed.length > 0) {
    const fields = look.changed.join(', ');
    if (site.spec.drift?.policy === 'Report') {
      tell(
        row,
        'Ready',
        'Drifted',
        `at ${row.name} these are not as the spec says, and are only reported (spec.drift.policy): ${fields}`,
      );
      return true;
    }
    // (A repair that was refused is not news.)
    const isNews = row.registrationHash !== undefined;
    // Until that is done the cloud has not what the spec says: a repair that fails is tried again, and nothing is Ready before.
    delete row.registrationHash;
    // What the cloud differs from may be an edit, or what its owner has taken back and allows no longer.
    if (!isAllowed(work, { isRepair: true })) return false;
    if (isNews) note(round, 'Warning', 'Drifted', `at ${row.name} somebody changed ${fields}: put right`);
    begin(work, { kind: 'Update' });
    startUpdate(work, () => mayStillServe(work));
    return false;
  }
  return true;
}

function judgeGone(work: SiteWork, gone: readonly string[], census: ReadonlySet<string> | undefined): boolean {
  const { round, row } = work;
  const ids = gone.join(', ');
  // A date that a wrong clock has given would be after any word of a person on this loss.
  if (Date.parse(row.missingSince ?? '') > round.now) row.missingSince = stamp(round);
  if (row.missingSince === undefined || census === undefined) {
    tellMissing(round, row, `${ids} was not found at ${row.name}`);
    // The others of the site are looked at too: one image gone is a loss, many are a sign.
    return true;
  }
  if (gone.some((id) => census.has(id))) {
    delete row.missingSince;
    return true;
  }
  const rows = rowsAt(work, row.name);
  const missing = rows.filter((id) => !census.has(id)).length;
  const massive =
    missing > Math.max(MASS_LOSS.count, MASS_LOSS.share * rows.length) || (rows.length > 1 && missing === rows.length);
  if (massive && !confirmed(work)) {
    tell(
      row,
      'Missing',
      'MassLoss',
      `${missing} of ${rows.length} images are gone from ${row.name}, ${ids} among them: nothing is registered again until somebody has looked; then annotate the ImageSite with ${ANNOTATIONS.confirmLoss}: "${timestamp(round.now)}"`,
    );
    lookAgain(round, round.now + 5 * 60_000);
    return false;
  }
  if (work.site.spec.drift?.policy === 'Report' && row.reason !== 'LossAccepted') {
    tell(
      row,
      'Missing',
      'Lost',
      `${ids} is gone from ${row.name}, and losses are only reported there (spec.drift.policy); ask for it to have it registered again (imageproxy reconcile)`,
    );
    lookAgain(round, round.now + 5 * 60_000);
    return false;
  }
  const recent = (row.losses ?? []).filter((at) => {
    const age = round.now - Date.parse(at);
    return age >= 0 && age < DAY_MS;
  });
  if (recent.length >= MAX_LOSSES_A_DAY && !isAskedOf(round, row)) {
    tell(
      row,
      'Missing',
      'LossLimit',
      `${ids} is gone from ${row.name} for the ${recent.length + 1}th time in a day: somebody there removes it; it is registered again tomorrow, or when you ask for it (imageproxy reconcile)`,
    );
    lookAgain(round, Date.parse(recent[0] ?? '') + DAY_MS);
    return false;
  }
  row.losses = [...recent, stamp(round)];
  note(round, 'Warning', 'Lost', `${ids} is gone from ${row.name}: it is registered again`);
  loseImage(row, gone);
  return true;
}

/** It was not found once, which is not enough to make it anew. */
export function tellMissing(round: Round, row: SiteRow, fact: string): void {
  row.missingSince ??= stamp(round);
  tell(row, 'Missing', 'Missing', `${fact}; a second look decides`);
  lookAgain(round, Date.parse(row.missingSince) + round.deps.settings.lossConfirmMs);
}

/** Ids in service at this site, of every image. */
function rowsAt(work: SiteWork, site: string): string[] {
  return work.round.deps.store
    .list<VMImage>('VMImage')
    .flatMap((image) =>
      (image.status.sites ?? []).flatMap((row) =>
        row.name === site && row.imageID !== undefined ? [row.imageID] : [],
      ),
    );
}

/** Somebody has looked after the loss was noticed. */
function confirmed(work: SiteWork): boolean {
  const word = work.site.metadata.annotations?.[ANNOTATIONS.confirmLoss];
  return word !== undefined && Date.parse(word) >= Date.parse(work.row.missingSince ?? '');
}
