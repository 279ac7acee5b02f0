import { ANNOTATIONS, type VMImage } from '../api/types.ts';
import { requestState } from '../stores/directory/inbox.ts';
import { CommandError, EXIT } from './exit.ts';
import { nameLine, targetOf, titleOf } from './kinds.ts';
import type { CommandContext } from './output.ts';
import { openPlace } from './open-place.ts';
import { choosePlace, type PlaceOptions } from './place.ts';
import { openReader } from './state.ts';
import { watchFor } from './watching.ts';

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

export interface ConfirmRemovalOptions extends PlaceOptions {
  timeout: number;
}

/** `imageproxy confirm-removal vmimg/NAME SITE`: a site that no longer matches or admits the image may be cleaned up. */
export async function confirmRemoval(
  text: string,
  site: string,
  options: ConfirmRemovalOptions,
  context: CommandContext,
): Promise<number> {
  await using place = await openPlace(options, context);
  const target = targetOf(text, undefined, place.namespace);
  if (target.kind !== 'VMImage')
    throw new CommandError(EXIT.usage, `removals are of VMImages: write vmimg/${target.key.name}`);
  const image = (await place.get(target.kind, target.key)) as VMImage | undefined;
  if (image === undefined) throw new CommandError(EXIT.notFound, `there is no ${titleOf(target)} in ${place.title}`);
  const rows = image.status?.sites?.map(({ name }) => name) ?? [];
  if (!rows.includes(site)) {
    throw new CommandError(
      EXIT.notFound,
      `${titleOf(target)} is not at the site "${site}"${rows.length > 0 ? `: it is at ${rows.join(', ')}` : ''}`,
    );
  }
  if (image.spec.sites?.some(({ name }) => name === site) === true) {
    throw new CommandError(
      EXIT.usage,
      `${titleOf(target)} asks for the site "${site}" in spec.sites: take it out there, and it is removed`,
    );
  }
  const confirmed = (image.metadata.annotations?.[ANNOTATIONS.confirmRemoval] ?? '')
    .split(',')
    .map((name) => name.trim());
  const sites = [...new Set([...confirmed.filter((name) => name !== ''), site])].join(',');
  const session = await place.act();
  try {
    await session.annotate(target.kind, target.key, { [ANNOTATIONS.confirmRemoval]: sites });
    await watchFor(session, context, {
      ...target,
      timeoutMs: options.timeout,
      ended: session.ended,
      decide: (object) => {
        if (object === undefined)
          throw new CommandError(
            EXIT.notFound,
            `${titleOf(target)} was deleted meanwhile: its registrations go with it`,
          );
        const left = (object as VMImage).status?.sites?.some(({ name }) => name === site) === true;
        return left ? undefined : true;
      },
      onTimeout: () =>
        new CommandError(
          EXIT.timedOut,
          `${titleOf(target)} is still at ${site}; it is confirmed and goes on: ${place.typed('describe', target)}`,
        ),
    });
    context.out.line(`${nameLine(target)} removed from ${site}`);
    return EXIT.ok;
  } finally {
    await session.close();
  }
}
