import type { ApiObject, VMImage } from '../api/types.ts';
import { findCondition, READY } from '../api/conditions.ts';
import { keyOf } from '../stores/store.ts';
import { EXIT } from './exit.ts';
import { type KindNames, kindNamed, targetOf } from './kinds.ts';
import { type CommandContext, printable } from './output.ts';
import { imageLine, type LiveLine, LiveView } from './progress.ts';
import { openPlace } from './open-place.ts';
import type { PlaceOptions } from './place.ts';

export interface WatchOptions extends PlaceOptions {
  allNamespaces?: boolean;
}

/** `imageproxy watch [kind] [name]`: live progress, until it is interrupted. */
export async function watch(
  kindText: string | undefined,
  nameText: string | undefined,
  options: WatchOptions,
  context: CommandContext,
): Promise<number> {
  const { out, signal } = context;
  const single = kindText?.includes('/') === true || nameText !== undefined;
  await using place = await openPlace(options, context);
  const target = single ? targetOf(kindText ?? '', nameText, place.namespace) : undefined;
  const names = target?.names ?? kindNamed(kindText ?? 'vmimages');
  const everywhere = options.allNamespaces === true || !names.namespaced;
  const scope = target?.key ?? (everywhere ? {} : { namespace: place.namespace });
  const objects = new Map<string, ApiObject>();
  const view = new LiveView(out);
  place.onTrouble = (message) => view.note(printable(message));
  const { promise: ended, resolve } = Promise.withResolvers<void>();
  signal.addEventListener('abort', () => resolve(), { once: true });
  const show = (): void => {
    if (objects.size === 0) {
      const what = target === undefined ? names.plural : `${names.singular} ${target.key.name}`;
      view.show([{ key: '', text: `waiting for ${what} …`, milestone: '' }]);
    } else view.show(linesOf([...objects.values()], names, options.allNamespaces === true, context));
  };
  // A thousand objects are told one by one, and the view is of all of them.
  let gather: NodeJS.Timeout | undefined;
  const showSoon = (): void => {
    gather ??= setTimeout(() => {
      gather = undefined;
      show();
    }, GATHER_MS);
  };
  await place.watch(
    names.kind,
    scope,
    ({ type, object }) => {
      if (type === 'Deleted') {
        objects.delete(keyOf(object));
        view.note(`${object.metadata.name} is gone`);
      } else objects.set(keyOf(object), object as unknown as ApiObject);
      showSoon();
    },
    signal,
  );
  if (objects.size === 0) show();
  try {
    await Promise.race([ended, place.lost]);
  } finally {
    clearTimeout(gather);
    if (gather !== undefined) show();
    view.end();
  }
  return EXIT.ok;
}

const GATHER_MS = 50;

function linesOf(
  objects: readonly ApiObject[],
  names: KindNames,
  everywhere: boolean,
  { out }: CommandContext,
): LiveLine[] {
  const sorted = objects.toSorted((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1));
  const nameOf = (object: ApiObject): string => (everywhere ? keyOf(object) : object.metadata.name);
  const width = sorted.reduce((widest, object) => Math.max(widest, nameOf(object).length), 0);
  return sorted.map((object) => {
    const name = nameOf(object);
    if (names.kind === 'VMImage') return imageLine(out, object as VMImage, { name, nameWidth: width });
    const ready = findCondition(object.status?.conditions, READY);
    const mark = ready?.status === 'True' ? out.paint('green', 'Ready    ') : out.paint('yellow', 'Not ready');
    const text = `${name.padEnd(width)}  ${mark}  ${printable(ready?.message ?? '')}`.trimEnd();
    return { key: keyOf(object), text, milestone: text, settled: ready?.status === 'True' };
  });
}
