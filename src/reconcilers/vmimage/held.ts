import { isNamed, removalWord } from '../../api/removal.ts';
import { ANNOTATIONS, type SiteRow } from '../../api/types.ts';
import type { Round } from './round.ts';
import { admits, type Target } from './targets.ts';

/**
 * What a site has of the image although it is asked for there no longer, not admitted, or the site is another place. It stays until a
 * person says that it may go, and his word is of this one occasion (`removalWord`).
 */

/** Says how it is confirmed that what is held may go. It is held from now on, where it was not before. */
export function howToConfirm(round: Round, row: SiteRow): string {
  if (row.heldSince === undefined) {
    // To the millisecond: an image may be let go of, registered and lost again within one second.
    row.heldSince = new Date(round.now).toISOString();
    if (isNamed(round.image, row)) row.heldDespiteWord = true;
  }
  return `annotate this VMImage with ${ANNOTATIONS.confirmRemoval}: ${removalWord(row)} (imageproxy confirm-removal)`;
}

/**
 * An occasion is over as soon as the image belongs at the site again, whether or not the site can be reached or anything is done in
 * this round: a word that was given for it must not count for the next.
 */
export function endHolds(round: Round, asked: readonly Target[]): void {
  for (const row of round.status.sites) {
    if (!isNamed(round.image, row)) delete row.heldDespiteWord;
    const target = asked.find(({ name }) => name === row.name);
    // Which place it is, is not known before the first probe after a start.
    const isUnknown = row.reason === 'IdentityChanged' && !round.deps.sites.get(row.name);
    if (target !== undefined && !isClosed(round, target, row) && !isUnknown) {
      delete row.heldSince;
      delete row.heldDespiteWord;
    }
  }
}

/** The site is asked for, and takes the image no longer: it admits the namespace no more, or is another place now. */
export function isClosed(round: Round, { site }: Target, row: SiteRow): boolean {
  return (site !== undefined && !admits(site, round.image)) || isElsewhere(round, row);
}

/** The site is another place now than when the row was made. */
export function isElsewhere(round: Round, row: SiteRow): boolean {
  const connection = round.deps.sites.get(row.name);
  return connection !== undefined && row.siteIdentity !== undefined && row.siteIdentity !== connection.identity;
}
