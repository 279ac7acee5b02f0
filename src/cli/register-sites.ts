import { readdir, stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { Failure } from '../api/failure.ts';
import type { CaReference, ImageSite } from '../api/types.ts';
import type { ManifestObject } from '../stores/directory/manifest.ts';
import type { StoredResource } from '../stores/directory/records.ts';
import { MANIFEST } from '../stores/directory/scan.ts';
import type { Draft } from '../stores/store.ts';
import { CommandError, EXIT } from './exit.ts';
import { targetOf } from './kinds.ts';
import { lookAt } from './looking.ts';
import { readManifest } from './manifest-files.ts';
import type { CommandContext } from './output.ts';
import { problemLine } from './validate.ts';
import type { Place } from './place.ts';

/** The sites that an image is to be registered with. */
export interface SitesAsked {
  names: string[];
  /** To be applied before the image, as their files say. */
  drafts: Draft[];
  /** Secrets and ConfigMaps beside them that they name. */
  credentials: ManifestObject[];
  /** Those of them that are being deleted. */
  leaving: string[];
}

/** In a directory the controller's own namespace; a site's Secret is read from there. */
const CONTROLLER_NAMESPACE = 'imageproxy';

/**
 * Each word of `--site`: a file with ImageSites, or the name of a known one. The sites of a cluster are its admins', with their
 * Secrets where the controller is: there names are taken alone.
 * @throws CommandError for a file that is not well, and a name that is not known
 */
export async function sitesAsked(words: readonly string[], place: Place, context: CommandContext): Promise<SitesAsked> {
  const asked: SitesAsked = { names: [], drafts: [], credentials: [], leaving: [] };
  const sites = await knownSites(place);
  const known = sites?.map(({ metadata }) => metadata.name);
  for (const word of words) {
    const file = await isFile(word);
    if (file && place.kind === 'cluster') {
      throw new CommandError(
        EXIT.usage,
        `--site ${word} is a file, and ${place.title} has its ImageSites from its admins: apply it with kubectl, then give the site's name`,
      );
    }
    if (file) await addFile(resolve(word), asked, context);
    else if (known?.includes(word) !== false) asked.names.push(word);
    else {
      const hint = known.length > 0 ? `known are ${known.join(', ')}` : 'no site is known yet';
      throw new CommandError(
        EXIT.notFound,
        `--site ${word} is neither a file nor a known ImageSite (${hint})${place.kind === 'cluster' ? '' : ': give the file of its manifest'}`,
      );
    }
  }
  asked.names = [...new Set(asked.names)];
  asked.leaving = (sites ?? [])
    .filter(({ metadata }) => metadata.deletionTimestamp !== undefined && asked.names.includes(metadata.name))
    .map(({ metadata }) => metadata.name);
  return asked;
}

/** Undefined where a tenant may not see the sites of a cluster: then the image's status tells whether there is one of that name. */
async function knownSites(place: Place): Promise<StoredResource[] | undefined> {
  try {
    return await place.list('ImageSite');
  } catch (error) {
    if (error instanceof Failure && error.reason === 'Forbidden') return undefined;
    throw error;
  }
}

async function isFile(word: string): Promise<boolean> {
  const looksLikeFile = word.includes('/') || /\.(?:ya?ml|json)$/i.test(word);
  // A site's name must do also where one may not look into the folder that one is in.
  const facts = looksLikeFile ? await lookAt(word) : await stat(word).catch(() => undefined);
  if (facts?.isFile() === true) return true;
  if (looksLikeFile) throw new CommandError(EXIT.notFound, `--site ${word}: there is no such file`);
  return false;
}

async function addFile(file: string, asked: SitesAsked, context: CommandContext): Promise<void> {
  const parsed = await readManifest(file);
  const errors = parsed.problems.filter(({ severity }) => severity === 'error');
  for (const problem of parsed.problems) context.err.line(problemLine(context.err, problem));
  if (errors.length > 0)
    throw new CommandError(EXIT.failed, `--site ${file} cannot be used: correct what is said above`);
  const sites = parsed.objects.filter(({ kind }) => kind === 'ImageSite');
  if (sites.length === 0)
    throw new CommandError(EXIT.failed, `--site ${file} holds no ImageSite: give the file that does`);
  for (const site of sites) {
    const draft = site.content as Draft & { spec: ImageSite['spec'] };
    asked.names.push(site.key.name);
    asked.drafts.push(draft);
    for (const reference of referencesOf(draft.spec)) {
      const found = parsed.objects.find((object) => matches(object, reference)) ?? (await beside(file, reference));
      if (found !== undefined) asked.credentials.push(found);
    }
  }
}

interface Reference {
  kind: 'Secret' | 'ConfigMap';
  name: string;
}

function referencesOf({ openstack, ec2, opennebula }: ImageSite['spec']): Reference[] {
  const { secretRef, caRef } = (openstack ?? ec2 ?? opennebula ?? {}) as {
    secretRef?: { name: string };
    caRef?: CaReference;
  };
  return [
    ...(secretRef === undefined ? [] : [{ kind: 'Secret' as const, name: secretRef.name }]),
    ...(caRef === undefined ? [] : [{ kind: caRef.kind, name: caRef.name }]),
  ];
}

function matches({ kind, key }: ManifestObject, reference: Reference): boolean {
  return kind === reference.kind && key.name === reference.name && key.namespace === CONTROLLER_NAMESPACE;
}

/** The same folder's other files may hold it; what else is wrong with those is no matter here. */
async function beside(file: string, reference: Reference): Promise<ManifestObject | undefined> {
  for (const name of (await readdir(dirname(file))).sort()) {
    const other = join(dirname(file), name);
    if (other === file || name.startsWith('.') || !MANIFEST.test(name)) continue;
    const parsed = await readManifest(other);
    const found = parsed.objects.find((object) => matches(object, reference));
    if (found === undefined) continue;
    const exposed = parsed.problems.find(({ message }) => message.includes(`chmod 600 ${other}`));
    if (exposed !== undefined) throw new CommandError(EXIT.failed, exposed.message);
    return found;
  }
  return undefined;
}

/** It would never come there, and nothing but the end of the wait would tell. */
export function leavingSite(name: string, place: Place): CommandError {
  const wait = place.typed('wait', targetOf(`imgsite/${name}`, undefined, place.namespace), '--for=delete');
  return new CommandError(
    EXIT.failed,
    `ImageSite ${name} is being deleted and takes nothing new: wait for that with "${wait}" and make it again, or name another site`,
  );
}

/** Those that are not there just so. */
export async function changedSites(drafts: readonly Draft[], place: Place): Promise<Draft[]> {
  const changed: Draft[] = [];
  for (const draft of drafts) {
    const known = await place.get('ImageSite', { name: draft.metadata.name });
    if (known === undefined || !isDeepStrictEqual(known.spec, draft.spec)) changed.push(draft);
  }
  return changed;
}
