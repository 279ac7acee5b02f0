import { isDeepStrictEqual } from 'node:util';
import { timestamp } from '../../api/conditions.ts';
import type { SiteRow } from '../../api/types.ts';
import { hashOf } from './identity.ts';
import type { Round } from './round.ts';

/** The date of a look that found all as it was is written about this often. */
const WRITTEN_MS = 12 * 3_600_000;

/**
 * When the row is looked at next, in milliseconds since the epoch. Each row has a moment of its own in every interval, which its uid
 * gives: neither images that became ready together nor those that a start finds overdue are looked at together.
 */
export function nextLook(round: Round, row: SiteRow, intervalMs: number): number {
  // Not in the moment after a look or a registration, wherever in the interval that came.
  const rested = lastLook(round, row) + intervalMs / 2;
  const from = Math.max(Number.isNaN(rested) ? 0 : rested, round.deps.looks.startedAt);
  const own = Math.floor(shareOf(round, row) * intervalMs);
  return Math.ceil((from - own) / intervalMs) * intervalMs + own;
}

/** Puts the dates of looks into the rows that are written anyway, and into those whose date is from long ago. */
export function dateLooks(round: Round): void {
  const { now, key, image, deps } = round;
  for (const row of round.status.sites) {
    const at = deps.looks.at(key, row.name);
    const written = Date.parse(row.lastCheckedTime ?? '');
    // A row without either is no registration that could have been looked at.
    if (at === undefined || at <= written || (row.imageID === undefined && Number.isNaN(written))) continue;
    const before = image.status.sites?.find(({ name }) => name === row.name);
    const age = now - written;
    // At rows' own ages: else ten thousand that were written together would be written together again.
    if (isDeepStrictEqual(before, row) && age < WRITTEN_MS * (0.5 + shareOf(round, row))) continue;
    row.lastCheckedTime = timestamp(at);
  }
}

/** The date of the next look for what is missing is written with what the last has found: alone it would be a write every few minutes. */
export function keepWaiting(round: Round): void {
  const { key, image, deps } = round;
  for (const row of round.status.sites) {
    const before = image.status.sites?.find(({ name }) => name === row.name);
    const { nextAttemptTime: told } = before ?? {};
    const { nextAttemptTime: next } = row;
    if (next === told) continue;
    deps.looks.wait(key, row.name, undefined);
    if (next === undefined || told === undefined) continue;
    if (!isDeepStrictEqual({ ...row, nextAttemptTime: told }, before)) continue;
    deps.looks.wait(key, row.name, Date.parse(next));
    row.nextAttemptTime = told;
  }
}

export function noteLook(round: Round, row: SiteRow): void {
  round.deps.looks.note(round.key, row.name, round.now);
}

function lastLook(round: Round, row: SiteRow): number {
  const written = Date.parse(row.lastCheckedTime ?? '');
  const known = round.deps.looks.at(round.key, row.name);
  return known === undefined || known < written ? written : known;
}

/** A number from 0 to 1, without 1, that stays the row's own. */
function shareOf(round: Round, row: SiteRow): number {
  return Number.parseInt(hashOf([round.image.metadata.uid, row.name]).slice(0, 6), 16) / 0x1000000;
}
