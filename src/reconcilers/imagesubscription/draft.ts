import { isDeepStrictEqual } from 'node:util';
import { makerMarks } from '../../api/maker.ts';
import { API_VERSION, ANNOTATIONS, type ImageSubscription, LABELS, type VMImage } from '../../api/types.ts';
import type { Entry, ListFacts } from '../../catalogs/catalog.ts';
import type { Draft, OwnerReference } from '../../stores/store.ts';
import { hashOf } from '../vmimage/identity.ts';
import { digestOf } from './approval.ts';
import { imageGuid, imageName, labelOf } from './names.ts';
import { propertiesOf } from './properties.ts';

type RegistrationSpec = NonNullable<ImageSubscription['spec']['template']['spec']['registration']>;

/** What all drafts of a subscription have in common. */
export interface Making {
  readonly subscription: ImageSubscription;
  readonly instance: string;
  readonly list: ListFacts;
}

/** Why an image of ours is out of service. */
export type Retirement = 'Removed' | 'Expired' | 'Untrusted';

/**
 * The VMImage of an entry, as it should be. Its guid, once it is there, stays; so does what a person has switched: an image that he
 * has deactivated or suspended is not brought back by the next version of the list.
 */
export function draftOf(entry: Entry, existing: VMImage | undefined, making: Making): Draft {
  const { subscription, instance } = making;
  const { name, namespace = 'default' } = subscription.metadata;
  const { template } = subscription.spec;
  const spec = {
    guid: existing?.spec.guid ?? imageGuid(instance, namespace, name, entry.id),
    source: { http: { urls: [...entry.urls], ...accessOf(entry, subscription) } },
    ...filled('checksums', entry.checksums),
    ...filled('contentChecksums', entry.contentChecksums),
    compression: entry.compression ?? 'Auto',
    format: entry.format ?? 'Auto',
    ...template.spec,
    registration: registrationOf(entry, making),
    ...(template.spec.sites === undefined ? {} : { sites: sitesOf(entry, template.spec.sites) }),
    ...switchesOf(existing),
  };
  const annotations = { ...template.metadata?.annotations, ...provenanceOf(entry, making) };
  const metadata = {
    name: existing?.metadata.name ?? imageName(name, entry.id),
    namespace,
    ...(existing === undefined ? {} : { uid: existing.metadata.uid }),
    labels: { ...template.metadata?.labels, [LABELS.subscription]: labelOf(name) },
    annotations,
    ...ownersFor(subscription),
  };
  // A new version of the list that leaves the entry as it is must cost no write, so the list's version is not among what counts.
  const { [ANNOTATIONS.listVersion]: _, ...counted } = annotations;
  const hash = hashOf([spec, metadata.labels, counted]);
  return {
    apiVersion: API_VERSION,
    kind: 'VMImage',
    metadata: { ...metadata, annotations: { ...annotations, [ANNOTATIONS.entryHash]: hash } },
    spec,
  };
}

/**
 * Whether the image is what the draft wants. The hash tells of anything that the draft no longer says; the comparison of what it does
 * say, of anything that somebody else has changed.
 */
export function isAsDrafted(image: VMImage, { metadata, spec }: Draft): boolean {
  const hash = ANNOTATIONS.entryHash;
  const { annotations = {} } = image.metadata;
  // What we took out of service is as its entry says, but for that.
  if (annotations[hash] !== metadata.annotations?.[hash] || annotations[ANNOTATIONS.retired] !== undefined)
    return false;
  if (makerMarks(image.metadata)?.uid !== makerMarks(metadata)?.uid) return false;
  if (!isDeepStrictEqual(ownersOf(image.metadata), ownersOf(metadata))) return false;
  return within(metadata.labels, image.metadata.labels) && within(spec, image.spec);
}

/** Uids of the subscriptions with which the image would be deleted. */
function ownersOf({ ownerReferences = [] }: { ownerReferences?: OwnerReference[] }): string[] {
  return ownerReferences.filter(({ kind }) => kind === 'ImageSubscription').map(({ uid }) => uid);
}

