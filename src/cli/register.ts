import { findCondition, kstatus, READY } from '../api/conditions.ts';
import { REASONS } from '../api/failure.ts';
import { ANNOTATIONS, type ImageSite, type SiteRow, type VMImage } from '../api/types.ts';
import type { LogLevel } from '../telemetry/log.ts';
import { CommandError, EXIT } from './exit.ts';
import { KINDS, type KindNames, nameLine, titleOf, typedName } from './kinds.ts';
import { type CommandContext, printable } from './output.ts';
import { isDataFormat, printObjects } from './print.ts';
import { imageLine, LiveView } from './progress.ts';
import { draftOf, type ImageAsked, objectNameOf } from './register-image.ts';
import { changedSites, credentialsFolder, type SitesAsked, sitesAsked } from './register-sites.ts';
import { openSession, type Session } from './session.ts';
import { manifestsDirectory, stateDirectory, type StateOptions } from './state.ts';
import { watchFor } from './watching.ts';
import { readState } from '../stores/directory/reader.ts';

export interface RegisterOptions extends StateOptions {
  sha256?: string;
  sha512?: string;
  sha1?: string;
  metafile?: boolean;
  site: string[];
  name?: string;
  namespace: string;
  visibility?: string;
  property?: Record<string, string>;
  manifests?: string;
  allowNetwork?: string[];
  timeout: number;
  wait: boolean;
  output?: 'json' | 'yaml' | 'name';
  logLevel?: LogLevel;
}

const [VMIMAGE] = KINDS as readonly [KindNames];

/** `imageproxy register URL --sha256 … --site …`: the main job in one line. */
export async function register(url: string, options: RegisterOptions, context: CommandContext): Promise<number> {
  const asked = imageAsked(url, options);
  const state = stateDirectory(options, context.env);
  const reader = readState(state);
  const key = { namespace: options.namespace, name: objectNameOf(asked) };
  const known = (await reader.list('ImageSite')).map(({ metadata }) => metadata.name);
  const sites = await sitesAsked(options.site, known, context);
  const existing = (await reader.get('VMImage', key)) as VMImage | undefined;
  if (existing?.metadata.deletionTimestamp !== undefined) {
    throw new CommandError(
      EXIT.failed,
      `${titleOf({ kind: 'VMImage', key })} is being deleted: wait for that with "imageproxy wait ${typedName({ names: VMIMAGE, key })} --for=delete", then ask again`,
    );
  }
  const draft = draftOf({ ...asked, sites: sites.names }, existing);
  const siteDrafts = await changedSites(sites.drafts, reader);
  if (draft === undefined && siteDrafts.length === 0 && existing !== undefined && isReady(existing)) {
    await printResult(existing, sites.names, options, context);
    return EXIT.ok;
  }

  const { session, close } = await openFor(state, sites, options, context);
  try {
    for (const site of siteDrafts) await session.apply(site);
    if (draft !== undefined) await session.apply(draft);
    // Asked for before and not there: whatever it waits for, it is tried now.
    const requestedAt = draft === undefined ? new Date(context.now()).toISOString() : undefined;
    if (requestedAt !== undefined) await session.annotate('VMImage', key, { [ANNOTATIONS.requestedAt]: requestedAt });
    if (!options.wait) {
      if (session.holder === undefined)
        context.err.line('no process works on this state: the image is fetched once "imageproxy run" does');
      context.out.line(nameLine({ names: VMIMAGE, key }));
      return EXIT.ok;
    }
    const image = await registered(session, key, requestedAt, sites.names, options, context);
    await printResult(image, sites.names, options, context);
    return EXIT.ok;
  } finally {
    await close();
  }
}

function imageAsked(url: string, options: RegisterOptions): ImageAsked {
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol)) {
    throw new CommandError(EXIT.usage, `"${url}" is no http or https URL: give the address of the image`);
  }
  const { sha256, sha512, sha1, metafile = false, namespace, name, visibility, property } = options;
  if (sha1 !== undefined && !metafile)
    throw new CommandError(
      EXIT.usage,
      '--sha1 proves nothing for an image: give --sha256 or --sha512 (a --metafile may be named by sha1)',
    );
  if (sha512 !== undefined && metafile) throw new CommandError(EXIT.usage, 'a metafile is named by --sha256 or --sha1');
  return { url, sha256, sha512, sha1, metafile, namespace, name, visibility, properties: property, sites: [] };
}

