import { requestAfter } from '../api/request.ts';
import { ANNOTATIONS, type SiteRow, type VMImage } from '../api/types.ts';
import type { LogLevel } from '../telemetry/log.ts';
import { CommandError, EXIT } from './exit.ts';
import { KINDS, type KindNames, nameLine, titleOf } from './kinds.ts';
import type { CommandContext } from './output.ts';
import { isDataFormat, printObjects } from './print.ts';
import { draftOf, type ImageAsked, objectNameOf } from './register-image.ts';
import { changedSites, leavingSite, type SitesAsked, sitesAsked } from './register-sites.ts';
import { isServed, rowsOf } from './register-verdict.ts';
import { registered } from './register-wait.ts';
import { openPlace } from './open-place.ts';
import type { Place, PlaceOptions } from './place.ts';
import type { Session } from './session.ts';

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
  if (draft === undefined && siteDrafts.length === 0 && existing !== undefined && isServed(existing, sites.names)) {
    await printResult(existing, sites.names, options, context);
    return EXIT.ok;
  }
  const [leaving] = sites.leaving;
  if (leaving !== undefined) throw leavingSite(leaving, place);

  const session = await openFor(place, sites.credentials, options, context);
  try {
    for (const site of siteDrafts) await session.apply(site);
    if (draft !== undefined) await session.apply(draft);
    // Asked for before and not there: whatever it waits for, it is tried now.
    const requestedAt =
      draft === undefined
        ? requestAfter(existing?.metadata.annotations, existing?.status?.lastHandledReconcileAt, context.now())
        : undefined;
    if (requestedAt !== undefined) await session.annotate('VMImage', key, { [ANNOTATIONS.requestedAt]: requestedAt });
    if (!options.wait) {
      if (session.elsewhere === undefined)
        context.err.line('no process works on this state: the image is fetched once "imageproxy run" does');
      context.out.line(nameLine({ names: VMIMAGE, key }));
      return EXIT.ok;
    }
    const awaited = { session, place, target, requestedAt, sites: sites.names, timeoutMs: options.timeout };
    const image = await registered(awaited, context);
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

async function printResult(
  image: VMImage,
  siteNames: readonly string[],
  options: RegisterOptions,
  { out }: CommandContext,
): Promise<void> {
  if (isDataFormat(options.output)) return printObjects(out, options.output, image);
  if (options.output === 'name') return out.line(nameLine({ names: VMIMAGE, key: image.metadata }));
  const rows = rowsOf(image, siteNames);
  for (const row of rows) for (const line of idLines(row, rows.length > 1)) out.line(line);
}

/** The id alone where there is one; else with what it is, as columns that `cut` and `awk` understand. */
function idLines({ name, imageID = '', kernelID, ramdiskID }: SiteRow, named: boolean): string[] {
  const site = named ? `${name}\t` : '';
  if (kernelID === undefined && ramdiskID === undefined) return [`${site}${imageID}`];
  const parts = [['disk', imageID] as const, ['kernel', kernelID] as const, ['ramdisk', ramdiskID] as const];
  return parts.flatMap(([role, id]) => (id === undefined ? [] : [`${site}${role}\t${id}`]));
}
