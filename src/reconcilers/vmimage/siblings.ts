import type { VMImage } from '../../api/types.ts';
import type { Change } from '../../stores/store.ts';
import { guidOf } from './identity.ts';
import { holdsAnything } from './named.ts';

/**
 * Who has which guid. Each reconcile asks, so with ten thousand images a look at all of them would be a hundred million looks when
 * the program starts: the answer is kept as the images change.
 */
export class Siblings {
  readonly #instance: string;
  readonly #images = new Map<string, VMImage>();
  /** Uids by namespace and guid, and the way back. */
  readonly #sharing = new Map<string, Set<string>>();
  readonly #shared = new Map<string, string>();

  constructor(instance: string) {
    this.#instance = instance;
  }

  /** What a store tells. */
  note({ type, object }: Change<VMImage>): void {
    const { uid } = object.metadata;
    const key = type === 'Deleted' ? undefined : this.#keyOf(object);
    const before = this.#shared.get(uid);
    if (key === undefined) this.#images.delete(uid);
    else this.#images.set(uid, object);
    if (before === key) return;
    if (before !== undefined) {
      const others = this.#sharing.get(before);
      others?.delete(uid);
      if (others?.size === 0) this.#sharing.delete(before);
      this.#shared.delete(uid);
    }
    if (key !== undefined) {
      this.#shared.set(uid, key);
      this.#sharing.set(key, (this.#sharing.get(key) ?? new Set()).add(uid));
    }
  }

  /** Other images of the namespace with the same guid, the one that serves first. */
  of(image: VMImage): VMImage[] {
    return [...(this.#sharing.get(this.#keyOf(image)) ?? [])]
      .filter((uid) => uid !== image.metadata.uid)
      .flatMap((uid) => this.#images.get(uid) ?? [])
      .sort(byAge);
  }

  /** Whether a VMImage of this uid exists and is not on its way out: one that is hands over what it has. */
  isLiving(namespace: string, uid: string): boolean {
    const image = this.#images.get(uid);
    return image?.metadata.namespace === namespace && image.metadata.deletionTimestamp === undefined;
  }

  #keyOf(image: VMImage): string {
    return `${image.metadata.namespace}/${guidOf(image, this.#instance)}`;
  }
}

/**
 * The older one first, in the same order for everyone who looks. Times of creation are whole seconds: of two that were made in the
 * same one, it is the one that is on its way out, for the other waits for what it hands over; then the one that has something registered
 * already, then the lower uid.
 */
export function byAge(a: VMImage, b: VMImage): number {
  const [x, y] = [a.metadata.creationTimestamp, b.metadata.creationTimestamp];
  if (x !== y) return x < y ? -1 : 1;
  const goes = (image: VMImage) => image.metadata.deletionTimestamp !== undefined;
  if (goes(a) !== goes(b)) return goes(a) ? -1 : 1;
  const holds = (image: VMImage) => image.status.sites?.some(holdsAnything) === true;
  if (holds(a) !== holds(b)) return holds(a) ? -1 : 1;
  return a.metadata.uid < b.metadata.uid ? -1 : 1;
}