async function openFor(
  state: string,
  sites: SitesAsked,
  options: RegisterOptions,
  context: CommandContext,
): Promise<{ session: Session; close(): Promise<void> }> {
  const given = manifestsDirectory(options.manifests, context.env);
  const { mkdir } = await import('node:fs/promises');
  await mkdir(state, { recursive: true, mode: 0o700 });
  const folder = given === undefined ? await credentialsFolder(state, sites.credentials) : undefined;
  const remove = async (): Promise<void> => folder?.remove();
  try {
    const session = await openSession({
      state,
      manifests: given ?? folder?.path,
      allowNetworks: options.allowNetwork ?? [],
      ...(options.logLevel === undefined ? {} : { logLevel: options.logLevel }),
      signal: context.signal,
    });
    if (session.holder !== undefined && options.allowNetwork !== undefined) {
      context.err.line(
        `process ${session.holder.pid} works on this state: its own --allow-network counts, not this one`,
      );
    }
    const close = async (): Promise<void> => {
      try {
        await session.close();
      } finally {
        await remove();
      }
    };
    return { session, close };
  } catch (error) {
    await remove();
    throw error;
  }
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

/** Waits until every site has it. @throws CommandError when that cannot be without somebody's doing, or in time */
async function registered(
  session: Session,
  key: { namespace: string; name: string },
  requestedAt: string | undefined,
  siteNames: readonly string[],
  options: RegisterOptions,
  context: CommandContext,
): Promise<VMImage> {
  const view = new LiveView(context.err);
  const stop = new AbortController();
  const title = titleOf({ kind: 'VMImage', key });
  const siteTrouble = Promise.withResolvers<never>();
  siteTrouble.promise.catch(() => undefined);
  const begun = context.now();
  await session.watch(
    'ImageSite',
    ({ object }) => {
      if (!siteNames.includes(object.metadata.name)) return;
      const trouble = troubleOfSite(object as unknown as ImageSite, begun);
      if (trouble !== undefined) siteTrouble.reject(new CommandError(EXIT.failed, trouble));
    },
    stop.signal,
  );
  try {
    return await watchFor(session, context, {
      kind: 'VMImage',
      key,
      timeoutMs: options.timeout,
      ended: Promise.race([session.ended, siteTrouble.promise]),
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
          `${title} is not registered after ${options.timeout / 1000} s: ${printable(message)}; run the command again to go on from there`,
        );
      },
    });
  } finally {
    stop.abort();
    view.end();
  }
}

/** Waits that end by themselves as the work goes on. */
const PASSING = ['SiteNotReady', 'NoControllerForSite', 'CacheInUse'];

/** Nothing that this command does will end it. */
function needsSomebody(reason: string | undefined): boolean {
  const known = Object.entries(REASONS).find(([name]) => name === reason);
  return known !== undefined && known[1] === 'Waiting' && !PASSING.includes(known[0]);
}

function troubleOfSite({ metadata, status }: ImageSite, begun: number): string | undefined {
  const ready = findCondition(status?.conditions, READY);
  if (ready === undefined || ready.status === 'True' || ready.reason === 'Probing') return undefined;
  const known = Object.entries(REASONS).find(([name]) => name === ready.reason);
  // What was so before we came may be being tried again just now.
  const fresh =
    Date.parse(ready.lastTransitionTime) >= begun - 1000 || kstatus({ metadata, status }).status === 'Failed';
  if (known?.[1] === 'Transient' || !fresh) return undefined;
  return `ImageSite ${metadata.name} is not ready: ${printable(ready.message)} (${ready.reason})`;
}

async function printResult(
  image: VMImage,
  siteNames: readonly string[],
  options: RegisterOptions,
  { out }: CommandContext,
): Promise<void> {
  const key = { namespace: options.namespace, name: image.metadata.name };
  if (isDataFormat(options.output)) return printObjects(out, options.output, image);
  if (options.output === 'name') return out.line(nameLine({ names: VMIMAGE, key }));
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
