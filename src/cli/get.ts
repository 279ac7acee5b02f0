import { type Column, cellOf, columnsOf } from './columns.ts';
import { CommandError, EXIT } from './exit.ts';
import { type KindNames, KINDS, kindNamed, nameLine, titleOf } from './kinds.ts';
import type { CommandContext } from './output.ts';
import { isDataFormat, printObjects } from './print.ts';
import { openReader, stateDirectory, type StateOptions } from './state.ts';
import { cell, renderTable } from './table.ts';
import type { StateReader } from '../stores/directory/reader.ts';
import type { StoredResource } from '../stores/directory/records.ts';
import { keyOf } from '../stores/store.ts';

export interface GetOptions extends StateOptions {
  namespace: string;
  allNamespaces?: boolean;
  output?: 'wide' | 'json' | 'yaml' | 'name';
  watch?: boolean;
}

/** What `get`'s words ask for. */
interface Selection {
  kinds: readonly KindNames[];
  name?: string;
  namespace?: string;
}

/** `imageproxy get [kind] [name]`: what there is, as kubectl shows it. */
export async function get(
  kindText: string | undefined,
  nameText: string | undefined,
  options: GetOptions,
  context: CommandContext,
): Promise<number> {
  const selection = select(kindText, nameText, options);
  const state = stateDirectory(options, context.env);
  const reader = await openReader(state);
  const { output } = options;
  if (options.watch === true) return watch(reader, selection, options, context);

  const found = await find(reader, selection);
  if (selection.name !== undefined && found.every(({ objects }) => objects.length === 0)) {
    const [names] = selection.kinds as [KindNames];
    throw new CommandError(
      EXIT.notFound,
      `there is no ${titleOf(targetIn(names, selection))} in ${state}: see "imageproxy get ${names.plural}${names.namespaced ? ' -A' : ''}"`,
    );
  }
  const objects = found.flatMap((each) => each.objects);
  if (isDataFormat(output)) {
    await printObjects(context.out, output, selection.name === undefined ? objects : (objects[0] as StoredResource));
    return EXIT.ok;
  }
  if (output === 'name') {
    for (const { names, objects } of found) {
      for (const object of objects) context.out.line(nameLine({ names, key: object.metadata }));
    }
    return EXIT.ok;
  }
  if (objects.length === 0) {
    const elsewhere = await find(reader, { kinds: selection.kinds });
    const others = elsewhere.reduce((sum, each) => sum + each.objects.length, 0);
    const where = selection.namespace === undefined ? '' : ` in the namespace ${selection.namespace}`;
    context.err.line(
      `nothing found${where}${others > 0 ? `; there is something in other namespaces: imageproxy get ${kindText ?? ''} -A`.replace('  ', ' ') : ''}`,
    );
    return EXIT.ok;
  }
  const shown = found.filter((each) => each.objects.length > 0);
  shown.forEach(({ names, objects }, index) => {
    if (index > 0) context.out.line();
    const table = new ObjectTable(names, options, context, shown.length > 1);
    for (const line of table.render(objects)) context.out.line(line);
  });
  return EXIT.ok;
}

function select(kindText: string | undefined, nameText: string | undefined, options: GetOptions): Selection {
  const slash = kindText?.indexOf('/') ?? -1;
  const name = slash >= 0 ? kindText?.slice(slash + 1) : nameText;
  if (slash >= 0 && nameText !== undefined) {
    throw new CommandError(EXIT.usage, `"${kindText}" names an object already: leave "${nameText}" out`);
  }
  const kindName = slash >= 0 ? kindText?.slice(0, slash) : kindText;
  const kinds =
    kindName === undefined || kindName === 'all' || kindName === 'imageproxy' ? KINDS : [kindNamed(kindName)];
  if (name !== undefined && kinds.length > 1)
    throw new CommandError(EXIT.usage, `"${name}" needs a kind, e.g. vmimg/${name}`);
  if (name !== undefined && options.allNamespaces === true && kinds[0]?.namespaced === true) {
    throw new CommandError(EXIT.usage, 'a name is one of one namespace: give -n NAMESPACE instead of -A');
  }
  return {
    kinds,
    ...(name === undefined ? {} : { name }),
    ...(options.allNamespaces === true ? {} : { namespace: options.namespace }),
  };
}

