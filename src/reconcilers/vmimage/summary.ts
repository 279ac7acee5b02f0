import { clip, READY, RECONCILING, removeCondition, setCondition, STALLED } from '../../api/conditions.ts';
import { REASONS } from '../../api/failure.ts';
import type { Condition, SiteRow, VMImage, VMImageStatus } from '../../api/types.ts';
import type { DownloadView } from './download.ts';
import { holdsAnything } from './named.ts';
import { percentOf } from './progress.ts';

/** What the top of the status is made of: the spec, the rows, and what is known of the bytes. Nothing else. */
export interface Facts {
  image: VMImage;
  guid: string;
  rows: readonly SiteRow[];
  /** Names of the sites asked for that are not optional; the others. */
  required: readonly string[];
  optional: readonly string[];
  /** Stalled, or in the way: what keeps the whole image from going on. */
  trouble?: { stalled: boolean; reason: string; message: string };
  download?: Pick<DownloadView, 'step' | 'bytes' | 'totalBytes' | 'bytesPerSecond'>;
  /** All parts are here, proven. */
  fetched: boolean;
  disposition: 'Serve' | 'Deactivated' | 'Expired' | 'Suspended' | 'Deleting';
}

/** Phases of rows in the order in which the busiest one speaks for the image. */
const BUSY = [
  'Registering',
  'Updating',
  'Preparing',
  'Verifying',
  'Fetching',
  'Deactivating',
  'Deleting',
  'Missing',
  'Held',
  'Pending',
];

/** A site serves this very generation. */
export function isReady(row: SiteRow | undefined, generation: number): boolean {
  return row?.phase === 'Ready' && row.observedGeneration === generation && row.imageID !== undefined;
}

/** A site serves some verified image. */
function isAvailable(row: SiteRow | undefined): boolean {
  return (
    row?.imageID !== undefined &&
    row.retired !== true &&
    row.phase !== 'Held' &&
    row.phase !== 'Missing' &&
    row.lookFound === undefined &&
    row.reason !== 'Tampered'
  );
}

/** Phase, conditions, progress and summary of an image: a pure function of its facts. */
export function summarize(facts: Facts, status: VMImageStatus, now: number): void {
  const { image, rows, required, optional, disposition } = facts;
  const generation = image.metadata.generation;
  const rowOf = (name: string) => rows.find((row) => row.name === name);
  const stalledRow = required.map(rowOf).find((row) => row?.phase === 'Failed');
  const trouble =
    facts.trouble ??
    (stalledRow === undefined
      ? undefined
      : {
          stalled: true,
          reason: stalledRow.reason ?? 'Failed',
          message: `${stalledRow.name}: ${stalledRow.message ?? ''}`,
        });

  const attained =
    disposition === 'Serve'
      ? required.every((name) => isReady(rowOf(name), generation))
      : disposition === 'Deactivated' || disposition === 'Expired'
        ? rows.every(
            (row) =>
              (row.phase === disposition && (row.observedGeneration === generation || row.imageID === undefined)) ||
              // Not there, or not to be asked now, and nothing of ours is known of it.
              (optional.includes(row.name) && !holdsAnything(row)),
          )
        : false;
  // What keeps an optional site from going on takes nothing from those that serve; but where no site has to serve, or the guid is
  // another image's, it is the whole image that cannot go on.
  const whole = facts.trouble?.stalled === true && (required.length === 0 || facts.trouble.reason === 'GuidInUse');
  const done = attained && !whole;
  status.guid = facts.guid;
  status.phase = phaseOf(facts, done, trouble);
  // Nothing is judged any more, so no generation is observed: a spec that was changed meanwhile must not pass for served.
  if (disposition === 'Suspended') return summary(facts, status, generation);
  status.observedGeneration = generation;

  const message = messageOf(facts, done, trouble);
  const reason = done
    ? disposition === 'Serve'
      ? 'Registered'
      : disposition
    : (trouble?.reason ?? reasonToWait(waitingRow(facts)) ?? status.phase);
  let conditions: readonly Condition[] = status.conditions ?? [];
  const set = (type: string, value: boolean | 'Unknown', why: string, text: string) => {
    conditions = setCondition(
      conditions,
      { type, status: value, reason: why, message: clip(text), observedGeneration: generation },
      now,
    );
  };
  set(READY, done, reason, message);
  const all = [...required, ...optional];
  const atSites = (holds: (row: SiteRow | undefined) => boolean) =>
    all.length > 0 && required.every((name) => holds(rowOf(name))) && all.some((name) => holds(rowOf(name)));
  const missing = done && disposition === 'Serve' ? (all.length === 0 ? 'NoSites' : 'Pending') : reason;
  const available = disposition === 'Serve' && atSites(isAvailable);
  set(
    'Available',
    available,
    available ? 'Serving' : missing,
    available ? 'every required site serves a verified image' : message,
  );
  const seen = facts.fetched || rows.some((row) => row.imageID !== undefined && row.observedGeneration === generation);
  const download = facts.download?.step;
  const fetching =
    disposition === 'Serve' ? (trouble?.reason ?? (download === 'Verifying' ? 'Verifying' : 'Fetching')) : reason;
  set(
    'Fetched',
    seen || download === 'Verifying',
    seen || download === 'Verifying' ? 'Fetched' : fetching,
    seen ? 'all bytes are here or registered' : message,
  );
  set('Verified', seen, seen ? 'Verified' : fetching, seen ? 'the bytes are what was declared' : message);
  const registered = atSites((row) => row?.imageID !== undefined);
  set('Registered', registered, registered ? 'Registered' : missing, message);
  const stalled = !done && trouble?.stalled === true;
  // Absent, not False: kstatus takes either one's presence with status True as the answer.
  if (stalled) set(STALLED, true, reason, message);
  else conditions = removeCondition(conditions, STALLED);
  if (!done && !stalled) set(RECONCILING, true, status.phase, message);
  else conditions = removeCondition(conditions, RECONCILING);
  status.conditions = [...conditions];
  summary(facts, status, generation);
}

