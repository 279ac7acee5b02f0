import { createHash } from 'node:crypto';
import type { VMImage } from '../../api/types.ts';
import type { Clock } from '../../runtime/clock.ts';

/** RFC 9562 §5.5: a UUID that is a function of its names; the namespace UUID is the project's own, made once at random. */
const NAMESPACE = Buffer.from('3d0a5b0e6f0c4d5b9b5f8f2b9c1a7e42', 'hex');

/** UUIDv5 over the parts, joined by NUL so that no two lists of names give the same text. */
export function uuidFrom(...parts: readonly string[]): string {
  const hash = createHash('sha1').update(NAMESPACE).update(parts.join('\0')).digest();
  hash[6] = ((hash[6] ?? 0) & 0x0f) | 0x50;
  hash[8] = ((hash[8] ?? 0) & 0x3f) | 0x80;
  const hex = hash.toString('hex', 0, 16);
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

/** Whose registrations these are: written on each of them, so that nothing of another instance or namespace is ever taken. */
export function ownerOf(instance: string, namespace: string): string {
  return createHash('sha256').update(`${instance}\0${namespace}`).digest('hex').slice(0, 32);
}

/** The guid of a VMImage whose spec names none. */
export function defaultGuid(instance: string, namespace: string, name: string): string {
  return uuidFrom(instance, `${namespace}/${name}`);
}

export interface RegistrationIdentity {
  instance: string;
  namespace: string;
  guid: string;
  role: string;
  /** `alg:hex` of the part as published. */
  digest: string;
  /** Id of the transform that made what is sent; `as-published` when there was none. */
  transform: string;
  site: string;
  attempt: number;
}

/**
 * The id under which a part is registered where the client chooses it. A function of what is registered where, so that a crash
 * between the request and its answer finds the same record again; the attempt makes it new after Glance has burnt an id.
 */
export function registrationId(identity: RegistrationIdentity): string {
  const { instance, namespace, guid, role, digest, transform, site, attempt } = identity;
  return uuidFrom(instance, namespace, guid, role, digest, transform, site, String(attempt));
}

/**
 * The attempt after one whose id is burnt. Attempts form a binary tree, and chance takes one of its two branches: an image that was lost
 * or exchanged a thousand times has burnt a thousand ids, and finds a free one in some ten steps without anybody having kept count.
 */
export function nextAttempt(attempt: number, clock: Pick<Clock, 'random'>): number {
  return 2 * attempt + (clock.random() < 0.5 ? 0 : 1);
}

/** Short and stable hash of plain data; keys in any order give the same. */
export function hashOf(value: unknown): string {
  return createHash('sha256').update(canonical(value)).digest('hex').slice(0, 16);
}

function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`;
  if (value !== null && typeof value === 'object') {
    const entries = Object.entries(value)
      .filter(([, each]) => each !== undefined)
      .sort(([a], [b]) => (a < b ? -1 : 1));
    return `{${entries.map(([key, each]) => `${JSON.stringify(key)}:${canonical(each)}`).join(',')}}`;
  }
  return JSON.stringify(value) ?? 'null';
}

/** The guid that an image's registrations carry: its own word, or a function of instance, namespace and name. */
export function guidOf(image: VMImage, instance: string): string {
  return image.spec.guid ?? defaultGuid(instance, image.metadata.namespace ?? 'default', image.metadata.name);
}
