import { type Algorithm, strongest } from '../../api/digest.ts';
import type { ImageSubscription } from '../../api/types.ts';
import type { Entry } from '../../catalogs/catalog.ts';

/** `sha512:…`: what a person approves, and compares. Of the published file; of the uncompressed bytes where the list has only those. */
export function digestOf(entry: Entry): string | undefined {
  return strongest(entry.checksums) ?? strongest(entry.contentChecksums);
}

/** Whether a person has said that the entry, with the bytes that it has now, may become a VMImage. */
export function approvalOf({ approval, approved = [] }: ImageSubscription['spec']): (entry: Entry) => boolean {
  if (approval === 'Automatic') return () => true;
  const rows = new Map(approved.map((row) => [row.id, row.digest]));
  return (entry) => {
    if (!rows.has(entry.id)) return false;
    const digest = rows.get(entry.id);
    return digest === undefined || digestsOf(entry).includes(digest);
  };
}

function digestsOf({ checksums, contentChecksums }: Entry): string[] {
  return [checksums, contentChecksums].flatMap((sums) =>
    Object.entries(sums).map(([algorithm, hex]) => `${algorithm as Algorithm}:${hex}`),
  );
}