function phaseOf(facts: Facts, done: boolean, trouble: Facts['trouble']): string {
  const { disposition, rows, download } = facts;
  if (disposition === 'Suspended' || disposition === 'Deleting') return disposition;
  if (disposition !== 'Serve' && done) return disposition;
  if (done) return 'Ready';
  if (trouble?.stalled === true) return 'Failed';
  const busy = BUSY.find((phase) => rows.some((row) => row.phase === phase));
  if (busy === 'Fetching' || busy === 'Pending' || busy === undefined) {
    if (download?.step === 'Verifying') return 'Verifying';
    if (download !== undefined && download.step !== 'Queued') return 'Fetching';
  }
  return busy ?? 'Pending';
}

function messageOf(facts: Facts, done: boolean, trouble: Facts['trouble']): string {
  const { disposition, rows, required, optional } = facts;
  if (done && disposition === 'Serve') {
    const failed = optional
      .map((name) => rows.find((row) => row.name === name))
      .filter((row) => row?.phase === 'Failed');
    const also = failed.length > 0 ? `; optional and failed: ${failed.map((row) => row?.name).join(', ')}` : '';
    if (required.length === 0 && optional.length === 0) return 'no site is asked for';
    return `registered at ${listOf(rows.filter((row) => row.imageID !== undefined).map((row) => row.name))}${also}`;
  }
  if (done)
    return disposition === 'Expired'
      ? `expired at ${facts.image.spec.expiresAt}, as asked`
      : 'out of service everywhere, as asked';
  if (trouble !== undefined) return trouble.message;
  const waiting = waitingRow(facts);
  if (waiting !== undefined) return `${waiting.name}: ${waiting.message ?? waiting.phase ?? 'pending'}`;
  return disposition === 'Deleting' ? 'its registrations are being removed' : 'work has begun';
}

/** The first of the required sites that does not serve yet, or is not out of service yet, speaks for the image. */
function waitingRow({ rows, required, disposition }: Facts): SiteRow | undefined {
  return required
    .map((name) => rows.find((row) => row.name === name))
    .find((row) => row !== undefined && row.phase !== 'Ready' && row.phase !== disposition);
}

/** What is in the way by its name (`SiteNotReady`, `ToolMissing`); what is merely at work is told by its phase. */
function reasonToWait(row: SiteRow | undefined): string | undefined {
  return row?.reason !== undefined && Object.hasOwn(REASONS, row.reason) ? row.reason : undefined;
}

function summary(facts: Facts, status: VMImageStatus, generation: number): void {
  const { rows, required, optional, download } = facts;
  const all = [...required, ...optional];
  const ready = all.filter((name) =>
    isReady(
      rows.find((row) => row.name === name),
      generation,
    ),
  ).length;
  const ids = [...new Set(rows.map((row) => row.imageID).filter((id) => id !== undefined))];
  const transfer = progressOf(facts);
  if (transfer === undefined) delete status.progress;
  else status.progress = transfer;
  const imageID = ids.length === 1 ? ids[0] : ids.length > 1 ? `${ids[0]} +${ids.length - 1}` : undefined;
  status.summary = {
    sites: `${ready}/${all.length}`,
    ...(imageID === undefined ? {} : { imageID }),
    ...(transfer?.percent === undefined
      ? ready === all.length && all.length > 0 && download === undefined
        ? { progress: '100%' }
        : {}
      : { progress: `${transfer.percent}%` }),
  };
}

/** The download while there is one, else the upload that is least far. */
function progressOf({ rows, download }: Facts): VMImageStatus['progress'] {
  if (download !== undefined && download.step !== 'Queued') {
    const { bytes, totalBytes, bytesPerSecond } = download;
    return {
      step: 'Fetch',
      bytes,
      bytesPerSecond,
      ...(totalBytes === undefined ? {} : { totalBytes, percent: percentOf(bytes, totalBytes) }),
    };
  }
  const uploads = rows.map((row) => row.progress).filter((progress) => progress !== undefined);
  return uploads.sort((a, b) => (a.percent ?? 0) - (b.percent ?? 0))[0];
}

function listOf(names: readonly string[]): string {
  return names.length > 5
    ? `${names.slice(0, 5).join(', ')} and ${names.length - 5} more`
    : names.join(', ') || 'no site';
}
