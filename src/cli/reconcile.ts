import { findCondition, kstatus, READY } from '../api/conditions.ts';
import { REASONS } from '../api/failure.ts';
import { isAnswered, requestAfter } from '../api/request.ts';
import { ANNOTATIONS, type ApiObject } from '../api/types.ts';
import type { StoredResource } from '../stores/directory/records.ts';
import { CommandError, EXIT } from './exit.ts';
import { nameLine, targetOf, titleOf } from './kinds.ts';
import { type CommandContext, printable } from './output.ts';
import { openPlace } from './open-place.ts';
import type { PlaceOptions } from './place.ts';
import { isForSomebody } from './somebody.ts';
import { tellUnattended } from './unattended.ts';
import { watchFor } from './watching.ts';

export interface ReconcileOptions extends PlaceOptions {
  wait: boolean;
  timeout: number;
}

/** `imageproxy reconcile KIND/NAME`: clears every back-off, looks again, and says what came of it. */
export async function reconcile(text: string, options: ReconcileOptions, context: CommandContext): Promise<number> {
  await using place = await openPlace(options, context);
  const target = targetOf(text, undefined, place.namespace);
  const found = await place.get(target.kind, target.key);
  if (found === undefined) {
    throw new CommandError(EXIT.notFound, `there is no ${titleOf(target)} in ${place.title}`);
  }
  const requestedAt = requestAfter(found.metadata.annotations, handledOf(found), context.now());
  const session = await place.act();
  try {
    await session.annotate(target.kind, target.key, { [ANNOTATIONS.requestedAt]: requestedAt });
    if (!options.wait) {
      context.out.line(`${nameLine(target)} reconcile requested`);
      return EXIT.ok;
    }
    const settled = await watchFor(session, context, {
      ...target,
      timeoutMs: options.timeout,
      ended: session.ended,
      onOverdue: tellUnattended(place, (why) => context.err.line(why)),
      decide: (object) => {
        if (object === undefined) throw new CommandError(EXIT.notFound, `${titleOf(target)} is gone`);
        const api = object as unknown as ApiObject;
        if (!isAnswered(requestedAt, handledOf(object))) return undefined;
        return api.spec.suspend || kstatus(api).status !== 'InProgress' || isForSomebody(api) ? api : undefined;
      },
      // A machine that is busy may not have come to the first look.
      onTimeout: (last = found) => {
        const conditions = (last as unknown as ApiObject).status?.conditions;
        const message = findCondition(conditions, READY)?.message ?? 'nothing is known yet';
        // What is told then is from before, and may be that all is well.
        const since = isAnswered(requestedAt, handledOf(last)) ? '' : 'the look has not ended; before it, ';
        return new CommandError(
          EXIT.timedOut,
          `${titleOf(target)} is not settled after ${options.timeout / 1000} s: ${since}${printable(message)}; follow it with "${place.typed('watch', target)}"`,
        );
      },
    });
    const message = printable(findCondition(settled.status.conditions, READY)?.message ?? '');
    if (kstatus(settled).status === 'Failed') {
      throw new CommandError(EXIT.failed, `${titleOf(target)} is stalled: ${message}`);
    }
    if (isForSomebody(settled))
      throw new CommandError(EXIT.failed, `${titleOf(target)} waits for somebody to act: ${message}`);
    const unseen = unseenOf(settled);
    if (unseen !== undefined)
      throw new CommandError(EXIT.failed, `${titleOf(target)} is as it was: ${printable(unseen)}`);
    context.out.line(
      `${nameLine(target)} reconciled: ${settled.spec.suspend ? 'it is suspended, set spec.suspend: false to go on' : message}`,
    );
    return EXIT.ok;
  } finally {
    await session.close();
  }
}

function handledOf(object: StoredResource | undefined): string | undefined {
  return (object as unknown as ApiObject | undefined)?.status?.lastHandledReconcileAt;
}

/**
 * What keeps an image that serves from being looked at: Ready does not tell that, for what serves goes on serving. (A site that is not
 * asked for any more, and waits for a person's word, keeps nothing.)
 */
function unseenOf({ kind, spec, status }: ApiObject): string | undefined {
  if (kind !== 'VMImage' || spec.suspend === true) return undefined;
  const row = status.sites?.find(
    ({ phase, reason = 'ConfirmationRequired' }) =>
      phase === 'Ready' && reason !== 'ConfirmationRequired' && Object.hasOwn(REASONS, reason),
  );
  return row && `${row.name}: ${row.message ?? row.reason}`;
}
