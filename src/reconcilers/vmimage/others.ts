import type { SiteRow, VMImage } from '../../api/types.ts';
import type { Duties } from '../duties.ts';
import { jobKey, type Round } from './round.ts';
import { holdsAnything } from './named.ts';
import type { Facts } from './summary.ts';
import type { Target } from './targets.ts';

/** Where several controllers share an API server: what is theirs, as the one that summarizes sees it. */

/** Whether this controller has nothing to do with the image: no site of its own is asked for or has a row, and it does not summarize. */
export function isOthersAlone({ status, deps: { duties } }: Round, targets: readonly Target[]): boolean {
  return !duties.summarizes && status.sites.length === 0 && !targets.some(({ name }) => duties.serves(name));
}

/** A site whose labels were changed is another controller's from now on: what ran there ends, and may go on over there. */
export function leaveOthersSites(round: Round): void {
  const { deps, key } = round;
  for (const { name } of round.others) deps.jobs.leave(jobKey(round, name), key);
}

/** All rows, and one for each site that is asked for and has none: its controller has not come to it, or there is none. */
export function rowsInView(round: Round, { required, optional, disposition }: Facts): SiteRow[] {
  const rows = [...round.status.sites, ...round.others.map((row) => asSeen(row, round))];
  if (disposition === 'Deleting' || disposition === 'Suspended' || !round.deps.duties.shared) return rows;
  const missing = [...required, ...optional].filter((name) => !rows.some((row) => row.name === name));
  return [...rows, ...missing.map((name) => withoutController(name))];
}

function withoutController(name: string): SiteRow {
  return {
    name,
    phase: 'Pending',
    reason: 'NoControllerForSite',
    message: `no controller has looked at this site: start one whose --site-selector matches the labels of ImageSite ${name}, or correct either`,
  };
}

/** What serves an earlier generation says so itself only when its controller is at work. */
function asSeen(row: SiteRow, { generation }: Round): SiteRow {
  if (row.phase !== 'Ready' || row.observedGeneration === generation) return row;
  return { ...row, phase: 'Pending', message: `its controller has not taken up generation ${generation} yet` };
}

/** Whether nothing of the image is left anywhere, so that it may go. Rows that hold nothing hold nobody. */
export function isHeldByNothing(image: VMImage): boolean {
  return !(image.status.sites ?? []).some(holdsAnything);
}

/** Why a deletion waits for other controllers. */
export function othersHoldup(round: Round): string | undefined {
  const held = round.others.filter(holdsAnything);
  if (held.length === 0) return undefined;
  const named = held.map(({ name, imageID }) => (imageID === undefined ? name : `${name} (${imageID})`)).join(', ');
  return `deletion waits for the controllers of ${named}. Ways out: start them; or set spec.abandoned: true on the ImageSite if that cloud is gone for good`;
}

/** Where this controller fetches nothing for the image, what is known of its bytes is what the rows tell. */
export function describeFromRows({ status, others }: Round): void {
  const parts = others.find(({ imageID, artifacts }) => imageID !== undefined && artifacts !== undefined)?.artifacts;
  delete status.failure;
  if (parts === undefined) delete status.artifacts;
  else {
    status.artifacts = parts.map(({ role, digest, format, size }) => ({
      role,
      ...(digest === undefined ? {} : { digest }),
      ...(format === undefined ? {} : { format }),
      ...(size === undefined ? {} : { size }),
    }));
  }
}

/** The targets that are this controller's to serve. */
export function ownTargets(targets: readonly Target[], { serves }: Duties): Target[] {
  return targets.filter(({ name }) => serves(name));
}
