import { ANNOTATIONS } from './types.ts';

/** What is looked at: the metadata of any resource, or of one that is about to be written. */
interface Marked {
  readonly annotations?: Readonly<Record<string, string>>;
  readonly ownerReferences?: readonly { readonly kind: string; readonly name: string; readonly uid: string }[];
}

/**
 * The ImageSubscription that looks after a VMImage, as the image's marks say. Not its owner reference: that is the garbage collector's
 * word for "to be deleted with", and most subscriptions keep their images; but images made before there were marks have that alone.
 */
export function makerMarks({ annotations = {}, ownerReferences }: Marked): { name: string; uid: string } | undefined {
  const { [ANNOTATIONS.subscription]: name, [ANNOTATIONS.subscriptionUid]: uid } = annotations;
  if (name !== undefined && uid !== undefined) return { name, uid };
  const owner = ownerReferences?.find(({ kind }) => kind === 'ImageSubscription');
  return owner === undefined ? undefined : { name: owner.name, uid: owner.uid };
}
