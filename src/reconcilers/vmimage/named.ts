import { type Digests, parseDigest } from '../../api/digest.ts';
import type { RegisteredArtifact, SiteRow } from '../../api/types.ts';
import type { PartRef } from '../../clouds/cloud.ts';
import type { Role } from '../../images/format.ts';

/** Whether anything of the image may be at the site: an id, or an operation that may have made one. */
export function holdsAnything(row: SiteRow): boolean {
  return row.imageID !== undefined || row.operation !== undefined || (row.previous ?? []).length > 0;
}

/** Every id that the row names: in service, and retired. */
export function knownIds(row: SiteRow): Set<string> {
  const ids = new Set<string>();
  for (const part of row.artifacts ?? []) ids.add(part.id);
  for (const previous of row.previous ?? []) for (const part of previous.artifacts ?? []) ids.add(part.id);
  return ids;
}

export function refsOf(artifacts: readonly RegisteredArtifact[] | undefined): PartRef[] {
  return (artifacts ?? []).map((part) => {
    const digests: Digests = {};
    for (const known of [part.sentDigest, part.cloudDigest]) {
      const digest = known === undefined ? undefined : parseDigest(known);
      if (digest !== undefined) digests[digest.algorithm] = digest.hex;
    }
    return { id: part.id, role: part.role as Role, digests };
  });
}
