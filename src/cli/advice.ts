import { findCondition, type KStatus, READY } from '../api/conditions.ts';
import type { ApiObject } from '../api/types.ts';
import type { Problem } from '../stores/directory/manifest.ts';
import type { Target } from './kinds.ts';
import type { Place } from './place.ts';
import { isForDecision } from './somebody.ts';

export interface Situation {
  object: ApiObject;
  target: Target;
  problems: readonly Problem[];
  /** A sentence with the cure, where nobody works on the object. */
  unattended: string | undefined;
  typed: Place['typed'];
  verdict: KStatus;
}

/** What a person can do now; the most urgent first. */
export function adviceOn({ object, target, problems, unattended, typed, verdict }: Situation): string[] {
  const lines: string[] = [];
  const error = problems.find(({ severity, held }) => severity === 'error' && held !== true);
  if (error !== undefined) {
    const place = error.line > 0 ? `${error.file}, line ${error.line}` : error.file;
    lines.push(`Correct ${place}; until then the last good state of it counts.`);
  }
  if (problems.some(({ held }) => held))
    lines.push(`Put the missing manifests back; if their objects are to be deleted: ${typed('confirm-deletions')}`);
  const settled = verdict === 'Current' || verdict === 'Failed';
  if (unattended !== undefined && !settled) lines.push(unattended);
  if (object.spec.suspend) return [...lines, 'It is suspended: set spec.suspend: false to go on.'];
  const ready = findCondition(object.status?.conditions, READY);
  switch (verdict) {
    case 'Terminating':
      if (object.kind === 'ImageSubscription')
        lines.push('Its images are let go of, or deleted, first; Ready says how many are left.');
      else if (object.kind !== 'VMImage')
        lines.push('It goes when nothing needs it any more; the condition DeletionHeld says what does.');
      else
        lines.push(
          'Its registrations are being removed. If a site cannot be reached: repair it, set spec.deletionPolicy: Retain, or spec.abandoned: true of the ImageSite.',
        );
      break;
    case 'Failed':
      lines.push(ready?.message ?? 'It is stalled.', `When that is put right: ${typed('reconcile', target)}`);
      break;
    case 'InProgress':
      if (ready?.reason === 'Lost' || ready?.reason === 'LossLimit')
        lines.push(`Find out who removed it; to have it registered again: ${typed('reconcile', target)}`);
      else if (isForDecision(object))
        lines.push(ready?.message ?? '', `When that is done: ${typed('reconcile', target)}`);
      lines.push(`Follow it: ${typed('watch', target)}`);
      if (!isForDecision(object)) lines.push(`Wait for it: ${typed('wait', target, '--for=condition=Ready')}`);
      break;
    case 'Current':
      if (ready?.status === 'True') lines.push(attentionAdvice(object) ?? 'Nothing: it is as asked for.');
      else lines.push(`It has not been looked at yet: ${typed('reconcile', target)}`);
  }
  return lines;
}

/** A list may be followed well, and some of its entries wait for a person nevertheless. */
function attentionAdvice(object: ApiObject): string | undefined {
  if (object.kind !== 'ImageSubscription') return undefined;
  const rows = object.status?.attention?.length ?? 0;
  return rows === 0 ? undefined : `Look at what is under Attention (${rows}); the rest is as asked for.`;
}
