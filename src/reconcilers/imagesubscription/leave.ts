import { ANNOTATIONS, FINALIZERS, type VMImage } from '../../api/types.ts';
import { existingDraft } from './draft.ts';
import { imagesOf } from './inventory.ts';
import { type Look, lookAgain } from './look.ts';
import { readingKey } from './reading.ts';
import { carryOut, type Step } from './steps.ts';
import { conclude } from './verdict.ts';

/** Whoever removes the last image wakes us; this is for the case that it was not seen. */
const LOOK_AGAIN_MS = 30_000;

/**
 * Lets the subscription go. Its images stay, without it (`Retain`), or go first (`Delete`); `spec.deletionPolicy` may still be changed
 * meanwhile.
 *
 * @returns whether nothing holds it any more: the finalizer may go
 */
export async function leave(look: Look): Promise<boolean> {
  const { deps, uid, asker, subscription, now } = look;
  deps.jobs.leaveAll(asker);
  // The reading may just be writing into the folder that goes with us; it wakes us when it has ended.
  if (deps.jobs.runs(readingKey(uid))) {
    lookAgain(look, now + LOOK_AGAIN_MS);
    return false;
  }
  const images = imagesOf(subscription, deps.store);
  const remove = subscription.spec.deletionPolicy === 'Delete';
  // What a store has refused, a policy perhaps, is tried again: nothing else would ever end this.
  const { memory } = look;
  if (look.asked || now >= (memory.retryAt ?? 0)) {
    delete memory.refused;
    memory.retryAt = now + LOOK_AGAIN_MS;
  }
  const { more, refusals } = await carryOut(
    look,
    images.flatMap((image) => stepFor(look, image, remove)),
  );
  const left = imagesOf(subscription, deps.store);
  if (left.length === 0 && !more) {
    await deps.lists.forget(uid);
    return true;
  }
  lookAgain(look, more ? now : now + LOOK_AGAIN_MS);
  const [first] = refusals;
  const why = first === undefined ? '' : `; ${first.image ?? first.id}: ${first.message ?? first.reason}`;
  conclude(look, {
    state: 'Going',
    reason: 'DeletionHeld',
    message: `${left.length} VMImages are still to go: ${shown(left)}${why}`,
  });
  return false;
}

function stepFor({ subscription }: Look, image: VMImage, remove: boolean): Step[] {
  const entry = { id: image.metadata.annotations?.[ANNOTATIONS.entry] ?? image.metadata.name };
  if (!remove) return [{ what: 'Released', entry, draft: existingDraft(image, subscription, { owned: false }) }];
  return image.metadata.deletionTimestamp === undefined ? [{ what: 'Deleted', entry, image }] : [];
}

function shown(images: readonly VMImage[]): string {
  const names = images.slice(0, 5).map(({ metadata }) => metadata.name);
  return names.join(', ') + (images.length > 5 ? ` and ${images.length - 5} more` : '');
}

export const FINALIZER = FINALIZERS.subscribedImages;
