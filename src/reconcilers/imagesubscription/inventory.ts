import { createHash } from 'node:crypto';
import { makerMarks } from '../../api/maker.ts';
import { ANNOTATIONS, type ImageSubscription, type VMImage } from '../../api/types.ts';
import { keyOf, type Store } from '../../stores/store.ts';

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
    const owners = [makerMarks(image.metadata)?.uid, ...ownerReferences.map((owner) => owner.uid)].join(' ');
    hash.update(
      `${uid} ${generation} ${deletionTimestamp ?? ''} ${annotations[ANNOTATIONS.entryHash] ?? ''} ${guid} ${owners}\n`,
    );
    const entry = annotations[ANNOTATIONS.entry];
    const owned = isOf(image, subscription);
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

/** Whether it is this very subscription that looks after the image. */
export function isOf({ metadata }: VMImage, subscription: ImageSubscription): boolean {
  return makerMarks(metadata)?.uid === subscription.metadata.uid;
}

/** The VMImages that the subscription looks after. */
export function imagesOf(subscription: ImageSubscription, store: Store): VMImage[] {
  return store
    .list<VMImage>('VMImage', subscription.metadata.namespace ?? 'default')
    .filter((image) => isOf(image, subscription));
}

/** The subscription that an image belongs to, while it is there. */
export function makerOf(image: VMImage, store: Store): ImageSubscription | undefined {
  const { namespace = 'default' } = image.metadata;
  const maker = makerMarks(image.metadata);
  if (maker === undefined) return undefined;
  const found = store.get<ImageSubscription>('ImageSubscription', { namespace, name: maker.name });
  return found?.metadata.uid === maker.uid ? found : undefined;
}

export function nameOf(image: VMImage): string {
  return `VMImage ${keyOf(image)}`;
}
