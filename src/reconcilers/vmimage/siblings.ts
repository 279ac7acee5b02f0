import type { VMImage } from '../../api/types.ts';
import type { Store } from '../../stores/store.ts';
import { guidOf } from './round.ts';
import { holdsAnything } from './rows.ts';

/** Whether a VMImage of this uid exists and is not on its way out: one that is hands over what it has. */
export function isLiving(store: Store, namespace: string, uid: string): boolean {
  return store
    .list<VMImage>('VMImage', namespace)
    .some((image) => image.metadata.uid === uid && image.metadata.deletionTimestamp === undefined);
}

/** Other images of the namespace with the same guid, the one that serves first. */
export function namesakesOf(image: VMImage, store: Store, instance: string): VMImage[] {
  const guid = guidOf(image, instance);
  return (
    store
      .list<VMImage>('VMImage', image.metadata.namespace)
      // The status remembers the guid, so that a look at ten thousand images hashes none of their names.
      .filter(
        (other) => other.metadata.uid !== image.metadata.uid && (other.status.guid ?? guidOf(other, instance)) === guid,
      )
      .sort(byAge)
  );
}

/**
 * The older one first, in the same order for everyone who looks. Times of creation are whole seconds: of two that were made in the
 * same one, it is the one that has something registered already, then the lower uid.
 */
export function byAge(a: VMImage, b: VMImage): number {
  const [x, y] = [a.metadata.creationTimestamp, b.metadata.creationTimestamp];
  if (x !== y) return x < y ? -1 : 1;
  const holds = (image: VMImage) => image.status.sites?.some(holdsAnything) === true;
  if (holds(a) !== holds(b)) return holds(a) ? -1 : 1;
  return a.metadata.uid < b.metadata.uid ? -1 : 1;
}