function targetIn(names: KindNames, { name = '', namespace }: Selection) {
  return { kind: names.kind, key: names.namespaced && namespace !== undefined ? { namespace, name } : { name } };
}

async function find(
  reader: StateReader,
  selection: Selection,
): Promise<{ names: KindNames; objects: StoredResource[] }[]> {
  return Promise.all(
    selection.kinds.map(async (names) => {
      if (selection.name !== undefined) {
        const object = await reader.get(names.kind, targetIn(names, selection).key);
        return { names, objects: object === undefined ? [] : [object] };
      }
      return { names, objects: await reader.list(names.kind, names.namespaced ? selection.namespace : undefined) };
    }),
  );
}

/** The rows of one kind, all through a watch with the same widths. */
class ObjectTable {
  readonly #names: KindNames;
  readonly #columns: readonly Column[];
  readonly #options: GetOptions;
  readonly #context: CommandContext;
  readonly #prefixed: boolean;
  readonly #widths: number[] = [];
  #begun = false;

  constructor(names: KindNames, options: GetOptions, context: CommandContext, prefixed: boolean) {
    this.#names = names;
    this.#columns = columnsOf(names).filter(({ priority }) => priority === 0 || options.output === 'wide');
    this.#options = options;
    this.#context = context;
    this.#prefixed = prefixed;
  }

  render(objects: readonly StoredResource[]): string[] {
    const { now, out } = this.#context;
    const withNamespace = this.#options.allNamespaces === true && this.#names.namespaced;
    const titles = [...(withNamespace ? ['Namespace'] : []), 'Name', ...this.#columns.map(({ title }) => title)];
    const rows = objects.map((object) => [
      ...(withNamespace ? [cell(object.metadata.namespace)] : []),
      this.#prefixed ? nameLine({ names: this.#names, key: object.metadata }) : object.metadata.name,
      ...this.#columns.map((column) => cellOf(column, object, now())),
    ]);
    // On a terminal each object keeps to one line; `-o wide` and programs get every word.
    if (out.isTerminal && this.#options.output !== 'wide') shorten(titles, rows, out.columns);
    const untitled = this.#begun;
    this.#begun = true;
    return renderTable(titles, rows, { untitled, widths: this.#widths });
  }
}

const LEAST_MESSAGE = 20;

/** The message is what may be long; it gives way to the other columns. */
function shorten(titles: readonly string[], rows: string[][], columns: number): void {
  const at = titles.indexOf('Message');
  if (at < 0) return;
  const widths = titles.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]?.length ?? 0)));
  const others = widths.reduce((sum, width, i) => sum + 3 + (i === at ? 0 : width), -3);
  const room = Math.max(LEAST_MESSAGE, columns - others);
  for (const row of rows) {
    const message = row[at] ?? '';
    if (message.length > room) row[at] = `${message.slice(0, room - 1)}…`;
  }
}

async function watch(
  reader: StateReader,
  selection: Selection,
  options: GetOptions,
  context: CommandContext,
): Promise<number> {
  const { out, signal } = context;
  if (isDataFormat(options.output) && options.output === 'yaml') {
    throw new CommandError(EXIT.usage, 'a watch prints tables, names or JSON: leave "-o yaml" out');
  }
  const { promise: ended, resolve } = Promise.withResolvers<void>();
  signal.addEventListener('abort', () => resolve(), { once: true });
  for (const names of selection.kinds) {
    const table = new ObjectTable(names, options, context, selection.kinds.length > 1);
    const wanted = (object: StoredResource): boolean =>
      selection.name === undefined
        ? !names.namespaced || selection.namespace === undefined || object.metadata.namespace === selection.namespace
        : keyOf(object) === keyOf(targetIn(names, selection).key);
    await reader.watch(
      names.kind,
      ({ type, object }) => {
        if (!wanted(object)) return;
        if (options.output === 'json')
          out.line(JSON.stringify({ type: type === 'Deleted' ? 'DELETED' : 'MODIFIED', object }));
        else if (options.output === 'name') out.line(nameLine({ names, key: object.metadata }));
        else for (const line of table.render([object])) out.line(type === 'Deleted' ? `${line}   (deleted)` : line);
      },
      signal,
    );
  }
  await ended;
  throw signal.reason;
}
