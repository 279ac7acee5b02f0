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
  const { looks } = round.deps;
  const dates = [Date.parse(row.lastCheckedTime ?? ''), looks.at(round.key, row.name) ?? Number.NaN];
  const rested = dates.map((at) => at + intervalMs / 2);
  // Dates that are further ahead were written while the clock was: no look would be made until then.
  const from = Math.max(0, ...[...rested, looks.startedAt].filter((at) => at <= round.now + 2 * intervalMs));
  const own = Math.floor(shareOf(round, row) * intervalMs);
  return Math.ceil((from - own) / intervalMs) * intervalMs + own;
}

/** Puts the dates of looks into the rows that are written anyway, and into those whose date is from long ago. */
export function dateLooks(round: Round): void {
  const { now, key, image, deps } = round;
  for (const row of round.status.sites) {
    const at = deps.looks.at(key, row.name);
    const written = Date.parse(row.lastCheckedTime ?? '');
    const isAhead = written > now + WRITTEN_MS;
    // A row without either is no registration that could have been looked at.
    if (at === undefined || (at <= written && !isAhead) || (row.imageID === undefined && Number.isNaN(written)))
      continue;
    const before = image.status.sites?.find(({ name }) => name === row.name);
    const age = now - written;
    // At rows' own ages: else ten thousand that were written together would be written together again.
    if (!isAhead && isDeepStrictEqual(before, row) && age < WRITTEN_MS * (0.5 + shareOf(round, row))) continue;
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

/** A number from 0 to 1, without 1, that stays the row's own. */
function shareOf(round: Round, row: SiteRow): number {
  return Number.parseInt(hashOf([round.image.metadata.uid, row.name]).slice(0, 6), 16) / 0x1000000;
}
