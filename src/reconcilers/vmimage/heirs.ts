import type { PreviousRegistration, SiteRow, VMImage } from '../../api/types.ts';
import { holdsAnything, knownIds } from './named.ts';
import { type Round, stamp } from './round.ts';
import { rowOf, setPrevious, tell } from './rows.ts';
import type { Siblings } from './siblings.ts';
import type { Target } from './targets.ts';

/**
 * An image that is deleted hands its registrations over to the next one of its guid. That one names them before the other lets go:
 * until it has the bytes it has nothing registered of its own, and one that held nothing would go without asking any cloud.
 */

/** Who gets the registrations of an image that is being deleted. */
export function heirOf(image: VMImage, siblings: Siblings): VMImage | undefined {
  return siblings.of(image).find((other) => other.metadata.deletionTimestamp === undefined);
}

/** Takes into this image's rows what images that are being deleted have at its sites. */
export function inherit(round: Round, targets: readonly Target[]): void {
  const { image, deps } = round;
  for (const other of deps.siblings.of(image)) {
    const isLeaving = other.metadata.deletionTimestamp !== undefined && other.spec.deletionPolicy !== 'Retain';
    if (!isLeaving || heirOf(other, deps.siblings)?.metadata.uid !== image.metadata.uid) continue;
    for (const { name } of targets) {
      const left = other.status.sites?.find((row) => row.name === name);
      if (left !== undefined && holdsAnything(left)) takeOver(round, rowOf(round, name), left, other.metadata.name);
    }
  }
}

/** Whether the heir's row names what this one does, so that nothing is forgotten when this one goes. */
export function isInherited(row: SiteRow, heir: VMImage | undefined): boolean {
  if (!holdsAnything(row)) return true;
  const inherited = heir?.status.sites?.find(({ name }) => name === row.name);
  if (inherited === undefined || !holdsAnything(inherited)) return false;
  // (What is out of service may have fallen off a long list: its marks tell the image's deletion of it.)
  return row.imageID === undefined || row.retired === true || knownIds(inherited).has(row.imageID);
}

function takeOver(round: Round, row: SiteRow, left: SiteRow, name: string): void {
  const isFresh = !holdsAnything(row);
  const known = knownIds(row);
  const current = left.imageID === undefined ? [] : [formerOf(round, left, left.imageID)];
  const former = [...current, ...(left.previous ?? [])]
    .filter(({ imageID }) => !known.has(imageID))
    // The claim on them is another's, so they come back into service only where they are found by their bytes, which takes it over.
    .map(({ artifacts = [], ...each }) => ({
      ...each,
      artifacts: artifacts.map(({ role, id, digest }) => ({ role, id, ...(digest === undefined ? {} : { digest }) })),
    }));
  if (former.length > 0) setPrevious(row, [...(row.previous ?? []), ...former]);
  if (!isFresh) return;
  // How far it came nobody knows, and nothing names it. (As an upload it would be given up with the first that fails.)
  if (former.length === 0)
    row.operation = { kind: 'Withdraw', startedAt: stamp(round), message: `VMImage ${name} has begun something here` };
  if (left.siteIdentity !== undefined) row.siteIdentity = left.siteIdentity;
  if (row.phase === undefined) tell(row, 'Pending', 'GuidInUse', `takes over from VMImage ${name}`);
}

function formerOf(round: Round, { artifacts = [], retired }: SiteRow, imageID: string): PreviousRegistration {
  return { imageID, artifacts, ...(retired === true ? { retiredAt: stamp(round) } : {}) };
}
