import { Failure } from '../../api/failure.ts';
import type { PreviousRegistration, RegisteredArtifact } from '../../api/types.ts';
import type { CloudRecord } from '../../clouds/cloud.ts';
import { knownIds, refsOf } from './named.ts';
import { type SiteWork, startAfterWrite } from './operations.ts';
import { isHalfMade } from './register.ts';
import { isRefusal } from './rows.ts';

/** The operations that take what the cloud has of an image out of service, or remove it. */

export function startRetire(work: SiteWork, artifacts: readonly RegisteredArtifact[]): void {
  startAfterWrite(work, { kind: 'Retire' }, async (signal) => {
    await work.connection.cloud.retire(refsOf(artifacts), signal);
    return { kind: 'Retire', ids: artifacts.map((part) => part.id) };
  });
}

/**
 * Takes everything of this image at the site out of service: what serves, what it replaced, and what a lost state or a hand-over kept
 * from being named. The cloud is asked even where the row knows of nothing: an image with a hole in it must not go on serving unseen.
 */
export function startWithdraw(work: SiteWork): void {
  const { row, connection } = work;
  const { cloud } = connection;
  const known = knownIds(row);
  // Also what is told to be retired: it may have been on its way back.
  const current = row.artifacts ?? [];
  const former = (row.previous ?? []).filter((each) => each.retiredAt === undefined);
  startAfterWrite(work, { kind: 'Withdraw' }, async (signal) => {
    await cloud.retire(refsOf(current), signal);
    const { ours } = await recordsOf(work, signal);
    const unnamed = ours.filter((record) => !known.has(record.id));
    const forgotten = unnamed.filter((record) => !isHalfMade(record));
    const named = former.flatMap((each) => refsOf(each.artifacts));
    const told = new Set([...current, ...named].map((part) => part.id));
    // An upload that was cut may have found one that was retired by its bytes, and brought it back.
    const returned = ours.filter(({ id, state }) => known.has(id) && state === 'Active' && !told.has(id));
    const others = [...named, ...returned, ...forgotten];
    await cloud.retire(others, signal);
    // Last: a removal that is refused keeps nothing in service.
    await cloud.remove(unnamed.filter(isHalfMade), signal);
    return { kind: 'Withdraw', ids: [...current, ...others].map((part) => part.id), forgotten };
  });
}

/** What the cloud has of this owner and guid: this image's, with what images that are no more have left it, and that of living others. */
async function recordsOf(
  { round, connection }: SiteWork,
  signal: AbortSignal,
): Promise<{ ours: CloudRecord[]; others: CloudRecord[] }> {
  const { image, namespace, deps, owner, guid } = round;
  const records = await connection.cloud.find({ owner, guid }, signal);
  const isOurs = ({ claim }: CloudRecord) => claim === image.metadata.uid || !deps.siblings.isLiving(namespace, claim);
  return { ours: records.filter(isOurs), others: records.filter((record) => !isOurs(record)) };
}

/** Removes former registrations one by one: one that machines still run from keeps none of the others. */
export function startTrim(work: SiteWork, excess: readonly PreviousRegistration[]): void {
  startAfterWrite(work, { kind: 'Trim' }, async (signal) => {
    const ids: string[] = [];
    let failed: Failure | undefined;
    for (const { artifacts } of excess) {
      const parts = refsOf(artifacts);
      try {
        await work.connection.cloud.remove(parts, signal);
        ids.push(...parts.map((part) => part.id));
      } catch (error) {
        signal.throwIfAborted();
        failed ??= Failure.from(error);
      }
    }
    return { kind: 'Trim', ids, ...(failed === undefined ? {} : { failed }) };
  });
}

/** What a cloud cannot remove in so many tries may never go, and would hold up every edit and each new version beside it. */
const TIDY_TRIES = 3;

/**
 * Removes what an upload that was given up has left: what is half-made, and what is complete (a kernel that waits for its disk, a disk
 * that waits to be published) and was seen by nobody. What was published in the moment of the kill may have machines by now: it comes
 * back as a former registration. And a former one that the upload has found by its bytes may be in service again: `active` tells.
 */
export function startTidy(work: SiteWork): void {
  const { round, row, connection } = work;
  const known = knownIds(row);
  const hasImage = row.imageID !== undefined;
  const isLastTry = (row.attempts ?? 0) >= TIDY_TRIES - 1;
  startAfterWrite(work, { kind: 'Tidy' }, async (signal) => {
    const records = await connection.cloud.find({ owner: round.owner, guid: round.guid }, signal);
    const ours = records.filter((record) => record.claim === round.image.metadata.uid);
    const active = ours.filter((record) => record.state === 'Active').map((record) => record.id);
    const unnamed = ours.filter((record) => !known.has(record.id));
    // (What is out of service is no upload's: it was retired so long ago that the row has forgotten it.)
    const left = unnamed.filter((record) => isHalfMade(record) || (record.state === 'Active' && !record.published));
    const forgotten = unnamed.filter((record) => record.published && !isHalfMade(record));
    try {
      await connection.cloud.remove(left, signal);
    } catch (error) {
      signal.throwIfAborted();
      const failed = Failure.from(error);
      // Beside an image that is there it keeps nothing from going on: its marks lead the next upload, and the deletion, to it.
      if (!hasImage || !(isLastTry || isRefusal(failed))) throw error;
      return { kind: 'Tidy', ids: [], forgotten, active, failed };
    }
    return { kind: 'Tidy', ids: left.map((record) => record.id), forgotten, active };
  });
}

/** Removes everything of this image from the site: what the row names, and what a crash kept from being named. */
export function startDelete(work: SiteWork): void {
  const { row, connection } = work;
  const refs = [...refsOf(row.artifacts), ...(row.previous ?? []).flatMap((each) => refsOf(each.artifacts))];
  startAfterWrite(work, { kind: 'Delete' }, async (signal) => {
    const { ours, others } = await recordsOf(work, signal);
    // What the row names but another image has taken over meanwhile (a hand-over) is not ours to remove.
    const taken = new Set(others.map((record) => record.id));
    const ids = new Map(
      [...refs, ...ours].filter((part) => !taken.has(part.id)).map((part) => [part.id, part] as const),
    );
    await connection.cloud.remove([...ids.values()], signal);
    return { kind: 'Delete', ids: [...ids.keys()] };
  });
}
