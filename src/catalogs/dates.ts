import { Failure } from '../api/failure.ts';
import type { ListFacts } from './catalog.ts';

const RFC_3339 = /^(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.\d{1,9})?(?:[Zz]|([+-])(\d\d):(\d\d))$/;
/** RFC 5322, as simplestreams writes it: `Thu, 20 Nov 2025 10:10:10 +0000`. */
const RFC_5322 = /^(?:[A-Z][a-z]{2}, )?(\d{1,2}) ([A-Z][a-z]{2}) (\d{4}) (\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d)$/;
const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

/** A clock that is ahead of ours by less is taken for right: a list that was signed a second ago must not be refused. */
const SKEW_MS = 5 * 60_000;

/**
 * A date of a list as RFC 3339 in UTC, to the second; undefined for what is none. Days that a calendar does not have are none:
 * `Date.parse` would take 31 February for 3 March.
 */
export function readDate(text: string): string | undefined {
  const iso = RFC_3339.exec(text);
  if (iso !== null) {
    const [, year, month, day, hour, minute, second, sign, hours, minutes] = iso;
    return instant([year, month, day, hour, minute, second], sign, hours, minutes);
  }
  const mail = RFC_5322.exec(text);
  if (mail === null) return undefined;
  const [, day, name = '', year, hour, minute, second, sign, hours, minutes] = mail;
  return instant([year, MONTHS.indexOf(name) + 1, day, hour, minute, second], sign, hours, minutes);
}

function instant(
  parts: readonly (string | number | undefined)[],
  sign: string | undefined,
  hours = '0',
  minutes = '0',
): string | undefined {
  const [year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0] = parts.map(Number);
  const local = Date.UTC(year, month - 1, day, hour, minute, second);
  const seen = new Date(local);
  const same =
    seen.getUTCFullYear() === year &&
    seen.getUTCMonth() === month - 1 &&
    seen.getUTCDate() === day &&
    seen.getUTCHours() === hour &&
    seen.getUTCMinutes() === minute;
  if (!same || Number(hours) > 23 || Number(minutes) > 59) return undefined;
  const offset = (Number(hours) * 60 + Number(minutes)) * 60_000 * (sign === '-' ? -1 : 1);
  return new Date(local - offset).toISOString().replace(/\.\d+Z$/, 'Z');
}

/**
 * A list holds between its dates (HEPiX, "valid"): one from the future is a mistake or somebody's stock for later, an expired one may
 * be replayed by whoever wants an old image back.
 * @param at milliseconds since the epoch
 * @throws Failure ListFromFuture, ListExpired
 */
export function checkDates(list: Pick<ListFacts, 'createdAt' | 'expiresAt'>, at: number): void {
  if (list.createdAt !== undefined && Date.parse(list.createdAt) > at + SKEW_MS) {
    throw new Failure(
      'ListFromFuture',
      `the list was made at ${list.createdAt}, which is still to come: look at the clock here, and ask the publisher about his`,
    );
  }
  if (list.expiresAt !== undefined && Date.parse(list.expiresAt) <= at) {
    throw new Failure(
      'ListExpired',
      `the list expired at ${list.expiresAt}: its publisher must sign a new one; the images that are here stay as they are`,
    );
  }
}
