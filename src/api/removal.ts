import { ANNOTATIONS, type SiteRow, type VMImage } from './types.ts';

/**
 * What a person writes to let go of what is held at a site: `nova-east@2026-11-21T12:00:00.000Z`. It names the occasion as well as the
 * site, for an annotation stays where it is, or is put back from a repository: a word for the site alone would confirm the next slip
 * of a label too. Undefined where nothing is held.
 */
export function removalWord({ name, heldSince }: SiteRow): string | undefined {
  return heldSince === undefined ? undefined : `${name}@${heldSince}`;
}

/** Whether a person has said of this very occasion that what is held there may go. */
export function isRemovalConfirmed({ metadata }: VMImage, row: SiteRow): boolean {
  const word = removalWord(row);
  const given = metadata.annotations?.[ANNOTATIONS.confirmRemoval] ?? '';
  return word !== undefined && given.split(/[\s,]+/).includes(word);
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