/**
 * The image as it is, but out of service, or without an owner. What others have written on it (other labels, requests) is left to
 * them.
 */
export function existingDraft(
  image: VMImage,
  subscription: ImageSubscription,
  change: { retired?: Retirement; owned: boolean },
): Draft {
  const { metadata } = subscription.spec.template;
  const labels = new Set([...Object.keys(metadata?.labels ?? {}), ...Object.values(LABELS)]);
  const annotations = new Set([...Object.keys(metadata?.annotations ?? {}), ...PROVENANCE]);
  const { retired, owned } = change;
  return {
    apiVersion: API_VERSION,
    kind: 'VMImage',
    metadata: {
      name: image.metadata.name,
      ...(image.metadata.namespace === undefined ? {} : { namespace: image.metadata.namespace }),
      // An image that goes meanwhile (`kubectl delete imagesubscriptions,vmimages --all`) must not be made again.
      uid: image.metadata.uid,
      labels: only(image.metadata.labels, labels),
      annotations: {
        ...only(image.metadata.annotations, annotations),
        ...(owned ? { [ANNOTATIONS.subscriptionUid]: subscription.metadata.uid } : {}),
        ...(retired === undefined ? {} : { [ANNOTATIONS.retired]: retired }),
      },
      ...(owned ? ownersFor(subscription) : {}),
    },
    spec: retired === undefined ? image.spec : { ...image.spec, state: 'Deactivated' },
  };
}

const PROVENANCE: readonly string[] = [
  ANNOTATIONS.subscription,
  ANNOTATIONS.entry,
  ANNOTATIONS.entryVersion,
  ANNOTATIONS.entryTitle,
  ANNOTATIONS.mpuri,
  ANNOTATIONS.list,
  ANNOTATIONS.endorser,
  ANNOTATIONS.endorserIssuer,
  ANNOTATIONS.listVersion,
  ANNOTATIONS.entryHash,
  ANNOTATIONS.retired,
];

function provenanceOf(entry: Entry, { subscription, list }: Making): Record<string, string> {
  const signer = entry.signer ?? list.signer;
  const said: readonly (readonly [string, string | undefined])[] = [
    [ANNOTATIONS.subscription, subscription.metadata.name],
    [ANNOTATIONS.subscriptionUid, subscription.metadata.uid],
    [ANNOTATIONS.entry, entry.id],
    [ANNOTATIONS.entryVersion, entry.version],
    [ANNOTATIONS.entryTitle, entry.title],
    [ANNOTATIONS.mpuri, entry.fields['ad:mpuri']],
    [ANNOTATIONS.list, list.identity],
    [ANNOTATIONS.endorser, signer?.subject ?? signer?.name],
    [ANNOTATIONS.endorserIssuer, signer?.issuer],
    [ANNOTATIONS.listVersion, list.version],
  ];
  return Object.fromEntries(said.filter((pair): pair is [string, string] => pair[1] !== undefined));
}

/**
 * Only a subscription that takes its images with it is their owner. Of any other one a foreground deletion (as Argo CD prunes) would
 * have the garbage collector delete them all, before our finalizer is asked.
 */
function ownersFor({ metadata, spec }: ImageSubscription): { ownerReferences?: OwnerReference[] } {
  if (spec.deletionPolicy !== 'Delete') return {};
  const { name, uid } = metadata;
  const owner = { apiVersion: API_VERSION, kind: 'ImageSubscription', name, uid };
  return { ownerReferences: [{ ...owner, controller: true, blockOwnerDeletion: false }] };
}

/**
 * Images of a private list are often as private. Where all locations are on the list's own server, they are fetched as the list is;
 * elsewhere its publisher could have our credentials sent to whom he likes.
 */
