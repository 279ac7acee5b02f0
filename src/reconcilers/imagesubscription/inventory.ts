import { createHash } from 'node:crypto';
import { ANNOTATIONS, type ImageSubscription, type VMImage } from '../../api/types.ts';
import { keyOf, type Store } from '../../stores/store.ts';
import { isOwnedBy } from './draft.ts';

/** The VMImages of a subscription's namespace, as it sees them. */
export interface Inventory {
  /** Those of the subscription, by the ids of their entries. */
  readonly ours: ReadonlyMap<string, VMImage>;
  /** Those of everybody else, by guid. */
  readonly others: ReadonlyMap<string, readonly VMImage[]>;
  /** Changes with every VMImage's spec, owner or disappearance, and with the subscriptions beside this one. */
  readonly fingerprint: string;
}

export function inventoryOf(subscription: ImageSubscription, store: Store): Inventory {
  const { namespace = 'default' } = subscription.metadata;
  const ours = new Map<string, VMImage>();
  const others = new Map<string, VMImage[]>();
  const hash = createHash('sha256');
  for (const image of store.list<VMImage>('VMImage', namespace)) {
    const { uid, generation, annotations = {}, deletionTimestamp, ownerReferences = [] } = image.metadata;
    const guid = image.spec.guid ?? image.status?.guid ?? '';
    const owners = ownerReferences.map((owner) => owner.uid).join(' ');
    hash.update(
      `${uid} ${generation} ${deletionTimestamp ?? ''} ${annotations[ANNOTATIONS.entryHash] ?? ''} ${guid} ${owners}\n`,
    );
    const entry = annotations[ANNOTATIONS.entry];
    const owned = isOwnedBy(image, subscription.metadata.uid);
    if (entry !== undefined && (owned || (isLeftBehind(image, subscription) && !ours.has(entry)))) {
      ours.set(entry, image);
    } else if (guid !== '') {
      others.set(guid, [...(others.get(guid) ?? []), image]);
    }
  }
  for (const { metadata, spec } of store.list<ImageSubscription>('ImageSubscription', namespace)) {
    hash.update(`${metadata.uid} ${spec.trust.unsigned === undefined} ${metadata.deletionTimestamp ?? ''}\n`);
  }
  return { ours, others, fingerprint: hash.digest('hex') };
}

/**
 * Whether the image was made by a subscription of this name, which is gone and has kept its images: one of the same name takes them
 * up again, so that a subscription can be deleted and made anew without loss. Whoever wants such an image to himself takes the
 * annotation away.
 */
function isLeftBehind({ metadata }: VMImage, subscription: ImageSubscription): boolean {
  return (
    (metadata.ownerReferences ?? []).length === 0 &&
    metadata.deletionTimestamp === undefined &&
    metadata.annotations?.[ANNOTATIONS.subscription] === subscription.metadata.name
  );
}

/** The VMImages that the subscription owns. */
export function ownedBy(subscription: ImageSubscription, store: Store): VMImage[] {
  const { namespace = 'default', uid } = subscription.metadata;
  return store.list<VMImage>('VMImage', namespace).filter((image) => isOwnedBy(image, uid));
}

/** The subscription that an image belongs to, while it is there. */
export function makerOf(image: VMImage, store: Store): ImageSubscription | undefined {
  const { namespace = 'default', ownerReferences = [] } = image.metadata;
  const owner = ownerReferences.find(({ kind }) => kind === 'ImageSubscription');
  if (owner === undefined) return undefined;
  const found = store.get<ImageSubscription>('ImageSubscription', { namespace, name: owner.name });
  return found?.metadata.uid === owner.uid ? found : undefined;
}

export function nameOf(image: VMImage): string {
  return `VMImage ${keyOf(image)}`;
}
