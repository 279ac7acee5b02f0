import { Failure } from '../api/failure.ts';
import { cleanUrl } from '../sources/url.ts';
import type { CatalogFormat, ListFacts } from './catalog.ts';
import { compareVersions } from './versions.ts';

/** What is remembered of the list that was accepted last. */
export interface AcceptedList {
  readonly identity?: string | undefined;
  readonly version?: string | undefined;
  readonly digest?: string | undefined;
  /** RFC 3339. */
  readonly createdAt?: string | undefined;
  /** Cleaned. */
  readonly url?: string | undefined;
  readonly format?: string | undefined;
}

export interface AcceptanceRules {
  readonly url: string;
  readonly format: CatalogFormat;
  readonly rollback: 'Refuse' | 'Accept';
}

/**
 * Whether a valid list may take the place of the accepted one. Who can put an old list in the publisher's place, signed as it is,
 * would otherwise bring back the images with the holes in them.
 *
 * The identity may change only where a person has pointed the subscription to another place. Versions are compared as vmcatcher did;
 * where a list has none, or the same one, its date decides; one without either does not follow one that had it. The same version with
 * other bytes is a mistake of the publisher's, told but taken, unless it is of an older date.
 *
 * @returns warnings @throws Failure ListIdentityChanged | ListRollback
 */
export function accept(list: ListFacts, before: AcceptedList | undefined, rules: AcceptanceRules): string[] {
  if (before === undefined || before.digest === list.digest || rules.rollback === 'Accept') return [];
  const where = cleanUrl(rules.url);
  const elsewhere = before.url !== where || before.format !== rules.format;
  if (before.identity !== list.identity) {
    if (elsewhere) return [];
    throw new Failure(
      'ListIdentityChanged',
      `${where}: the list calls itself ${shown(list.identity)}, and the accepted one called itself ${shown(before.identity)}: its publisher must keep the identifier. Ask him; if it is meant so, set spec.rollback: Accept until the list is accepted`,
    );
  }
  // Without a name of its own, only the place says that it is the same list.
  if (list.identity === undefined && elsewhere) return [];
  const order = orderOf(list, before);
  // Otherwise an old list from which the date is missing would pass for a new one.
  if (order === undefined && (before.version ?? before.createdAt) !== undefined) {
    throw new Failure(
      'ListRollback',
      `${where}: the list (${ageOf(list)}) cannot be told to be newer than the one accepted before (${ageOf(before)}): somebody may be serving an old one. Ask its publisher; if it is meant so, set spec.rollback: Accept until the list is accepted`,
    );
  }
  if (order !== undefined && order < 0) {
    throw new Failure(
      'ListRollback',
      `${where}: the list is older (${ageOf(list)}) than the one accepted before (${ageOf(before)}): somebody may be serving an old one. Ask its publisher; if it is meant so, set spec.rollback: Accept until the list is accepted`,
    );
  }
  if (
    list.version !== undefined &&
    before.version !== undefined &&
    compareVersions(list.version, before.version) === 0
  ) {
    return [
      `the publisher has changed the list without giving it another version than ${list.version}; sites that have read it before may not notice`,
    ];
  }
  return [];
}

/** Negative: older than what was accepted. Undefined where neither version nor date tells. */
function orderOf(list: ListFacts, before: AcceptedList): number | undefined {
  const versions =
    list.version === undefined || before.version === undefined
      ? undefined
      : compareVersions(list.version, before.version);
  // A publisher who forgets the version has signed two lists of one: the older must not bring back what the newer has taken away.
  if (versions !== undefined && versions !== 0) return versions;
  if (list.createdAt === undefined || before.createdAt === undefined) return versions;
  return Date.parse(list.createdAt) - Date.parse(before.createdAt);
}

function ageOf({ version, createdAt }: AcceptedList | ListFacts): string {
  const words = [
    ...(version === undefined ? [] : [`version ${version}`]),
    ...(createdAt === undefined ? [] : [`of ${createdAt}`]),
  ];
  return words.join(' ') || 'without version and date';
}

function shown(identity: string | undefined): string {
  return identity === undefined ? 'nothing' : JSON.stringify(identity.slice(0, 200));
}
