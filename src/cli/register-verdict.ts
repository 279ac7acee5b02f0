import { findCondition, kstatus, READY } from '../api/conditions.ts';
import { isAnswered } from '../api/request.ts';
import type { SiteRow, VMImage } from '../api/types.ts';
import { isReady } from '../reconcilers/vmimage/summary.ts';
import { CommandError, EXIT } from './exit.ts';
import { printable } from './output.ts';
import { needsSomebody, WAITS_FOR_ROOM } from './somebody.ts';

export interface AskedOf {
  /** `VMImage default/sha256-…`, for messages. */
  title: string;
  /** Names of the sites that shall have it. */
  sites: readonly string[];
  /** Set where an object that was there already is to be tried now. */
  requestedAt?: string | undefined;
}

/**
 * The image, once every site that was asked for has it; undefined as long as that may still come.
 * @throws CommandError (failed) when it will not come without somebody's doing
 */
export function verdictOf(image: VMImage, asked: AskedOf): VMImage | undefined {
  const { title, sites, requestedAt } = asked;
  const unwanted = whyUnwanted(image);
  if (unwanted !== undefined) throw new CommandError(EXIT.failed, `${title} is not registered: ${unwanted}`);
  const { observedGeneration, lastHandledReconcileAt, conditions } = image.status ?? {};
  if (observedGeneration !== image.metadata.generation) return undefined;
  const isTold = (handled: string | undefined) => requestedAt === undefined || isAnswered(requestedAt, handled);
  const rows = rowsOf(image, sites);
  // On a hub a controller that is away keeps no answer of the sites that others serve.
  const isToldOfSites =
    rows.length > 0 && rows.length === sites.length && rows.every((row) => isTold(row.lastHandledReconcileAt));
  if (!isTold(lastHandledReconcileAt) && !isToldOfSites) return undefined;
  if (isServed(image, sites)) return image;
  const ready = findCondition(conditions, READY);
  if (isTold(lastHandledReconcileAt) && (kstatus(image).status === 'Failed' || needsSomebody(ready?.reason)))
    throw notRegistered(title, ready?.message, ready?.reason);
  // An optional site keeps the image from nothing, but here it was asked for.
  for (const row of rows) {
    if (isReady(row, image.metadata.generation) || (row.phase !== 'Failed' && !needsSomebody(row.reason))) continue;
    throw notRegistered(title, `${row.name}: ${row.message ?? ''}`, row.reason);
  }
  return undefined;
}

/** Whether the image is in service, with an id and as it is asked for now, at each of these sites, and wherever else it must be. */
export function isServed(image: VMImage, sites: readonly string[]): boolean {
  const { metadata, status } = image;
  const rows = rowsOf(image, sites);
  return (
    status?.observedGeneration === metadata.generation &&
    findCondition(status.conditions, READY)?.status === 'True' &&
    kstatus(image).status === 'Current' &&
    rows.length === sites.length &&
    rows.every((row) => isReady(row, metadata.generation))
  );
}

export function rowsOf({ status }: VMImage, sites: readonly string[]): SiteRow[] {
  return (status?.sites ?? []).filter(({ name }) => sites.includes(name));
}

/** What its owner has asked for instead, with the cure. That may well be Ready: out of service, as asked. */
function whyUnwanted({ metadata, spec, status }: VMImage): string | undefined {
  if (metadata.deletionTimestamp !== undefined) return 'it is being deleted: ask again when it is gone';
  if (spec.suspend === true) return 'it is suspended: set spec.suspend: false';
  if (spec.state === 'Deactivated') return 'it is Deactivated: set spec.state: Active';
  const ready = findCondition(status?.conditions, READY);
  if (status?.observedGeneration !== metadata.generation || ready?.reason !== 'Expired') return undefined;
  return `it is Expired since ${spec.expiresAt}: set a later spec.expiresAt, or spec.onExpiry: Retain`;
}

function notRegistered(title: string, message: string | undefined, reason: string | undefined): CommandError {
  return new CommandError(EXIT.failed, `${title} is not registered: ${printable(message ?? '')} (${reason})`);
}

/** Why it takes long, where that is worth a line of its own. */
export function waitForRoom({ status }: VMImage): string | undefined {
  const ready = findCondition(status?.conditions, READY);
  if (ready === undefined || !WAITS_FOR_ROOM.includes(ready.reason)) return undefined;
  return printable(`waiting for room: ${ready.message} (${ready.reason})`);
}
