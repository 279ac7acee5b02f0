import { isDeepStrictEqual } from 'node:util';
import { loadSchemas } from '../api/schema.ts';
import { API_VERSION, type VMImage } from '../api/types.ts';
import type { Draft } from '../stores/store.ts';
import { CommandError, EXIT } from './exit.ts';

/** What the command line says of the image. */
export interface ImageAsked {
  url: string;
  sha256?: string | undefined;
  sha512?: string | undefined;
  sha1?: string | undefined;
  metafile: boolean;
  namespace: string;
  /** In the clouds. */
  name?: string | undefined;
  visibility?: string | undefined;
  properties?: Readonly<Record<string, string>> | undefined;
  sites: readonly string[];
}

/**
 * The image's name among the objects comes from its digest, so asking twice is asking for the same object.
 * @throws CommandError (usage) where there is no digest
 */
export function objectNameOf({
  sha256,
  sha512,
  sha1,
  metafile,
}: Pick<ImageAsked, 'sha256' | 'sha512' | 'sha1' | 'metafile'>): string {
  const [algorithm, digest] =
    sha256 !== undefined ? ['sha256', sha256] : sha512 !== undefined ? ['sha512', sha512] : ['sha1', sha1];
  if (digest === undefined) {
    const choice = metafile
      ? '--sha256 or --sha1 of the metafile'
      : '--sha256 or --sha512 of the file as it is published';
    throw new CommandError(EXIT.usage, `a checksum is needed to prove the bytes with: give ${choice}`);
  }
  return `${metafile ? 'metafile-' : ''}${algorithm}-${digest.slice(0, 32)}`;
}

/** `noble-server-cloudimg-amd64` of a URL, for people who look at the cloud. */
export function imageNameOf(url: string, otherwise: string): string {
  const file = decoded(new URL(url).pathname.split('/').at(-1) ?? '');
  const stem = file
    .replace(/\.(?:gz|bz2|xz|zst)$/i, '')
    .replace(/\.(?:qcow2|img|raw|vmdk|vdi|vhdx?|ova|iso|xml)$/i, '');
  return /^[\x20-\x7e]{1,128}$/.test(stem) && stem.trim() !== '' ? stem.trim() : otherwise;
}

/** The parser of URLs lets a `%` stand that begins no escape; `decodeURIComponent` throws for it. */
function decoded(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

/** The object to be applied; undefined when the existing one says all of it already. */
export function draftOf(asked: ImageAsked, existing: VMImage | undefined): Draft | undefined {
  const name = objectNameOf(asked);
  const before = existing?.spec;
  const registration = {
    ...(before?.registration ?? { name: imageNameOf(asked.url, name) }),
    ...(asked.name === undefined ? {} : { name: asked.name }),
    ...(asked.visibility === undefined ? {} : { visibility: asked.visibility }),
    ...(asked.properties === undefined
      ? {}
      : { properties: { ...before?.registration.properties, ...asked.properties } }),
  };
  const known = before?.sites ?? [];
  const added = asked.sites.filter((site) => !known.some((each) => each.name === site)).map((site) => ({ name: site }));
  const spec = {
    ...before,
    ...(asked.metafile ? metafileFields(asked) : imageFields(asked, before)),
    registration,
    sites: [...known, ...added],
  };
  const { labels, annotations } = existing?.metadata ?? {};
  const draft: Draft = {
    apiVersion: API_VERSION,
    kind: 'VMImage',
    metadata: {
      name,
      namespace: asked.namespace,
      ...(labels === undefined ? {} : { labels }),
      ...(annotations === undefined ? {} : { annotations }),
    },
    spec,
  };
  const verdict = loadSchemas().validate('VMImage', draft);
  if (verdict.object === undefined) {
    const faults = verdict.errors.map(({ path, message }) => `${path}: ${message}`).join('; ');
    throw new CommandError(EXIT.usage, faults);
  }
  return existing !== undefined && isDeepStrictEqual(plain(verdict.object['spec']), plain(before)) ? undefined : draft;
}

/** A URL that was asked for before stays as a mirror: the digest says that the bytes are the same. */
function imageFields({ url, sha256, sha512 }: ImageAsked, before: VMImage['spec'] | undefined) {
  const urls = before?.source.http?.urls ?? [];
  return {
    source: { http: { ...before?.source.http, urls: urls.includes(url) ? urls : [...urls, url] } },
    checksums: {
      ...before?.checksums,
      ...(sha256 === undefined ? {} : { sha256 }),
      ...(sha512 === undefined ? {} : { sha512 }),
    },
  };
}

/** ORCA's metafiles name their parts by sha1, which is weak: whoever uses them has accepted that. */
function metafileFields({ url, sha256, sha1 }: ImageAsked) {
  return {
    source: { metafile: { url, ...(sha256 === undefined ? {} : { sha256 }), ...(sha1 === undefined ? {} : { sha1 }) } },
    verification: { allowWeak: true },
  };
}

function plain(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value)) as unknown;
}
