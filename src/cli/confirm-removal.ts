import { findCondition, READY } from '../api/conditions.ts';
import { confirmationOf, listRemovalWord } from '../api/removal.ts';
import { ANNOTATIONS, type ImageSubscription, type SiteRow, type VMImage } from '../api/types.ts';
import { CommandError, EXIT } from './exit.ts';
import { nameLine, type Target, targetOf, titleOf } from './kinds.ts';
import { type CommandContext, printable } from './output.ts';
import { openPlace } from './open-place.ts';
import type { Place, PlaceOptions } from './place.ts';
import type { Session } from './session.ts';
import { tellUnattended } from './unattended.ts';
import { watchFor } from './watching.ts';

export interface ConfirmRemovalOptions extends PlaceOptions {
  timeout: number;
}

/** `imageproxy confirm-removal vmimg/NAME SITE`, or `imgsub/NAME`: what is kept until a person has said so may go. */
export async function confirmRemoval(
  text: string,
  site: string | undefined,
  options: ConfirmRemovalOptions,
  context: CommandContext,
): Promise<number> {
  await using place = await openPlace(options, context);
  const target = targetOf(text, undefined, place.namespace);
  if (target.kind === 'ImageSite') {
    throw new CommandError(
      EXIT.usage,
      `removals are of VMImages and ImageSubscriptions: write vmimg/NAME ${target.key.name}`,
    );
  }
  const found = await place.get(target.kind, target.key);
  if (found === undefined) throw new CommandError(EXIT.notFound, `there is no ${titleOf(target)} in ${place.title}`);
  const ask: Ask = { place, target, timeoutMs: options.timeout, context };
  if (target.kind === 'ImageSubscription') {
    if (site !== undefined) throw new CommandError(EXIT.usage, `${titleOf(target)} is at no site: leave "${site}" out`);
    await confirmOfList(found as ImageSubscription, ask);
  } else {
    if (site === undefined) throw new CommandError(EXIT.usage, `name the site: confirm-removal ${text} SITE`);
    await confirmAtSite(found as VMImage, site, ask);
  }
  return EXIT.ok;
}

interface Ask {
  place: Place;
  target: Target;
  timeoutMs: number;
  context: CommandContext;
}

async function confirmAtSite(image: VMImage, site: string, ask: Ask): Promise<void> {
  const { place, target, context } = ask;
  const rows = image.status?.sites ?? [];
  const row = rows.find(({ name }) => name === site);
  if (row === undefined) {
    const known = rows.length > 0 ? `: it is at ${rows.map(({ name }) => name).join(', ')}` : '';
    throw new CommandError(EXIT.notFound, `${titleOf(target)} is not at the site "${site}"${known}`);
  }
  if (row.heldSince === undefined && row.reason === 'IdentityChanged') {
    // The place itself is to be confirmed first; only then is it clear what is left behind.
    throw new CommandError(EXIT.failed, printable(`nothing waits for a confirmation yet: ${row.message ?? site}`));
  }
  // One that is listed may be held as well: where the site is closed to the namespace, or is another place.
  if (row.heldSince === undefined && image.spec.sites?.some(({ name }) => name === site) === true) {
    throw new CommandError(
      EXIT.usage,
      `${titleOf(target)} asks for the site "${site}" in spec.sites: take it out there, and it is removed`,
    );
  }
  const session = await place.act();
  try {
    const held = await letGo(session, site, ask);
    const isLeftBehind = held?.reason === 'IdentityChanged';
    const what = isLeftBehind ? `left behind at ${held?.siteIdentity ?? site}` : `removed from ${site}`;
    context.out.line(`${nameLine(target)} ${what}`);
  } finally {
    await session.close();
  }
}

/**
 * Confirms, once the controllers have seen that it is to be held, for they alone name the occasion; then waits until that is over.
 * Returns the row as it was held; undefined when nothing was left to confirm.
 * @throws CommandError when it is over because the image is asked for there again
 */
async function letGo(session: Session, site: string, ask: Ask): Promise<SiteRow | undefined> {
  const { place, target, timeoutMs, context } = ask;
  const { promise: refused, reject: refuse } = Promise.withResolvers<never>();
  // Nobody may be waiting for it any more.
  refused.catch(() => undefined);
  const tellWhoWorks = tellUnattended(place, (why) => context.err.line(why));
  const notHeld = `${titleOf(target)} waits for no confirmation at ${site}: it is asked for there, or its controller has not looked yet`;
  let held: SiteRow | undefined;
  await watchFor(session, context, {
    ...target,
    timeoutMs,
    ended: Promise.race([session.ended, refused]),
    decide: (object) => {
      if (object === undefined)
        throw new CommandError(EXIT.notFound, `${titleOf(target)} was deleted meanwhile: its registrations go with it`);
      const image = object as VMImage;
      const row = image.status?.sites?.find(({ name }) => name === site);
      if (row === undefined) return true;
      if (held === undefined) {
        if (row.heldSince === undefined) return undefined;
        held = row;
        const annotations = { [ANNOTATIONS.confirmRemoval]: confirmationOf(image, row) };
        session.annotate(target.kind, target.key, annotations).catch(refuse);
        return undefined;
      }
      if (row.heldSince === held.heldSince) return undefined;
      if (row.imageID === undefined || row.imageID !== held.imageID || row.siteIdentity !== held.siteIdentity)
        return true;
      throw new CommandError(EXIT.failed, `${titleOf(target)} belongs at ${site} again: nothing was removed there`);
    },
    onOverdue: (last) => {
      if (held === undefined) context.err.line(notHeld);
      tellWhoWorks(last);
    },
    onTimeout: () =>
      new CommandError(
        EXIT.timedOut,
        held === undefined
          ? notHeld
          : `${titleOf(target)} is still at ${site}; it is confirmed and goes on: ${place.typed('describe', target)}`,
      ),
  });
  return held;
}

/** So many images are gone from an unsigned list that nothing is done: the word is of that very list. */
async function confirmOfList(subscription: ImageSubscription, ask: Ask): Promise<void> {
  const { place, target, timeoutMs, context } = ask;
  const digest = subscription.status?.list?.digest;
  if (!isHeld(subscription) || digest === undefined) {
    throw new CommandError(EXIT.failed, `${titleOf(target)} waits for no confirmation`);
  }
  const session = await place.act();
  try {
    await session.annotate(target.kind, target.key, { [ANNOTATIONS.confirmListRemoval]: listRemovalWord(digest) });
    await watchFor(session, context, {
      ...target,
      timeoutMs,
      ended: session.ended,
      onOverdue: tellUnattended(place, (why) => context.err.line(why)),
      decide: (object) => {
        if (object === undefined) throw new CommandError(EXIT.notFound, `${titleOf(target)} was deleted meanwhile`);
        return isHeld(object as ImageSubscription) ? undefined : true;
      },
      onTimeout: () =>
        new CommandError(
          EXIT.timedOut,
          `${titleOf(target)} is confirmed, and was not taken up yet: ${place.typed('describe', target)}`,
        ),
    });
    context.out.line(`${nameLine(target)} removals confirmed`);
  } finally {
    await session.close();
  }
}

function isHeld({ status }: ImageSubscription): boolean {
  return findCondition(status?.conditions, READY)?.reason === 'ConfirmationRequired';
}
