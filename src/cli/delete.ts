import { findCondition } from '../api/conditions.ts';
import type { Condition, VMImage } from '../api/types.ts';
import { appliedBy } from './applied-by.ts';
import { CommandError, EXIT } from './exit.ts';
import { nameLine, type Target, targetOf, titleOf } from './kinds.ts';
import { type CommandContext, printable } from './output.ts';
import { openPlace } from './open-place.ts';
import type { Place, PlaceOptions } from './place.ts';
import type { Session } from './session.ts';
import { watchFor } from './watching.ts';
import type { StoredResource } from '../stores/directory/records.ts';

export interface DeleteOptions extends PlaceOptions {
  wait: boolean;
  timeout: number;
}

/** `imageproxy delete KIND/NAME…`: out of its manifest, then out of the clouds as its deletionPolicy says. */
export async function deleteObjects(
  texts: readonly string[],
  options: DeleteOptions,
  context: CommandContext,
): Promise<number> {
  await using place = await openPlace(options, context);
  const targets = texts.map((text) => targetOf(text, undefined, place.namespace));
  const found: { target: Target; object: StoredResource }[] = [];
  for (const target of targets) {
    const object = await place.get(target.kind, target.key);
    if (object === undefined) throw new CommandError(EXIT.notFound, `there is no ${titleOf(target)} in ${place.title}`);
    found.push({ target, object });
  }
  const session = await place.act();
  try {
    // Only now: where no process had read the manifests, our own has.
    const files = await Promise.all(found.map(({ target }) => place.manifestOf(target.kind, target.key)));
    for (const [i, { target }] of found.entries()) await refuseSecondFile(target, files[i], place);
    for (const [i, { target }] of found.entries()) await takeOutOfManifest(target, files[i], context);
    for (const { target, object } of found) {
      await session.delete(target.kind, target.key, object.metadata.uid);
      const writer = appliedBy(object);
      if (writer === undefined) continue;
      context.err.line(`${titleOf(target)} is applied by ${printable(writer)}: take it out there, else it comes again`);
    }
    if (!options.wait) {
      for (const { target } of found) context.out.line(`${nameLine(target)} is being deleted`);
      return EXIT.ok;
    }
    const until = context.now() + options.timeout;
    for (const { target } of found) {
      await gone(place, session, target, Math.max(0, until - context.now()), context);
      context.out.line(`${nameLine(target)} deleted`);
    }
    return EXIT.ok;
  } finally {
    await session.close();
  }
}

/** @throws CommandError where another file holds the object as well, and would make it again */
async function refuseSecondFile(target: Target, first: string | undefined, place: Place): Promise<void> {
  const { mayBeInManifest } = await import('../stores/directory/edit.ts');
  for (const { object, file } of await place.problems()) {
    // They may be of a process that has ended.
    if (object !== titleOf(target) || file === first || !(await mayBeInManifest(file, target))) continue;
    throw new CommandError(
      EXIT.failed,
      `${titleOf(target)} is also in ${file}, which would make it again: take it out there, then delete it`,
    );
  }
}

async function takeOutOfManifest(target: Target, file: string | undefined, { err }: CommandContext): Promise<void> {
  if (file === undefined) return;
  const { removeFromManifest } = await import('../stores/directory/edit.ts');
  try {
    await removeFromManifest(file, { kind: target.kind, key: target.key });
    err.line(`removed ${titleOf(target)} from ${file}`);
  } catch (error) {
    const { Failure } = await import('../api/failure.ts');
    // Somebody took it out before us.
    if (!(error instanceof Failure) || error.reason !== 'NotFound') throw error;
  }
}

const HELD_REASONS = ['DeletionHeld', 'ConfirmationRequired'];

async function gone(
  place: Place,
  session: Session,
  target: Target,
  timeoutMs: number,
  context: CommandContext,
): Promise<void> {
  let told = '';
  await watchFor(session, context, {
    ...target,
    timeoutMs,
    ended: session.ended,
    decide: (object) => {
      if (object === undefined) return true;
      const why = whyHeld(object);
      if (why !== undefined && why !== told) context.err.line(`${titleOf(target)}: ${why}`);
      told = why ?? told;
      return undefined;
    },
    onTimeout: (last) => {
      const why = last === undefined ? undefined : (whyHeld(last) ?? readyMessage(last));
      return new CommandError(
        EXIT.timedOut,
        `${titleOf(target)} is still being deleted${why === undefined ? '' : `: ${why}`}; it goes on, look at it with "${place.typed('describe', target)}"`,
      );
    },
  });
}

function whyHeld(object: StoredResource): string | undefined {
  const { conditions, sites } = (object.status ?? {}) as Partial<VMImage['status']>;
  // A site that is in use may be as Ready as ever.
  const held = findCondition(conditions, 'DeletionHeld');
  if (held?.status === 'True') return printable(held.message);
  const ready = findCondition(conditions, 'Ready');
  if (ready !== undefined && HELD_REASONS.includes(ready.reason)) return printable(ready.message);
  const row = sites?.find(
    ({ phase, reason, message }) => phase === 'Deleting' && reason !== undefined && message !== undefined,
  );
  return row === undefined ? undefined : printable(`${row.name}: ${row.message}`);
}

function readyMessage(object: StoredResource): string | undefined {
  const { conditions } = (object.status ?? {}) as { conditions?: Condition[] };
  const message = findCondition(conditions, 'Ready')?.message;
  return message === undefined ? undefined : printable(message);
}
