import { makerMarks } from '../api/maker.ts';
import type { ImageSubscription, VMImage } from '../api/types.ts';
import type { Deps } from '../reconcilers/deps.ts';
import { reconcileImageSubscription } from '../reconcilers/imagesubscription/index.ts';
import { makerOf } from '../reconcilers/imagesubscription/inventory.ts';
import { askerOf } from '../reconcilers/imagesubscription/look.ts';
import { referencesOf } from '../reconcilers/imagesubscription/material.ts';
import { keyOf, type ObjectKey, type Resource } from '../stores/store.ts';
import { Controller } from './controller.ts';

/** Images change in flocks; the counts in a subscription's status follow a little later. */
const COUNT_DELAY_MS = 2000;

/**
 * What wakes an ImageSubscription: itself, its readings, the Secrets and ConfigMaps that it refers to, its images, and whoever beside
 * it may hold an image that it offers too.
 */
export function imagesubscriptionController(deps: Deps): Controller {
  // Of several controllers on an API server one follows the lists: that which summarizes.
  const controller = new Controller('ImageSubscription', deps, (key: ObjectKey) =>
    deps.authority.goodForMs(0) && deps.duties.summarizes
      ? reconcileImageSubscription(key, deps)
      : Promise.resolve(undefined),
  );
  const { store } = deps;
  const neighbours = ({ metadata }: Resource) => store.list<ImageSubscription>('ImageSubscription', metadata.namespace);

  store.subscribe<ImageSubscription>('ImageSubscription', ({ object, type, previous }) => {
    const key = keyOf(object);
    if (type === 'Deleted') {
      controller.forget(key);
      deps.jobs.leaveAll(askerOf(object));
    }
    // Its own status is written by its own reconcile.
    if (type === 'Applied' && previous !== undefined && words(previous) === words(object)) return;
    controller.add(key);
    if (previous?.metadata.generation === object.metadata.generation && type !== 'Deleted') return;
    for (const other of neighbours(object)) if (other !== object) controller.addAfter(keyOf(other), COUNT_DELAY_MS);
  });
  for (const kind of ['Secret', 'ConfigMap'] as const) {
    store.subscribe(kind, ({ object }) => {
      for (const subscription of neighbours(object)) {
        const concerned = referencesOf(subscription).some(
          (reference) => reference.kind === kind && reference.name === object.metadata.name,
        );
        if (concerned) controller.add(keyOf(subscription));
      }
    });
  }
  store.subscribe<VMImage>('VMImage', ({ object, type, previous }) => {
    const maker = makerOf(object, store);
    if (maker !== undefined) controller.addAfter(keyOf(maker), COUNT_DELAY_MS);
    // One that comes, goes or changes hands may have been in the way of others.
    if (type === 'Applied' && previous !== undefined && hands(previous) === hands(object)) return;
    for (const each of neighbours(object)) {
      // Its deletion waits for this one.
      if (each.metadata.deletionTimestamp !== undefined) controller.add(keyOf(each));
      else controller.addAfter(keyOf(each), COUNT_DELAY_MS);
    }
  });
  return controller;
}

function words({ metadata }: ImageSubscription): string {
  const { generation, annotations, deletionTimestamp, finalizers } = metadata;
  return JSON.stringify([generation, annotations, deletionTimestamp, finalizers]);
}

function hands({ metadata }: VMImage): string {
  return JSON.stringify([metadata.uid, metadata.deletionTimestamp, makerMarks(metadata)]);
}
