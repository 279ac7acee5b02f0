import type { Condition } from './generated.ts';

/** Types of conditions that all kinds share, and that kstatus, Flux and `kubectl wait` understand. */
export const READY = 'Ready';
export const RECONCILING = 'Reconciling';
export const STALLED = 'Stalled';

/** Longest message of a condition or row that the CRDs take (rows; conditions would take 32768), in characters. */
export const MESSAGE_LIMIT = 4096;

/** A message that fits: the beginning, which names what failed, is kept. */
export function clip(message: string, limit = MESSAGE_LIMIT): string {
  const characters = message.length <= limit ? [] : Array.from(message);
  return characters.length <= limit ? message : `${characters.slice(0, limit - 1).join('')}…`;
}

export interface ConditionChange {
  type: string;
  status: boolean | 'Unknown';
  reason: string;
  message: string;
  /** The generation that was looked at. */
  observedGeneration: number;
}

/**
 * The list with one condition set, in its place; a new list only where something differs, so that an unchanged status is not
 * written again. `lastTransitionTime` tells when `status` changed, not when the message did.
 *
 * @param now milliseconds since the epoch
 */
export function setCondition(
  conditions: readonly Condition[] | undefined,
  change: ConditionChange,
  now: number,
): readonly Condition[] {
  const list = conditions ?? [];
  const before = findCondition(list, change.type);
  const status = change.status === 'Unknown' ? 'Unknown' : change.status ? 'True' : 'False';
  const after: Condition = {
    type: change.type,
    status,
    observedGeneration: change.observedGeneration,
    lastTransitionTime: before?.status === status ? before.lastTransitionTime : timestamp(now),
    reason: change.reason,
    message: clip(change.message),
  };
  if (before === undefined) return [...list, after];
  if (
    before.status === after.status &&
    before.reason === after.reason &&
    before.message === after.message &&
    before.observedGeneration === after.observedGeneration
  ) {
    return list;
  }
  return list.map((each) => (each === before ? after : each));
}

/** The list without a condition: Reconciling and Stalled are absent when they do not hold, as kstatus wants it. */
export function removeCondition(conditions: readonly Condition[] | undefined, type: string): readonly Condition[] {
  const list = conditions ?? [];
  return list.some((each) => each.type === type) ? list.filter((each) => each.type !== type) : list;
}

export function findCondition(conditions: readonly Condition[] | undefined, type: string): Condition | undefined {
  return conditions?.find((each) => each.type === type);
}

export function isTrue(conditions: readonly Condition[] | undefined, type: string): boolean {
  return findCondition(conditions, type)?.status === 'True';
}

/** RFC 3339 in UTC with whole seconds, as metav1.Time is written. */
export function timestamp(now: number): string {
  return new Date(now).toISOString().replace(/\.\d{3}Z$/, 'Z');
}

export type KStatus = 'Current' | 'InProgress' | 'Failed' | 'Terminating';

export interface KStatusObject {
  metadata: { generation: number; deletionTimestamp?: string };
  status?: { observedGeneration?: number; conditions?: readonly Condition[] };
}

/**
 * How kstatus reads an object (https://github.com/kubernetes-sigs/cli-utils/tree/master/pkg/kstatus, generic rules, in their
 * order): what `kubectl wait`, Flux and our own `imageproxy wait` go by.
 */
export function kstatus(object: KStatusObject): { status: KStatus; message: string } {
  const { metadata, status } = object;
  if (metadata.deletionTimestamp !== undefined) return { status: 'Terminating', message: 'it is being deleted' };
  const observed = status?.observedGeneration;
  if (observed !== undefined && observed !== metadata.generation) {
    return { status: 'InProgress', message: 'its newest generation has not been looked at yet' };
  }
  const reconciling = findCondition(status?.conditions, RECONCILING);
  if (reconciling?.status === 'True') return { status: 'InProgress', message: reconciling.message };
  const stalled = findCondition(status?.conditions, STALLED);
  if (stalled?.status === 'True') return { status: 'Failed', message: stalled.message };
  const ready = findCondition(status?.conditions, READY);
  if (ready !== undefined && ready.status !== 'True') return { status: 'InProgress', message: ready.message };
  return { status: 'Current', message: ready?.message ?? '' };
}
