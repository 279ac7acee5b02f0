import { timestamp } from '../../api/conditions.ts';
import type { SiteRow, VMImage, VMImageStatus } from '../../api/types.ts';
import type { EventNote } from '../../stores/store.ts';
import { keyOf } from '../../stores/store.ts';
import { forResource, type Logger } from '../../telemetry/log.ts';
import type { Deps } from '../deps.ts';
import { divided } from '../duties.ts';
import { guidOf, ownerOf } from './identity.ts';

/**
 * One reconcile of one image: the object as it was read, the status that will be written, and what is started once that is
 * durable. Steps change the draft; `index.ts` writes it once.
 */
export interface Round {
  readonly image: VMImage;
  readonly deps: Deps;
  readonly key: string;
  /** Carries the image's kind, namespace and name. */
  readonly log: Logger;
  readonly namespace: string;
  readonly guid: string;
  readonly owner: string;
  readonly now: number;
  readonly generation: number;
  /** A private copy; becomes the new status. Its rows are those of the sites that this controller serves. */
  readonly status: VMImageStatus & { sites: SiteRow[] };
  /** The rows of other controllers, as they are. */
  readonly others: readonly SiteRow[];
  /** Somebody asked for a fresh look since the last round: every back-off is void. */
  readonly asked: boolean;
  /** What somebody has asked for last. */
  readonly request: string | undefined;
  /** Whether the look that was asked for has yet to end at a site: till then the request is not handled. */
  unanswered: boolean;
  /** Requests by site whose looks have ended in this round. That counts once what came of them is written: else nobody would tell it. */
  readonly answered: Map<string, string>;
  /** Run after the status is durable: work that may create something in a cloud must find its operation written down. */
  readonly starts: (() => void)[];
  readonly notes: EventNote[];
  /** When to look again without being woken, in milliseconds since the epoch. */
  lookAgainAt: number | undefined;
}

/** The job that works for this image at this site. */
export function jobKey(round: Round, site: string): string {
  return `site/${round.image.metadata.uid}/${site}`;
}

export function beginRound(image: VMImage, requestedAt: string | undefined, deps: Deps): Round {
  const namespace = image.metadata.namespace ?? 'default';
  const { sites = [], ...rest } = image.status ?? {};
  const { ours, others } = divided(sites, deps.duties);
  const status = structuredClone({ ...rest, ...recalled(image, deps), sites: ours }) as Round['status'];
  const key = keyOf(image);
  const { looks } = deps;
  const undone = ours.filter((row) => !isDone(row, requestedAt, deps));
  const isHandled = status.lastHandledReconcileAt === requestedAt || (ours.length > 0 && undone.length === 0);
  const asked = requestedAt !== undefined && !isHandled && !looks.hasHeard(key, requestedAt);
  if (asked) for (const row of undone) if (row.imageID !== undefined) looks.ask(key, row.name, requestedAt);
  return {
    image,
    deps,
    key,
    log: forResource(deps.log, { kind: image.kind, namespace, name: image.metadata.name }),
    namespace,
    guid: guidOf(image, deps.settings.instance),
    owner: ownerOf(deps.settings.instance, namespace),
    now: deps.clock.now(),
    generation: image.metadata.generation,
    status,
    others,
    asked,
    request: requestedAt,
    unanswered: false,
    answered: new Map(),
    starts: [],
    notes: [],
    lookAgainAt: undefined,
  };
}

/**
 * Whether a look at this row is asked for that has not been made. Where several share the image each says in its own rows what it is done
 * with, and the top follows when every row says it. So the top counts for rows that say nothing, or something older: those that a
 * controller wrote while it was alone. A row that is done with stays so when another comes to the same controller that is not.
 */
export function isAskedOf({ request, asked, deps }: Round, row: SiteRow): boolean {
  return asked && !isDone(row, request, deps);
}

function isDone(row: SiteRow, request: string | undefined, { duties }: Deps): boolean {
  return duties.shared && row.lastHandledReconcileAt === request;
}

/** Says what is done with: by this controller once its looks have ended, by all once every row says so. */
export function tellHandled({ status, others, request, unanswered, deps }: Round): void {
  if (request === undefined || unanswered || status.lastHandledReconcileAt === request) return;
  if (deps.duties.shared) {
    for (const row of status.sites) row.lastHandledReconcileAt = request;
    if (others.some((row) => row.lastHandledReconcileAt !== request)) return;
  }
  status.lastHandledReconcileAt = request;
}

/** The request that waits for a look at this site. */
export function awaitedAt({ deps, key, answered }: Round, site: string): string | undefined {
  const request = deps.looks.asked(key, site);
  return request === answered.get(site) ? undefined : request;
}

/** A look that began for this request has ended; without one: there is nothing that could be looked at. */
export function answer(round: Round, site: string, request = awaitedAt(round, site)): void {
  if (request !== undefined) round.answered.set(site, request);
}

/** The status of this round is durable, and with it what came of its looks. */
export function endLooks({ deps, key, answered }: Round): void {
  for (const [site, request] of answered) deps.looks.answer(key, site, request);
}

/** What this controller itself has last said of the image, where the status holds what another has said. */
function recalled({ metadata, status }: VMImage, { duties }: Deps): Partial<VMImageStatus> {
  if (!duties.shared) return {};
  const known = duties.remembered.get(keyOf(metadata));
  // After a start what stands there is taken over: a back-off of the same inputs is as good as our own.
  const { failure, artifacts } = known?.uid === metadata.uid ? known : (status ?? {});
  return { failure, artifacts } as Partial<VMImageStatus>;
}

/** Keeps what the next round needs of this one, where the place for it in the status is another's. */
export function remember({ deps: { duties }, image, key, status }: Round): void {
  if (!duties.shared) return;
  const { failure, artifacts } = status;
  duties.remembered.set(key, {
    uid: image.metadata.uid,
    ...(failure === undefined ? {} : { failure }),
    ...(artifacts === undefined ? {} : { artifacts }),
  });
}

/** Asks to be woken at this time at the latest. */
export function lookAgain(round: Round, at: number): void {
  if (round.lookAgainAt === undefined || at < round.lookAgainAt) round.lookAgainAt = at;
}

/**
 * Whether a date that was written earlier has come. One that is further away than it was ever set was written while the clock was
 * ahead: to wait for it would take as long as the clock was wrong by.
 * @param at milliseconds since the epoch
 */
export function isDue({ now }: Pick<Round, 'now'>, at: number, longestMs: number): boolean {
  return at <= now || at > now + longestMs;
}

export function stamp(round: Round): string {
  return timestamp(round.now);
}

export function note(round: Round, type: EventNote['type'], reason: string, message: string): void {
  round.notes.push({ type, reason, message });
}
