import { type Digests, provable, STRONG, strongest } from '../../api/digest.ts';
import { Failure } from '../../api/failure.ts';
import type { VMImage } from '../../api/types.ts';
import type { Scope } from '../../cache/cache.ts';
import type { Compression, Format, Role } from '../../images/format.ts';
import { parseMetafile } from '../../sources/metafile/parse.ts';
import type { SourceSpec } from '../../sources/source.ts';
import { cleanUrl } from '../../sources/url.ts';
import type { Store } from '../../stores/store.ts';
import { networkOf } from '../network.ts';
import type { Settings } from '../settings.ts';
import { type Credentials, permitHost, readCredentials } from './credentials.ts';
import { hashOf } from './identity.ts';

/** One part of an image as the spec (or a metafile) asks for it: where its bytes are and what they must be. */
export interface Part {
  role: Role;
  /** Field of the spec, for messages. */
  field: string;
  /** Tried in order. */
  candidates: readonly SourceSpec[];
  /** Who may use the bytes once they are here. */
  scope: Scope;
  /** Of the file as published. */
  declared: Digests;
  /** Of the uncompressed bytes. */
  content: Digests;
  compression: Compression | 'Auto';
  format: Format | 'Auto';
  /** ORCA's ZFILESYSTEM: where the content is a tar, the disk is this member. */
  member?: string;
  /** The part is a metafile: text that names the parts, no disk. */
  metafile?: true;
  /** Names the download: what is fetched from where with which credentials. */
  key: string;
}

/** What a plan is read with. */
interface PlanDeps {
  store: Store;
  settings: Settings;
}

export interface Plan {
  parts: readonly Part[];
  /** Changes when anything that decides which bytes come changes; a stalled fetch is tried again only then. */
  inputsHash: string;
}

/** What a metafile names has to be fetched before the parts are known. */
export interface MetafilePlan {
  metafile: Part;
  inputsHash: string;
}

type PartSpec = Partial<Pick<VMImage['spec'], 'checksums' | 'contentChecksums' | 'compression' | 'format'>> & {
  source: VMImage['spec']['source'];
};

/**
 * What has to be fetched for this spec.
 * @throws Failure InvalidSpec | WeakChecksum | ChecksumRequired | Secret…
 */
export async function planOf(image: VMImage, deps: PlanDeps): Promise<Plan | MetafilePlan> {
  const { spec } = image;
  const { namespace = 'default' } = image.metadata;
  const metafile = spec.source.metafile;
  if (metafile !== undefined) {
    const declared = lower({ sha1: metafile.sha1, sha256: metafile.sha256 });
    proofRequired(declared, {}, spec.verification, 'spec.source.metafile');
    const part: Part = {
      ...partOf('Disk', 'spec.source.metafile', {}, declared),
      ...(await fromMetafile(image, metafile, metafile.url, 'url', deps)),
      compression: 'None',
      metafile: true,
    };
    const named = { ...part, key: keyOf(part) };
    return { metafile: named, inputsHash: inputsHashOf(image, [named]) };
  }
  const asked: [Role, string, PartSpec | undefined][] = [
    ['Disk', 'spec', spec],
    ['Kernel', 'spec.kernel', spec.kernel],
    ['Ramdisk', 'spec.ramdisk', spec.ramdisk],
  ];
  const parts: Part[] = [];
  for (const [role, field, partSpec] of asked) {
    if (partSpec === undefined) continue;
    const declared = lower(partSpec.checksums ?? {});
    proofRequired(declared, lower(partSpec.contentChecksums ?? {}), spec.verification, field);
    const part: Part = {
      ...partOf(role, field, partSpec, declared),
      ...(await originOf(namespace, partSpec.source, `${field}.source`, deps)),
    };
    parts.push({ ...part, key: keyOf(part) });
  }
  return { parts, inputsHash: inputsHashOf(image, parts) };
}

/** The parts that a fetched metafile names; its digests are SHA-1, so the image must say that this is good enough. */
export async function planOfMetafile(
  image: VMImage,
  plan: MetafilePlan,
  bytes: Uint8Array,
  deps: PlanDeps,
): Promise<Plan> {
  const { metafile } = image.spec.source;
  if (metafile === undefined) throw new Failure('InvalidSpec', 'spec.source.metafile is not set');
  const parts: Part[] = [];
  for (const named of parseMetafile(bytes, cleanUrl(metafile.url))) {
    const declared = { sha1: named.sha1 };
    const field = `spec.source.metafile (${named.role.toLowerCase()})`;
    proofRequired(declared, {}, image.spec.verification, field);
    const part: Part = {
      ...partOf(named.role, field, {}, declared),
      ...(await fromMetafile(image, metafile, named.url, `${named.role.toLowerCase()} url`, deps)),
      ...(named.packed ? { member: 'filesystem' } : { compression: 'None' }),
    };
    parts.push({ ...part, key: keyOf(part) });
  }
  return { parts, inputsHash: plan.inputsHash };
}

