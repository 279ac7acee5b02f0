import type { ImageSite, VMImage } from '../api/types.ts';
import { reconcileImageSite } from '../reconcilers/imagesite/index.ts';
import type { SiteDeps } from '../reconcilers/imagesite/opened.ts';
import { keyOf } from '../stores/store.ts';
import { Controller } from './controller.ts';

/** Rows change in flocks; the counts in a site's status follow a little later. */
const COUNT_DELAY_MS = 2000;

/** What wakes an ImageSite: itself, its Secret, the last image that leaves it, and its probe. */
export function imagesiteController(deps: SiteDeps): Controller {
  const controller = new Controller('ImageSite', deps, (key) =>
    deps.authority.goodForMs(0) ? reconcileImageSite(key, deps) : Promise.resolve(undefined),
  );
  const { store } = deps;
  store.subscribe<ImageSite>('ImageSite', ({ object, previous, type }) => {
    if (type === 'Deleted') controller.forget(keyOf(object));
    // Its own status is written by its own reconcile.
    if (previous === undefined || tellingOf(object) !== tellingOf(previous)) controller.add(keyOf(object));
  });
  for (const kind of ['Secret', 'ConfigMap'] as const) {
    store.subscribe(kind, ({ object }) => {
      if (object.metadata.namespace !== deps.settings.controllerNamespace) return;
      for (const site of store.list<ImageSite>('ImageSite')) controller.add(keyOf(site));
    });
  }
  store.subscribe<VMImage>('VMImage', ({ object, type, previous }) => {
    const tell = (image: VMImage | undefined) =>
      JSON.stringify(
        image?.status.sites?.map((row) => [
          row.name,
          row.phase,
          row.imageID,
          row.operation?.kind,
          row.previous?.length,
        ]),
      );
    if (type === 'Applied' && tell(object) === tell(previous)) return;
    const names = new Set([...(object.status.sites ?? []), ...(previous?.status.sites ?? [])].map((row) => row.name));
    for (const name of names) controller.addAfter(name, COUNT_DELAY_MS);
  });
  return controller;
}

/** What of an ImageSite its own reconcile has not written itself. Labels, and who has it, say whose it is where several share the sites. */
function tellingOf({
  metadata: { generation, labels, annotations, deletionTimestamp, finalizers },
  status,
}: ImageSite): string {
  return JSON.stringify([generation, labels, annotations, deletionTimestamp, finalizers, status.controller]);
}
