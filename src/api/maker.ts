import { ANNOTATIONS } from './types.ts';

/** What is looked at: the metadata of any resource, or of one that is about to be written. */
interface Marked {
  readonly annotations?: Readonly<Record<string, string>>;
}

/**
 * The ImageSubscription that looks after a VMImage, as the image's marks say. Not its owner reference: that is the garbage collector's
 * word for "to be deleted with", and most subscriptions keep their images.
 */
export function makerMarks({ annotations = {} }: Marked): { name: string; uid: string } | undefined {
  const { [ANNOTATIONS.subscription]: name, [ANNOTATIONS.subscriptionUid]: uid } = annotations;
  return name === undefined || uid === undefined ? undefined : { name, uid };
}