function partOf(
  role: Role,
  field: string,
  spec: Omit<PartSpec, 'source'>,
  declared: Digests,
): Omit<Part, keyof Origin | 'key'> & { key: '' } {
  return {
    role,
    field,
    declared,
    content: lower(spec.contentChecksums ?? {}),
    // A ramdisk is a compressed cpio that the kernel unpacks itself: only a disk is unpacked unasked.
    compression:
      spec.compression === undefined || spec.compression === 'Auto'
        ? role === 'Disk'
          ? 'Auto'
          : 'None'
        : spec.compression,
    format: spec.format ?? 'Auto',
    key: '',
  };
}

/** Where a part's bytes are, and who may use them once they are here. */
type Origin = Pick<Part, 'candidates' | 'scope'>;

function scopeOf(namespace: string, credentials: Credentials): Scope {
  return credentials.fingerprint === undefined ? 'public' : { namespace, credentials: credentials.fingerprint };
}

async function originOf(namespace: string, source: PartSpec['source'], field: string, deps: PlanDeps): Promise<Origin> {
  if (source.http !== undefined) {
    const { urls, headers } = source.http;
    const credentials = await readCredentials(namespace, source.http, `${field}.http`, deps);
    const candidates = urls.map((url, index) =>
      httpSource(url, headers, credentials, `${field}.http.urls[${index}]`, deps),
    );
    return { candidates, scope: scopeOf(namespace, credentials) };
  }
  if (source.file !== undefined) {
    const root = deps.settings.fileRoots.get(source.file.root);
    if (root === undefined) {
      const known = [...deps.settings.fileRoots.keys()].join(', ') || 'none';
      throw new Failure(
        'SourceForbidden',
        `${field}.file.root: "${source.file.root}" is not a root of this controller (--file-root NAME=FOLDER; it has: ${known})`,
      );
    }
    return { candidates: [{ kind: 'file', root, path: source.file.path }], scope: 'public' };
  }
  const named = Object.keys(source).find((key) => source[key as keyof typeof source] !== undefined) ?? 'source';
  throw new Failure(
    'NotSupported',
    `${field}.${named}: this version fetches from http and file; ${named} is not there yet`,
  );
}

/** The metafile itself, or a part that it names: fetched with the metafile's credentials, where these may be sent. */
async function fromMetafile(
  image: VMImage,
  metafile: NonNullable<VMImage['spec']['source']['metafile']>,
  url: string,
  what: string,
  deps: PlanDeps,
): Promise<Origin> {
  const { namespace = 'default' } = image.metadata;
  const field = 'spec.source.metafile';
  const credentials = await readCredentials(namespace, metafile, field, deps);
  const source = httpSource(url, metafile.headers, credentials, `${field} (${what})`, deps);
  return { candidates: [source], scope: scopeOf(namespace, credentials) };
}

function httpSource(
  url: string,
  headers: Record<string, string> | undefined,
  credentials: Credentials,
  field: string,
  deps: PlanDeps,
): SourceSpec {
  permitHost(credentials, url, field);
  const { authorization, secretHeaders, tls } = credentials;
  const { timeouts } = deps.settings;
  return {
    kind: 'http',
    url,
    headers: { ...headers },
    ...(authorization === undefined ? {} : { authorization }),
    ...(secretHeaders === undefined ? {} : { secretHeaders }),
    ...(tls === undefined ? {} : { tls }),
    network: networkOf(deps),
    timeouts,
  };
}

/**
 * Names the download. All that decides how it ends is in it, so that who shares one shares its end too: a format that somebody
 * else declares wrongly, or a CA that he does not trust, is no failure of this part.
 */
function keyOf(part: Part): string {
  const { role, candidates, scope, declared, content, compression, format, member, metafile } = part;
  return hashOf([role, candidates.map(nameOf), scope, declared, content, compression, format, member, metafile]);
}

/** What tells one place from another: headers too, since an origin may answer by them, and whom it is believed to be by. */
function nameOf(source: SourceSpec): unknown {
  return source.kind === 'http' ? [source.kind, source.url, source.headers, source.tls?.ca] : source;
}

/** @throws Failure when what is declared proves too little and the image does not say that this is wanted. */
function proofRequired(
  declared: Digests,
  content: Digests,
  verification: VMImage['spec']['verification'],
  field: string,
): void {
  if (provable(declared) || provable(content) || verification?.insecureSkipVerify === true) return;
  const weak = strongest(declared) ?? strongest(content);
  if (weak === undefined) {
    throw new Failure(
      'ChecksumRequired',
      `${field}.checksums: give sha256 or sha512 of the file; without one nothing proves what is fetched`,
    );
  }
  if (verification?.allowWeak === true) return;
  throw new Failure(
    'WeakChecksum',
    `${field}: ${weak.split(':')[0]} alone can be forged; add ${STRONG.join(' or ')}, or accept it with spec.verification.allowWeak: true`,
  );
}

function inputsHashOf(image: VMImage, parts: readonly Part[]): string {
  const { verification, format, compression } = image.spec;
  return hashOf([parts.map((part) => [part.role, part.key]), verification, format, compression]);
}

function lower(digests: { [name in keyof Digests]?: string | undefined }): Digests {
  const result: Digests = {};
  for (const [name, hex] of Object.entries(digests)) {
    if (hex !== undefined) result[name as keyof Digests] = hex.toLowerCase();
  }
  return result;
}
