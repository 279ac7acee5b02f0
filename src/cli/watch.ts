import type { ApiObject, VMImage } from '../api/types.ts';
import { findCondition, READY } from '../api/conditions.ts';
import { keyOf } from '../stores/store.ts';
import { EXIT } from './exit.ts';
import { type KindNames, kindNamed, targetOf } from './kinds.ts';
import { type CommandContext, printable } from './output.ts';
import { imageLine, type LiveLine, LiveView } from './progress.ts';
import { openReader, stateDirectory, type StateOptions } from './state.ts';

export interface WatchOptions extends StateOptions {
  namespace: string;
  allNamespaces?: boolean;
}

/** `imageproxy watch [kind] [name]`: live progress, until it is interrupted. */
export async function watch(
  kindText: string | undefined,
  nameText: string | undefined,
  options: WatchOptions,
  context: CommandContext,
): Promise<number> {
  const { out, signal, env } = context;
  const single = kindText?.includes('/') === true || nameText !== undefined;
  const target = single ? targetOf(kindText ?? '', nameText, options.namespace) : undefined;
  const names = target?.names ?? kindNamed(kindText ?? 'vmimages');
  const reader = await openReader(stateDirectory(options, env));
  const objects = new Map<string, ApiObject>();
  const view = new LiveView(out);
  const { promise: ended, resolve } = Promise.withResolvers<void>();
  signal.addEventListener('abort', () => resolve(), { once: true });
  const show = (): void => {
    if (objects.size === 0) {
      const what = target === undefined ? names.plural : `${names.singular} ${target.key.name}`;
      view.show([{ key: '', text: `waiting for ${what} …`, milestone: '' }]);
    } else view.show(linesOf([...objects.values()], names, context));
  };
  await reader.watch(
    names.kind,
    ({ type, object }) => {
      const inScope =
        target === undefined
          ? options.allNamespaces === true || !names.namespaced || object.metadata.namespace === options.namespace
          : keyOf(object) === keyOf(target.key);
      if (!inScope) return;
      if (type === 'Deleted') {
        objects.delete(keyOf(object));
        view.note(`${object.metadata.name} is gone`);
      } else objects.set(keyOf(object), object as unknown as ApiObject);
      show();
    },
    signal,
  );
  if (objects.size === 0) show();
  await ended;
  view.end();
  return EXIT.ok;
}

function linesOf(objects: readonly ApiObject[], names: KindNames, { out }: CommandContext): LiveLine[] {
  const sorted = objects.toSorted((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1));
  const width = Math.max(...sorted.map(({ metadata }) => metadata.name.length));
  return sorted.map((object) => {
    if (names.kind === 'VMImage') return imageLine(out, object as VMImage, { nameWidth: width });
    const ready = findCondition(object.status?.conditions, READY);
    const mark = ready?.status === 'True' ? out.paint('green', 'Ready    ') : out.paint('yellow', 'Not ready');
    const text = `${object.metadata.name.padEnd(width)}  ${mark}  ${printable(ready?.message ?? '')}`.trimEnd();
    return { key: keyOf(object), text, milestone: text };
  });
}
