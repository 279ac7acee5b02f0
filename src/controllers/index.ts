import type { Urgency } from '../runtime/jobs.ts';
import type { SiteDeps } from '../reconcilers/imagesite/opened.ts';
import { keyOf } from '../stores/store.ts';
import type { Controller } from './controller.ts';
import { imagesiteController } from './imagesite.ts';
import { imagesubscriptionController } from './imagesubscription.ts';
import { vmimageController } from './vmimage.ts';

const WORKERS = { VMImage: 8, ImageSite: 4, ImageSubscription: 2 };

type ControlledKind = keyof typeof WORKERS;

export interface Controllers {
  /** A job woke its asker: a VMImage's `namespace/name`, `ImageSite/name` or `ImageSubscription/namespace/name`. */
  wakeAsker(asker: string, urgency: Urgency): void;
  wake(kind: ControlledKind, key: string): void;
  /** Queues every object that there is. */
  wakeAll(): void;
  /** Nothing waits and nothing is being reconciled now. */
  readonly quiet: boolean;
  /** Works until the signal fires; resolves when the last reconcile has returned. */
  run(signal: AbortSignal): Promise<void>;
}

/** All controllers of this process. */
export function createControllers(deps: SiteDeps): Controllers {
  const controllers: Record<ControlledKind, Controller> = {
    ImageSite: imagesiteController(deps),
    VMImage: vmimageController(deps),
    ImageSubscription: imagesubscriptionController(deps),
  };
  const kinds = Object.keys(controllers) as ControlledKind[];
  return {
    wakeAsker(asker, urgency) {
      const kind = kinds.find((each) => asker.startsWith(`${each}/`));
      if (kind === undefined) controllers.VMImage.wake(asker, urgency);
      else controllers[kind].wake(asker.slice(kind.length + 1), urgency);
    },
    wake: (kind, key) => controllers[kind].add(key),
    wakeAll() {
      for (const kind of kinds) for (const object of deps.store.list(kind)) controllers[kind].add(keyOf(object));
    },
    get quiet() {
      return kinds.every((kind) => controllers[kind].quiet);
    },
    async run(signal) {
      await Promise.all(kinds.map((kind) => controllers[kind].run(WORKERS[kind], signal)));
    },
  };
}
