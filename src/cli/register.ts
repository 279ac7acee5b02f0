import { findCondition, kstatus, READY } from '../api/conditions.ts';
import { Failure, REASONS } from '../api/failure.ts';
import { ANNOTATIONS, type ImageSite, type SiteRow, type VMImage } from '../api/types.ts';
import type { LogLevel } from '../telemetry/log.ts';
import { CommandError, EXIT } from './exit.ts';
import { KINDS, type KindNames, nameLine, type Target, titleOf } from './kinds.ts';
import { type CommandContext, printable } from './output.ts';
import { isDataFormat, printObjects } from './print.ts';
import { imageLine, LiveView } from './progress.ts';
import { draftOf, type ImageAsked, objectNameOf } from './register-image.ts';
import { changedSites, type SitesAsked, sitesAsked } from './register-sites.ts';
import { openPlace } from './open-place.ts';
import type { Place, PlaceOptions } from './place.ts';
import type { Session } from './session.ts';
import { tellUnattended } from './unattended.ts';
import { watchFor } from './watching.ts';

export interface RegisterOptions extends PlaceOptions {
  sha256?: string;
  sha512?: string;
  sha1?: string;
  metafile?: boolean;
  site: string[];
  name?: string;
  visibility?: string;
  property?: Record<string, string>;
  allowNetwork?: string[];
  timeout: number;
  wait: boolean;
  output?: 'json' | 'yaml' | 'name';
  logLevel?: LogLevel;
}

const [VMIMAGE] = KINDS as readonly [KindNames];

/** `imageproxy register URL --sha256 … --site …`: the main job in one line. */
export async function register(url: string, options: RegisterOptions, context: CommandContext): Promise<number> {
  const checked = imageAsked(url, options);
  await using place = await openPlace(options, context, { mayBeNew: true });
  const asked = { ...checked, namespace: place.namespace };
  const key = { namespace: asked.namespace, name: objectNameOf(asked) };
  const target = { kind: VMIMAGE.kind, names: VMIMAGE, key };
  const sites = await sitesAsked(options.site, place, context);
  const existing = (await place.get('VMImage', key)) as VMImage | undefined;
  if (existing?.metadata.deletionTimestamp !== undefined) {
    throw new CommandError(
      EXIT.failed,
      `${titleOf(target)} is being deleted: wait for that with "${place.typed('wait', target, '--for=delete')}", then ask again`,
    );
  }
  const draft = draftOf({ ...asked, sites: sites.names }, existing);
  const siteDrafts = await changedSites(sites.drafts, place);
  if (draft === undefined && siteDrafts.length === 0 && existing !== undefined && isReady(existing)) {
    await printResult(existing, sites.names, options, context);
    return EXIT.ok;
  }

  const session = await openFor(place, sites.credentials, options, context);
  try {
    for (const site of siteDrafts) await session.apply(site);
    if (draft !== undefined) await session.apply(draft);
    // Asked for before and not there: whatever it waits for, it is tried now.
    const requestedAt = draft === undefined ? new Date(context.now()).toISOString() : undefined;
    if (requestedAt !== undefined) await session.annotate('VMImage', key, { [ANNOTATIONS.requestedAt]: requestedAt });
    if (!options.wait) {
      if (session.elsewhere === undefined)
        context.err.line('no process works on this state: the image is fetched once "imageproxy run" does');
      context.out.line(nameLine({ names: VMIMAGE, key }));
      return EXIT.ok;
    }
    const image = await registered({ session, place, target, requestedAt, sites: sites.names }, options, context);
    await printResult(image, sites.names, options, context);
    return EXIT.ok;
  } finally {
    await session.close();
  }
}

/** @throws CommandError (usage) for what cannot be meant */
function imageAsked(url: string, options: RegisterOptions): Omit<ImageAsked, 'namespace'> {
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol)) {
    throw new CommandError(EXIT.usage, `"${url}" is no http or https URL: give the address of the image`);
  }
  const { sha256, sha512, sha1, metafile = false, name, visibility, property } = options;
  if (sha1 !== undefined && !metafile)
    throw new CommandError(
      EXIT.usage,
      '--sha1 proves nothing for an image: give --sha256 or --sha512 (a --metafile may be named by sha1)',
    );
  if (sha512 !== undefined && metafile) throw new CommandError(EXIT.usage, 'a metafile is named by --sha256 or --sha1');
  return { url, sha256, sha512, sha1, metafile, name, visibility, properties: property, sites: [] };
}

async function openFor(
  place: Place,
  credentials: SitesAsked['credentials'],
  { allowNetwork, logLevel }: RegisterOptions,
  { err }: CommandContext,
): Promise<Session> {
  const session = await place.act({
    credentials,
    allowNetworks: allowNetwork ?? [],
    ...(logLevel === undefined ? {} : { logLevel }),
  });
  if (session.elsewhere !== undefined && allowNetwork !== undefined) {
    err.line(`${session.elsewhere} does the work: its own --allow-network counts, not this one`);
  }
  return session;
}

