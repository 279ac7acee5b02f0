import type { ImageSite, VMImage } from '../api/types.ts';
import type { Deps } from '../reconcilers/deps.ts';
import { reconcileVMImage } from '../reconcilers/vmimage/index.ts';
import { keyOf, type ObjectKey } from '../stores/store.ts';
import { Controller } from './controller.ts';

/** Secrets and ConfigMaps that an image's sources refer to, by name. */
export function referencesOf(image: VMImage): { secrets: Set<string>; configMaps: Set<string> } {
  const references = { secrets: new Set<string>(), configMaps: new Set<string>() };
  const { source, kernel, ramdisk } = image.spec;
  for (const each of [source, kernel?.source, ramdisk?.source]) {
    for (const branch of Object.values(each ?? {}) as {
      secretRef?: { name: string };
      caRef?: { kind: string; name: string };
    }[]) {
      if (branch.secretRef !== undefined) references.secrets.add(branch.secretRef.name);
      if (branch.caRef !== undefined)
        (branch.caRef.kind === 'Secret' ? references.secrets : references.configMaps).add(branch.caRef.name);
    }
  }
  return references;
}

/**
 * What wakes a VMImage: itself, a namesake that comes or goes, a Secret or ConfigMap that it refers to, a site that it is or
 * wants to be on, and its own jobs.
 */
export function vmimageController(deps: Deps): Controller {
  const controller = new Controller('VMImage', deps, async (key: ObjectKey) => {
    // Without the right to write nothing is decided; who gets it (back) looks at everything anew.
    const next = deps.authority.goodForMs(0) ? await reconcileVMImage(key, deps) : undefined;
    if (deps.store.get('VMImage', key) === undefined) {
      const gone = keyOf(key);
      controller.forget(gone);
      deps.jobs.leaveAll(gone);
      deps.duties.remembered.delete(gone);
      deps.looks.forget(gone);
      deps.pace.forget(gone);
      deps.downloads.leave(gone);
    }
    return next;
  });
  const { store } = deps;
  store.subscribe<VMImage>('VMImage', ({ object, type, previous }) => {
    controller.add(keyOf(object));
    // Whoever waits for this guid looks again when its holder goes, is on its way, or lets go.
    const left =
      type === 'Deleted' ||
      (object.metadata.deletionTimestamp !== undefined && previous?.metadata.deletionTimestamp === undefined);
    if (left) for (const other of deps.siblings.of(object)) controller.add(keyOf(other));
  });
  for (const kind of ['Secret', 'ConfigMap'] as const) {
    store.subscribe(kind, ({ object }) => {
      for (const image of store.list<VMImage>('VMImage', object.metadata.namespace)) {
        const { secrets, configMaps } = referencesOf(image);
        if ((kind === 'Secret' ? secrets : configMaps).has(object.metadata.name)) controller.add(keyOf(image));
      }
    });
  }
  store.subscribe<ImageSite>('ImageSite', ({ object, type, previous }) => {
    // Its probes change its status every few minutes; what concerns images is whether it is there, and what it allows.
    if (
      type === 'Applied' &&
      previous?.metadata.generation === object.metadata.generation &&
      sameWords(previous, object)
    )
      return;
    const { name } = object.metadata;
    for (const image of store.list<VMImage>('VMImage')) {
      const concerned =
        image.spec.siteSelector !== undefined ||
        image.spec.sites?.some((site) => site.name === name) === true ||
        image.status.sites?.some((row) => row.name === name) === true;
      if (concerned) controller.add(keyOf(image));
    }
  });
  deps.cache.onSpace(() => {
    for (const image of store.list<VMImage>('VMImage')) {
      const waits = (reason: string | undefined) => reason === 'CacheFull' || reason === 'DiskFull';
      if (waits(image.status.failure?.reason) || image.status.sites?.some((row) => waits(row.reason)) === true)
        controller.add(keyOf(image));
    }
  });
  return controller;
}

/** Labels (selectors look at them), annotations (people's confirmations), and who serves it. */
function sameWords(a: ImageSite, b: ImageSite): boolean {
  return (
    JSON.stringify([a.metadata.labels, a.metadata.annotations, a.metadata.deletionTimestamp, a.status.controller]) ===
    JSON.stringify([b.metadata.labels, b.metadata.annotations, b.metadata.deletionTimestamp, b.status.controller])
  );
}
