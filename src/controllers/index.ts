import type { Urgency } from '../runtime/jobs.ts';
import type { SiteDeps } from '../reconcilers/imagesite/opened.ts';
import { keyOf } from '../stores/store.ts';
import type { Controller } from './controller.ts';
import { imagesiteController } from './imagesite.ts';
import { vmimageController } from './vmimage.ts';

const WORKERS = { VMImage: 8, ImageSite: 4 };

export interface Controllers {
  /** A job woke its asker: a VMImage's `namespace/name`, or `ImageSite/name`. */
  wakeAsker(asker: string, urgency: Urgency): void;
  wake(kind: 'VMImage' | 'ImageSite', key: string): void;
  /** Queues every object that there is. */
  wakeAll(): void;
  /** Nothing waits and nothing is being reconciled now. */
  readonly quiet: boolean;
  /** Works until the signal fires; resolves when the last reconcile has returned. */
  run(signal: AbortSignal): Promise<void>;
}

const SITE_PREFIX = 'ImageSite/';

/** All controllers of this process. */
export function createControllers(deps: SiteDeps): Controllers {
  const vmimages = vmimageController(deps);
  const imagesites = imagesiteController(deps);
  const controllers: Record<'VMImage' | 'ImageSite', Controller> = { VMImage: vmimages, ImageSite: imagesites };
  return {
    wakeAsker(asker, urgency) {
      if (asker.startsWith(SITE_PREFIX)) imagesites.wake(asker.slice(SITE_PREFIX.length), urgency);
      else vmimages.wake(asker, urgency);
    },
    wake: (kind, key) => controllers[kind].add(key),
    wakeAll() {
      for (const kind of ['ImageSite', 'VMImage'] as const) {
        for (const object of deps.store.list(kind)) controllers[kind].add(keyOf(object));
      }
    },
    get quiet() {
      return vmimages.quiet && imagesites.quiet;
    },
    async run(signal) {
      await Promise.all([vmimages.run(WORKERS.VMImage, signal), imagesites.run(WORKERS.ImageSite, signal)]);
    },
  };
}