function isReady(image: VMImage): boolean {
  const { metadata, status } = image;
  const ready = findCondition(status?.conditions, READY);
  return (
    status?.observedGeneration === metadata.generation &&
    ready?.status === 'True' &&
    kstatus(image).status === 'Current'
  );
}

interface Asked {
  session: Session;
  place: Place;
  target: Target;
  /** Set where an object that was there already is to be tried now. */
  requestedAt: string | undefined;
  sites: readonly string[];
}

/** Waits until every site has it. @throws CommandError when that cannot be without somebody's doing, or in time */
async function registered(asked: Asked, { timeout }: RegisterOptions, context: CommandContext): Promise<VMImage> {
  const { session, place, target, requestedAt } = asked;
  const view = new LiveView(context.err);
  place.onTrouble = (message) => view.note(printable(message));
  const title = titleOf(target);
  using sites = await watchSites(asked, context);
  try {
    return await watchFor(session, context, {
      ...target,
      timeoutMs: timeout,
      ended: Promise.race([session.ended, sites.trouble]),
      onOverdue: tellUnattended(place, (why) => view.note(why)),
      decide: (object) => {
        if (object === undefined) return undefined;
        const image = object as unknown as VMImage;
        view.show([imageLine(context.err, image, { brief: true })]);
        const { observedGeneration, lastHandledReconcileAt, conditions } = image.status ?? {};
        if (observedGeneration !== image.metadata.generation) return undefined;
        if (requestedAt !== undefined && lastHandledReconcileAt !== requestedAt) return undefined;
        if (isReady(image)) return image;
        const ready = findCondition(conditions, READY);
        if (kstatus(image).status === 'Failed' || needsSomebody(ready?.reason)) {
          throw new CommandError(
            EXIT.failed,
            `${title} is not registered: ${printable(ready?.message ?? '')} (${ready?.reason})`,
          );
        }
        return undefined;
      },
      onTimeout: (last) => {
        const message =
          findCondition((last as unknown as VMImage | undefined)?.status?.conditions, READY)?.message ??
          'it has not begun';
        return new CommandError(
          EXIT.timedOut,
          `${title} is not registered after ${timeout / 1000} s: ${printable(message)}; run the command again to go on from there`,
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

async function watchSites({ session, sites }: Asked, context: CommandContext): Promise<SiteWatch> {
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
        if (!sites.includes(object.metadata.name)) return;
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

/** Waits that end by themselves as the work goes on. */
const PASSING = ['SiteNotReady', 'NoControllerForSite', 'CacheInUse'];

/** Nothing that this command does will end it. */
function needsSomebody(reason: string | undefined): boolean {
  const known = Object.entries(REASONS).find(([name]) => name === reason);
  return known !== undefined && known[1] === 'Waiting' && !PASSING.includes(known[0]);
}

function troubleOfSite({ metadata, status }: ImageSite, since: number): string | undefined {
  const ready = findCondition(status?.conditions, READY);
  if (ready === undefined || ready.status === 'True' || ready.reason === 'Probing') return undefined;
  const known = Object.entries(REASONS).find(([name]) => name === ready.reason);
  const fresh = Date.parse(ready.lastTransitionTime) >= since || kstatus({ metadata, status }).status === 'Failed';
  if (known?.[1] === 'Transient' || !fresh) return undefined;
  return `ImageSite ${metadata.name} is not ready: ${printable(ready.message)} (${ready.reason})`;
}

async function printResult(
  image: VMImage,
  siteNames: readonly string[],
  options: RegisterOptions,
  { out }: CommandContext,
): Promise<void> {
  if (isDataFormat(options.output)) return printObjects(out, options.output, image);
  if (options.output === 'name') return out.line(nameLine({ names: VMIMAGE, key: image.metadata }));
  const rows = (image.status.sites ?? []).filter(({ name }) => siteNames.includes(name));
  for (const row of rows) for (const line of idLines(row, rows.length > 1)) out.line(line);
}

/** The id alone where there is one; else with what it is, as columns that `cut` and `awk` understand. */
function idLines({ name, imageID = '', kernelID, ramdiskID }: SiteRow, named: boolean): string[] {
  const site = named ? `${name}\t` : '';
  if (kernelID === undefined && ramdiskID === undefined) return [`${site}${imageID}`];
  const parts = [['disk', imageID] as const, ['kernel', kernelID] as const, ['ramdisk', ramdiskID] as const];
  return parts.flatMap(([role, id]) => (id === undefined ? [] : [`${site}${role}\t${id}`]));
}
