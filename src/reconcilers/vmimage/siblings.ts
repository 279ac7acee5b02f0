import type { VMImage } from '../../api/types.ts';
import type { Store } from '../../stores/store.ts';
import { guidOf } from './round.ts';

/** Whether a VMImage of this uid exists and is not on its way out: one that is hands over what it has. */
export function isLiving(store: Store, namespace: string, uid: string): boolean {
  return store
    .list<VMImage>('VMImage', namespace)
    .some((image) => image.metadata.uid === uid && image.metadata.deletionTimestamp === undefined);
}

/** Other images of the namespace with the same guid, the one that serves first. */
export function namesakesOf(image: VMImage, store: Store, instance: string): VMImage[] {
  const guid = guidOf(image, instance);
  return store
    .list<VMImage>('VMImage', image.metadata.namespace)
    .filter((other) => other.metadata.uid !== image.metadata.uid && guidOf(other, instance) === guid)
    .sort(byAge);
}

/** Creation, then uid: the same order for everyone who looks. */
export function byAge(a: VMImage, b: VMImage): number {
  const [x, y] = [a.metadata.creationTimestamp, b.metadata.creationTimestamp];
  if (x !== y) return x < y ? -1 : 1;
  return a.metadata.uid < b.metadata.uid ? -1 : 1;
}
