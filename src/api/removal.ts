import { ANNOTATIONS, type SiteRow, type VMImage } from './types.ts';

/**
 * What lets go of what is held at a site, and of nothing later: `nova-east@2026-11-21T12:00:00.000Z`. It names the occasion as well as
 * the site, for an annotation stays where it is, or is put back from a repository. Undefined where nothing is held.
 */
export function removalWord({ name, heldSince }: SiteRow): string | undefined {
  return heldSince === undefined ? undefined : `${name}@${heldSince}`;
}

/**
 * Whether a person has said of this very occasion that what is held there may go. The site's name alone says so where it was not there
 * when the occasion began: else what was confirmed once would confirm the next slip of a label, too.
 */
export function isRemovalConfirmed(image: VMImage, row: SiteRow): boolean {
  const word = removalWord(row);
  if (word === undefined) return false;
  return wordsOf(image).includes(word) || (row.heldDespiteWord !== true && isNamed(image, row));
}

/** Whether the site's name alone is among the words. */
export function isNamed(image: VMImage, { name }: SiteRow): boolean {
  return wordsOf(image).includes(name);
}

function wordsOf({ metadata }: VMImage): string[] {
  return (metadata.annotations?.[ANNOTATIONS.confirmRemoval] ?? '').split(/[\s,]+/);
}

/** The annotation's value that confirms this row as well. Words of occasions that are over are left out. */
export function confirmationOf(image: VMImage, row: SiteRow): string {
  const rows = (image.status?.sites ?? []).filter((each) => each.name === row.name || isRemovalConfirmed(image, each));
  return rows.map((each) => removalWord(each.name === row.name ? row : each)).join(',');
}

/** What confirms that images may go which are missing from this very list: the beginning of its digest, `sha256:9f86d081884c`. */
export function listRemovalWord(digest: string): string {
  return digest.slice(0, 19);
}