function accessOf(entry: Entry, { spec }: ImageSubscription): Record<string, unknown> {
  const { origin } = new URL(spec.url);
  if (!entry.urls.every((url) => URL.parse(url)?.origin === origin)) return {};
  const { secretRef, caRef } = spec;
  return { ...(secretRef === undefined ? {} : { secretRef }), ...(caRef === undefined ? {} : { caRef }) };
}

/** What the list knows of the image; the template's word goes before it. */
function registrationOf(entry: Entry, { subscription, list }: Making): RegistrationSpec {
  const template = subscription.spec.template.spec.registration ?? {};
  const { name, properties: given, os: givenOs, ...rest } = template;
  const { distro, version } = entry.os;
  const os = givenOs ?? { ...(distro === undefined ? {} : { distro }), ...(version === undefined ? {} : { version }) };
  const properties = propertiesOf(entry, list.format, given);
  return {
    ...(entry.arch === undefined ? {} : { architecture: entry.arch }),
    ...(entry.minDiskGiB === undefined ? {} : { minDiskGiB: entry.minDiskGiB }),
    ...(entry.minRamMiB === undefined ? {} : { minRamMiB: entry.minRamMiB }),
    ...filled('os', os),
    ...rest,
    ...(name === undefined ? {} : { name: nameFrom(name, entry) }),
    ...filled('properties', properties),
  };
}

type Sites = NonNullable<ImageSubscription['spec']['template']['spec']['sites']>;

function sitesOf(entry: Entry, sites: Sites): Sites {
  return sites.map((site) =>
    site.registration?.name === undefined
      ? site
      : { ...site, registration: { ...site.registration, name: nameFrom(site.registration.name, entry) } },
  );
}

const MAX_NAME = 255;

/** The name with the entry's own words in it, as a cloud can take it; the id where nothing is left of it. */
function nameFrom(template: string, entry: Entry): string {
  const words: Readonly<Record<string, string | undefined>> = {
    id: entry.id,
    title: entry.title,
    version: entry.version,
    digest12: digestOf(entry)?.split(':')[1]?.slice(0, 12),
  };
  const name = template
    .replaceAll(/\{(id|title|version|digest12)\}/g, (_, word: string) => words[word] ?? '')
    // oxlint-disable-next-line no-control-regex -- they are what is taken out
    .replaceAll(/[\x00-\x20\x7f]+/g, ' ');
  const cut = Array.from(name.trim()).slice(0, MAX_NAME).join('').trim();
  return cut === '' ? entry.id : cut;
}

/** Only a person's own switches: what we deactivated ourselves comes back with its entry. */
function switchesOf(existing: VMImage | undefined): Partial<VMImage['spec']> {
  if (existing === undefined) return {};
  const ours = existing.metadata.annotations?.[ANNOTATIONS.retired] !== undefined;
  return {
    ...(existing.spec.state === 'Deactivated' && !ours ? { state: 'Deactivated' as const } : {}),
    ...(existing.spec.suspend ? { suspend: true } : {}),
  };
}

function filled<K extends string, V extends object>(name: K, value: V): Partial<Record<K, V>> {
  return Object.keys(value).length === 0 ? {} : ({ [name]: value } as Record<K, V>);
}

function only(map: Readonly<Record<string, string>> | undefined, keys: ReadonlySet<string>): Record<string, string> {
  return Object.fromEntries(Object.entries(map ?? {}).filter(([key]) => keys.has(key)));
}

/** Whether every field of `wanted` is the same in `actual`; what else is in there (defaults) does not matter. */
function within(wanted: unknown, actual: unknown): boolean {
  if (Array.isArray(wanted)) {
    return (
      Array.isArray(actual) && wanted.length === actual.length && wanted.every((each, i) => within(each, actual[i]))
    );
  }
  if (typeof wanted === 'object' && wanted !== null) {
    if (typeof actual !== 'object' || actual === null) return Object.keys(wanted).length === 0;
    return Object.entries(wanted).every(
      ([key, value]) => value === undefined || within(value, (actual as Record<string, unknown>)[key]),
    );
  }
  return wanted === actual;
}
