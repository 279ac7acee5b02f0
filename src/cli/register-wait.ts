import { findCondition, kstatus, READY } from '../api/conditions.ts';
import { Failure, REASONS } from '../api/failure.ts';
import type { ImageSite, VMImage } from '../api/types.ts';
import { CommandError, EXIT } from './exit.ts';
import { type Target, titleOf } from './kinds.ts';
import { type CommandContext, printable } from './output.ts';
import type { Place } from './place.ts';
import { imageLine, LiveView } from './progress.ts';
import { leavingSite } from './register-sites.ts';
import { verdictOf, waitForRoom } from './register-verdict.ts';
import type { Session } from './session.ts';
import { tellUnattended } from './unattended.ts';
import { watchFor } from './watching.ts';

export interface Awaiting {
  session: Session;
  place: Place;
  target: Target;
  /** Set where an object that was there already is to be tried now. */
  requestedAt: string | undefined;
  sites: readonly string[];
  timeoutMs: number;
}

/** Waits until every site has it. @throws CommandError when that cannot be without somebody's doing, or in time */
export async function registered(awaited: Awaiting, context: CommandContext): Promise<VMImage> {
  const { session, place, target, timeoutMs } = awaited;
  const view = new LiveView(context.err);
  place.onTrouble = (message) => view.note(printable(message));
  const asked = { ...awaited, title: titleOf(target) };
  let told: string | undefined;
  using sites = await watchSites(awaited, context);
  try {
    return await watchFor(session, context, {
      ...target,
      timeoutMs,
      ended: Promise.race([session.ended, sites.trouble]),
      onOverdue: tellUnattended(place, (why) => view.note(why)),
      decide: (object) => {
        if (object === undefined) return undefined;
        const image = object as unknown as VMImage;
        view.show([imageLine(context.err, image, { brief: true })]);
        const room = waitForRoom(image);
        // The sizes in it change all the time: once is enough.
        if (room !== undefined && told === undefined) view.note(room);
        told = room;
        return verdictOf(image, asked);
      },
      onTimeout: (last) => {
        const message =
          findCondition((last as unknown as VMImage | undefined)?.status?.conditions, READY)?.message ??
          'it has not begun';
        return new CommandError(
          EXIT.timedOut,
          `${asked.title} is not registered after ${timeoutMs / 1000} s: ${printable(message)}; run the command again to go on from there`,
        );
      },
    });
  } finally {
    view.end();
  }
}

interface SiteWatch extends Disposable {
  /** Rejects when a site is in a trouble that only a person can end. */
  trouble: Promise<never>;
}

async function watchSites({ session, place, sites }: Awaiting, context: CommandContext): Promise<SiteWatch> {
  const { promise: trouble, reject } = Promise.withResolvers<never>();
  trouble.catch(() => undefined);
  const stop = new AbortController();
  // Our own controllers try a site that was in trouble before they came; others have tried it already. (And other machines have
  // other clocks.)
  const since = session.elsewhere === undefined ? context.now() - 1000 : 0;
  try {
    await session.watch(
      'ImageSite',
      {},
      ({ object }) => {
        const { name, deletionTimestamp } = object.metadata;
        if (!sites.includes(name)) return;
        if (deletionTimestamp !== undefined) return reject(leavingSite(name, place));
        const said = troubleOfSite(object as unknown as ImageSite, since);
        if (said !== undefined) reject(new CommandError(EXIT.failed, said));
      },
      stop.signal,
    );
  } catch (error) {
    // A tenant may not see the sites of a cluster; the image's own row says what is to be known then.
    if (!(error instanceof Failure) || error.reason !== 'Forbidden') throw error;
  }
  return { trouble, [Symbol.dispose]: () => stop.abort() };
}

function troubleOfSite({ metadata, status }: ImageSite, since: number): string | undefined {
  const ready = findCondition(status?.conditions, READY);
  if (ready === undefined || ready.status === 'True' || ready.reason === 'Probing') return undefined;
  const known = Object.entries(REASONS).find(([name]) => name === ready.reason);
  const fresh = Date.parse(ready.lastTransitionTime) >= since || kstatus({ metadata, status }).status === 'Failed';
  if (known?.[1] === 'Transient' || !fresh) return undefined;
  return `ImageSite ${metadata.name} is not ready: ${printable(ready.message)} (${ready.reason})`;
}
