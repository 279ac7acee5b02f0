import { clip, findCondition, removeCondition, setCondition, timestamp } from '../../api/conditions.ts';
import { requestOf } from '../../api/request.ts';
import type { ImageSubscription, ImageSubscriptionStatus } from '../../api/types.ts';
import { type EventNote, keyOf } from '../../stores/store.ts';
import { forResource, type Logger } from '../../telemetry/log.ts';
import type { Deps } from '../deps.ts';
import type { Memory } from './lists.ts';

/** One look at one subscription: the object as it was read, and the status that will be written, once. */
export interface Look {
  readonly subscription: ImageSubscription;
  readonly deps: Deps;
  readonly asker: string;
  readonly log: Logger;
  readonly namespace: string;
  readonly uid: string;
  readonly now: number;
  readonly generation: number;
  /** A private copy; becomes the new status. */
  readonly status: ImageSubscriptionStatus;
  /** Somebody asked for a fresh look since the last one: every back-off is void. */
  readonly asked: boolean;
  /** What was asked for last, and what of that was handled when this look began. */
  readonly request: string | undefined;
  readonly handledBefore: string | undefined;
  readonly memory: Memory;
  /** The request whose reading has ended in this look. That counts once what came of it is written. */
  answers: string | undefined;
  /** A reading with what counts now has ended in this look. That ends the doubt for good once what came of it is written. */
  judged: boolean;
  /** Run after the status is durable. */
  readonly starts: (() => void)[];
  readonly notes: EventNote[];
  /** When to look again without being woken, in milliseconds since the epoch. */
  lookAgainAt: number | undefined;
}

const ASKER_PREFIX = 'ImageSubscription/';

/** Under which name jobs know a subscription. */
export function askerOf(subscription: ImageSubscription): string {
  return `${ASKER_PREFIX}${keyOf(subscription)}`;
}

export function beginLook(subscription: ImageSubscription, deps: Deps): Look {
  const { metadata } = subscription;
  const namespace = metadata.namespace ?? 'default';
  const status = structuredClone(subscription.status ?? {});
  const request = requestOf(metadata.annotations);
  const memory = deps.lists.memory(metadata.uid);
  const handledBefore = status.lastHandledReconcileAt;
  const asked = request !== undefined && request !== handledBefore && request !== memory.heard;
  if (request !== undefined) status.lastHandledReconcileAt = request;
  return {
    subscription,
    deps,
    asker: askerOf(subscription),
    log: forResource(deps.log, { kind: subscription.kind, namespace, name: metadata.name }),
    namespace,
    uid: metadata.uid,
    now: deps.clock.now(),
    generation: metadata.generation,
    status,
    asked,
    request,
    handledBefore,
    memory,
    answers: undefined,
    judged: false,
    starts: [],
    notes: [],
    lookAgainAt: undefined,
  };
}

/** The status of this look is durable, and with it what was asked for and what came of that. */
export function endLook({ request, memory, answers, judged }: Look): void {
  if (request !== undefined) memory.heard = request;
  if (answers !== undefined) memory.answered = answers;
  if (judged) delete memory.doubtful;
}

/** Asks to be woken at this time at the latest. */
export function lookAgain(look: Look, at: number): void {
  if (look.lookAgainAt === undefined || at < look.lookAgainAt) look.lookAgainAt = at;
}

export function stamp(look: Look): string {
  return timestamp(look.now);
}

export function note(look: Look, type: EventNote['type'], reason: string, message: string): void {
  look.notes.push({ type, reason, message });
}

export function tellCondition(
  look: Look,
  type: string,
  value: boolean | 'Unknown',
  reason: string,
  message: string,
): void {
  const { status, generation, now } = look;
  const change = { type, status: value, reason, message: clip(message), observedGeneration: generation };
  status.conditions = [...setCondition(status.conditions, change, now)];
}

export function untell(look: Look, type: string): void {
  look.status.conditions = [...removeCondition(look.status.conditions, type)];
}

/** What a condition of this look says, as it will be written. */
export function told({ status }: Look, type: string) {
  return findCondition(status.conditions, type);
}
