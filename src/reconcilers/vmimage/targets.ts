import { Failure } from '../../api/failure.ts';
import type { ImageSite, VMImage } from '../../api/types.ts';
import type { Registration } from '../../clouds/cloud.ts';
import type { Store } from '../../stores/store.ts';

type RegistrationSpec = NonNullable<VMImage['spec']['registration']>;

/** A site that the spec asks for. */
export interface Target {
  name: string;
  optional: boolean;
  registration: Registration;
  site: ImageSite | undefined;
}

/** The sites that this image shall be on: those it lists, or those its selector matches and that admit its namespace. */
export function targetsOf(image: VMImage, store: Store): Target[] {
  const { spec } = image;
  const listed =
    spec.sites ??
    store
      .list<ImageSite>('ImageSite')
      .filter((site) => site.metadata.deletionTimestamp === undefined)
      .filter((site) => matchesSelector(site.metadata.labels ?? {}, spec.siteSelector ?? {}) && admits(site, image))
      .map((site): NonNullable<VMImage['spec']['sites']>[number] => ({ name: site.metadata.name, optional: false }));
  return listed.map((each) => ({
    name: each.name,
    optional: each.optional,
    registration: registrationOf(image, each.registration),
    site: store.get<ImageSite>('ImageSite', { name: each.name }),
  }));
}

/** Whether the site takes images of this namespace: names, and globs where `*` stands for any text and `?` for one character. */
export function admits(site: ImageSite, image: VMImage): boolean {
  const namespace = image.metadata.namespace ?? 'default';
  return (site.spec.allowedNamespaces ?? ['*']).some((pattern) => glob(pattern, namespace));
}

/** That the site does not take images of the namespace, for messages. */
export function notAdmitted({ metadata, spec }: ImageSite, namespace: string): string {
  return `ImageSite ${metadata.name} takes no images of namespace ${namespace} (its allowedNamespaces: ${spec.allowedNamespaces.join(', ')})`;
}

/** Goes back to the last star alone, so that no pattern takes more than length × length steps. */
export function glob(pattern: string, text: string): boolean {
  let [at, from] = [0, 0];
  let star: { at: number; from: number } | undefined;
  while (from < text.length) {
    if (pattern[at] === '*') star = { at: at++, from };
    else if (pattern[at] === '?' || pattern[at] === text[from]) {
      at++;
      from++;
    } else if (star !== undefined) {
      at = star.at + 1;
      from = ++star.from;
    } else return false;
  }
  while (pattern[at] === '*') at++;
  return at === pattern.length;
}

type Selector = NonNullable<VMImage['spec']['siteSelector']>;

/** Kubernetes' label selector; an empty one matches everything. */
export function matchesSelector(labels: Record<string, string>, selector: Selector): boolean {
  // `constructor` is a valid key, and every object has one.
  const labelOf = (key: string) => (Object.hasOwn(labels, key) ? labels[key] : undefined);
  for (const [key, value] of Object.entries(selector.matchLabels ?? {})) if (labelOf(key) !== value) return false;
  for (const { key, operator, values = [] } of selector.matchExpressions ?? []) {
    const value = labelOf(key);
    const holds =
      operator === 'In'
        ? value !== undefined && values.includes(value)
        : operator === 'NotIn'
          ? value === undefined || !values.includes(value)
          : operator === 'Exists'
            ? value !== undefined
            : value === undefined;
    if (!holds) return false;
  }
  return true;
}

/** The image's registration with the site's overrides laid over it, and every default filled in. */
export function registrationOf(image: VMImage, override: Partial<RegistrationSpec> | undefined): Registration {
  const merged: Partial<RegistrationSpec> = { ...image.spec.registration, ...override };
  const properties = { ...image.spec.registration?.properties, ...override?.properties };
  const visibility = merged.visibility ?? 'Private';
  const registration: Registration = {
    name: merged.name ?? image.metadata.name,
    visibility,
    // A site that makes a shared image private shares it with nobody.
    members: visibility === 'Shared' ? (merged.members ?? []) : [],
    protected: merged.protected ?? false,
    hidden: merged.hidden ?? false,
    tags: merged.tags ?? [],
    properties,
  };
  if (merged.architecture !== undefined) registration.architecture = merged.architecture;
  if (merged.os !== undefined) registration.os = definedOnly(merged.os);
  if (merged.minDiskGiB !== undefined) registration.minDiskGiB = merged.minDiskGiB;
  if (merged.minRamMiB !== undefined) registration.minRamMiB = merged.minRamMiB;
  if (merged.firmware !== undefined) registration.firmware = merged.firmware;
  return registration;
}

function definedOnly<T extends object>(value: T): { [key in keyof T]: Exclude<T[key], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, each]) => each !== undefined)) as never;
}

/**
 * What the site's owner does not allow.
 * @throws Failure LimitExceeded | WeakChecksum | ChecksumRequired
 */
export function checkLimits(image: VMImage, registration: Registration, site: ImageSite): void {
  const { limits, verification } = site.spec;
  const { name } = site.metadata;
  const refuse = (field: string, fact: string): never => {
    throw new Failure(
      'LimitExceeded',
      `spec.registration.${field}: ${fact}; ask the owner of ImageSite ${name}, or change it for this site`,
    );
  };
  if (limits?.visibilities !== undefined && !limits.visibilities.includes(registration.visibility)) {
    refuse('visibility', `${name} allows ${limits.visibilities.join(', ')}, not ${registration.visibility}`);
  }
  const { propertyKeys } = limits ?? {};
  if (propertyKeys !== undefined) {
    const key = Object.keys(registration.properties).find(
      (each) => !propertyKeys.some((pattern) => glob(pattern, each)),
    );
    if (key !== undefined) refuse('properties', `${name} does not allow the property "${key}"`);
  }
  const { members } = limits ?? {};
  if (members !== undefined) {
    const member = registration.members.find((each) => !members.includes(each));
    if (member !== undefined) refuse('members', `${name} does not allow sharing with ${member}`);
  }
  if (verification?.allowWeak === false && image.spec.verification?.allowWeak === true) {
    throw new Failure(
      'WeakChecksum',
      `ImageSite ${name} takes no image that is proven by sha1 or md5 alone: add sha256 or sha512, and drop spec.verification.allowWeak`,
    );
  }
  if (verification?.allowUnverified === false && image.spec.verification?.insecureSkipVerify === true) {
    throw new Failure(
      'ChecksumRequired',
      `ImageSite ${name} takes no unproven image: add spec.checksums, and drop spec.verification.insecureSkipVerify`,
    );
  }
}

/** `10Gi`, `500Mi`, `1048576` in bytes. */
export function bytesOf(quantity: string | number | undefined): number | undefined {
  const match = /^([0-9]+)(Ki|Mi|Gi|Ti)?$/.exec(String(quantity ?? ''));
  if (match === null) return undefined;
  const exponent = ['', 'Ki', 'Mi', 'Gi', 'Ti'].indexOf(match[2] ?? '');
  return Number(match[1]) * 1024 ** exponent;
}

/** `30m`, `1h30m`, `90s` in milliseconds (Go's durations, as Kubernetes writes them). */
export function durationMs(text: string | undefined, fallback: number): number {
  const units = { h: 3_600_000, m: 60_000, s: 1000, ms: 1 } as const;
  let total = 0;
  for (const [, count, unit] of (text ?? '').matchAll(/([0-9]+(?:\.[0-9]+)?)(ms|h|m|s)/g)) {
    total += Number(count) * units[unit as keyof typeof units];
  }
  return total > 0 ? total : fallback;
}
