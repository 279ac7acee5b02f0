import { createHash } from 'node:crypto';
import { uuidFrom } from '../vmimage/identity.ts';

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const MAX_NAME = 253;
const MAX_SLUG = 60;

/**
 * Name of the VMImage of an entry: a function of the subscription's name and the entry's id, so that it is the same after any loss of
 * state. `egi-9394ca15-5a6a-4f0f-8f8c-2a54f7a3a3f3` where the id is a UUID; else the id in letters that a name may have, and a hash,
 * for two ids may look the same then: `ubuntu-com-ubuntu-server-24-04-amd64-3f9a1c2b4d`. A name of the first form ends with twelve
 * characters and one of the second with ten, so that no two subscriptions ever mean the same name.
 */
export function imageName(subscription: string, entryId: string): string {
  const id = entryId.toLowerCase();
  const plain = `${subscription}-${id}`;
  if (UUID.test(id) && plain.length <= MAX_NAME) return plain;
  const hash = createHash('sha256').update(`${subscription}\0${entryId}`).digest('hex').slice(0, 10);
  const slug = slugOf(id).slice(0, MAX_SLUG).replace(/-+$/, '');
  const prefix = subscription.slice(0, MAX_NAME - MAX_SLUG - hash.length - 2).replace(/[-.]+$/, '');
  return [prefix, slug, hash].filter((part) => part !== '').join('-');
}

/**
 * The identity of an entry's image in clouds. A UUID is everybody's name for it; anything else is only a name within its list, so it
 * is joined with the subscription that follows the list.
 */
export function imageGuid(instance: string, namespace: string, subscription: string, entryId: string): string {
  const id = entryId.toLowerCase();
  return UUID.test(id) ? id : uuidFrom('entry', instance, `${namespace}/${subscription}`, entryId);
}

/** A label's value, which is at most 63 characters long: the name, or its beginning and a hash. */
export function labelOf(name: string): string {
  if (name.length <= 63) return name;
  const hash = createHash('sha256').update(name).digest('hex').slice(0, 10);
  return `${name.slice(0, 52)}-${hash}`;
}

function slugOf(id: string): string {
  return id.replaceAll(/[^a-z0-9]+/g, '-').replace(/^-+/, '');
}
