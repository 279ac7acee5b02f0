import type { ApiKind } from '../api/crds.ts';
import type { ObjectKey } from '../stores/store.ts';
import { CommandError, EXIT } from './exit.ts';

export interface KindNames {
  kind: ApiKind;
  plural: string;
  singular: string;
  short: string;
  namespaced: boolean;
}

/** The kinds' names as their CRDs have them, written down here too so that completion and `get` need not parse those. */
export const KINDS: readonly KindNames[] = [
  { kind: 'VMImage', plural: 'vmimages', singular: 'vmimage', short: 'vmimg', namespaced: true },
  { kind: 'ImageSite', plural: 'imagesites', singular: 'imagesite', short: 'imgsite', namespaced: false },
  {
    kind: 'ImageSubscription',
    plural: 'imagesubscriptions',
    singular: 'imagesubscription',
    short: 'imgsub',
    namespaced: true,
  },
];

export const GROUP = 'imageproxy.dev';

/** @throws CommandError (usage) that lists the kinds */
export function kindNamed(text: string): KindNames {
  const wanted = text.toLowerCase().replace(/\.(?:v1beta1\.)?imageproxy\.dev$/, '');
  const found = KINDS.find(({ plural, singular, short }) => [plural, singular, short].includes(wanted));
  if (found !== undefined) return found;
  const known = KINDS.map(({ plural, short }) => `${plural} (${short})`).join(', ');
  throw new CommandError(EXIT.usage, `there is no kind "${text}": one of ${known} is needed`);
}

/** One object, as a command line names it. */
export interface Target {
  names: KindNames;
  kind: ApiKind;
  key: ObjectKey;
}

/**
 * `vmimg/NAME`, or `vmimg` and `NAME` as two words.
 * @throws CommandError (usage)
 */
export function targetOf(text: string, name: string | undefined, namespace: string): Target {
  const slash = text.indexOf('/');
  if (slash >= 0 && name !== undefined) {
    throw new CommandError(EXIT.usage, `"${text}" names an object already: leave "${name}" out`);
  }
  const object = slash >= 0 ? text.slice(slash + 1) : name;
  if (object === undefined || object === '' || object.includes('/')) {
    throw new CommandError(EXIT.usage, `"${text}" does not name one object: write KIND/NAME, e.g. vmimg/ubuntu-24.04`);
  }
  const names = kindNamed(slash >= 0 ? text.slice(0, slash) : text);
  return { names, kind: names.kind, key: names.namespaced ? { namespace, name: object } : { name: object } };
}

/** `vmimage.imageproxy.dev/ubuntu`: what `-o name` prints, and commands take. */
export function nameLine({ names, key }: Pick<Target, 'names' | 'key'>): string {
  return `${names.singular}.${GROUP}/${key.name}`;
}

/** `VMImage default/ubuntu`, for messages. */
export function titleOf({ kind, key }: Pick<Target, 'kind' | 'key'>): string {
  return `${kind} ${key.namespace === undefined ? '' : `${key.namespace}/`}${key.name}`;
}
