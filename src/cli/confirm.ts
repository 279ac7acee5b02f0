import { requestState } from '../stores/directory/inbox.ts';
import { CommandError, EXIT } from './exit.ts';
import type { CommandContext } from './output.ts';
import { choosePlace, type PlaceOptions } from './place.ts';
import { openReader } from './state.ts';

const ANSWER_MS = 60_000;

/** `imageproxy confirm-deletions`: what is gone from the manifests is meant to be. */
export async function confirmDeletions(options: PlaceOptions, context: CommandContext): Promise<number> {
  const choice = choosePlace(options, context);
  if (choice.kind === 'cluster') {
    throw new CommandError(
      EXIT.usage,
      'deletions are held where manifests vanish from a directory; a cluster deletes what it is asked to: give --state for a directory',
    );
  }
  const { state } = choice;
  await openReader(state);
  const answer = await requestState(
    state,
    { type: 'confirm-deletions' },
    { timeoutMs: ANSWER_MS, signal: context.signal },
  );
  if (answer === undefined) {
    throw new CommandError(
      EXIT.failed,
      `no process works on ${state}, and deletions are held by one that does: start "imageproxy run", then confirm`,
    );
  }
  const confirmed = answer.confirmed ?? [];
  for (const id of confirmed) context.out.line(id);
  context.err.line(confirmed.length === 0 ? 'no deletion is held' : `confirmed: ${confirmed.length}`);
  return EXIT.ok;
}
