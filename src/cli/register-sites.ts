import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import type { CaReference, ImageSite } from '../api/types.ts';
import type { ManifestObject } from '../stores/directory/manifest.ts';
import type { ConfigMap, Draft, Secret } from '../stores/store.ts';
import { CommandError, EXIT } from './exit.ts';
import { manifestFiles, readManifest } from './manifest-files.ts';
import type { CommandContext } from './output.ts';
import { problemLine } from './validate.ts';
import type { StateReader } from '../stores/directory/reader.ts';

/** The sites that an image is to be registered with. */
export interface SitesAsked {
  names: string[];
  /** To be applied before the image, as their files say. */
  drafts: Draft[];
  /** Secrets and ConfigMaps beside them that they name. */
  credentials: ManifestObject[];
}

/** In a directory the controller's own namespace; a site's Secret is read from there. */
const CONTROLLER_NAMESPACE = 'imageproxy';

/**
 * Each word of `--site`: a file with ImageSites, or the name of one that the state knows.
 * @throws CommandError for a file that is not well, and a name that is not known
 */
export async function sitesAsked(
  words: readonly string[],
  known: readonly string[],
  context: CommandContext,
): Promise<SitesAsked> {
  const asked: SitesAsked = { names: [], drafts: [], credentials: [] };
  for (const word of words) {
    if (await isFile(word)) await addFile(resolve(word), asked, context);
    else if (known.includes(word)) asked.names.push(word);
    else {
      const hint = known.length > 0 ? `known are ${known.join(', ')}` : 'no site is known yet';
      throw new CommandError(
        EXIT.notFound,
        `--site ${word} is neither a file nor a known ImageSite (${hint}): give the file of its manifest`,
      );
    }
  }
  asked.names = [...new Set(asked.names)];
  return asked;
}

async function isFile(word: string): Promise<boolean> {
  const facts = await stat(word).catch(() => undefined);
  if (facts?.isFile() === true) return true;
  const looksLikeFile = word.includes('/') || /\.(?:ya?ml|json)$/i.test(word);
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
  for (const other of await manifestFiles(dirname(file))) {
    if (other === file || dirname(other) !== dirname(file)) continue;
    const parsed = await readManifest(other);
    const found = parsed.objects.find((object) => matches(object, reference));
    if (found === undefined) continue;
    const exposed = parsed.problems.find(({ message }) => message.includes(`chmod 600 ${other}`));
    if (exposed !== undefined) throw new CommandError(EXIT.failed, exposed.message);
    return found;
  }
  return undefined;
}

/**
 * A folder of manifests with nothing but the given Secrets and ConfigMaps, for controllers of our own: the store keeps no Secret,
 * it reads them from manifests. Readable by its owner alone, and removed at the end.
 */
export async function credentialsFolder(
  state: string,
  credentials: readonly ManifestObject[],
): Promise<{ path: string; remove(): Promise<void> } | undefined> {
  if (credentials.length === 0) return undefined;
  const path = await mkdtemp(join(state, 'credentials-'));
  await Promise.all(
    credentials.map(async ({ key, annotations, labels, content }, index) => {
      const { kind, data } = content as Pick<Secret, 'kind' | 'data'> | Pick<ConfigMap, 'kind' | 'data'>;
      const encoded = Object.entries<Uint8Array | string>(data).map(([name, value]) => [
        name,
        typeof value === 'string' ? value : Buffer.from(value).toString('base64'),
      ]);
      const object = {
        apiVersion: 'v1',
        kind,
        metadata: { ...key, annotations, labels },
        data: Object.fromEntries(encoded),
      };
      await writeFile(join(path, `${index}.json`), JSON.stringify(object), { mode: 0o600 });
    }),
  );
  return { path, remove: () => rm(path, { recursive: true, force: true }) };
}

/** Those that the state does not have just so. */
export async function changedSites(drafts: readonly Draft[], reader: StateReader): Promise<Draft[]> {
  const changed: Draft[] = [];
  for (const draft of drafts) {
    const known = await reader.get('ImageSite', { name: draft.metadata.name });
    if (known === undefined || !isDeepStrictEqual(known.spec, draft.spec)) changed.push(draft);
  }
  return changed;
}
