import { Failure } from '../api/failure.ts';
import { type Column, cellOf, columnsOf } from './columns.ts';
import { CommandError, EXIT } from './exit.ts';
import { type KindNames, KINDS, kindNamed, nameLine, titleOf } from './kinds.ts';
import { type CommandContext, printable } from './output.ts';
import { isDataFormat, printObjects } from './print.ts';
import { openPlace } from './open-place.ts';
import type { Place, PlaceOptions } from './place.ts';
import { cell, renderTable } from './table.ts';
import type { Listener } from './watching.ts';
import type { StoredResource } from '../stores/directory/records.ts';

export interface GetOptions extends PlaceOptions {
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
  const words = parse(kindText, nameText, options);
  await using place = await openPlace(options, context);
  const selection = { ...words, ...(options.allNamespaces === true ? {} : { namespace: place.namespace }) };
  const { output } = options;
  // Awaited here: the place is closed at the end of this function.
  if (options.watch === true) return await watch(place, selection, options, context);

  const { found, refused } = await find(place, selection);
  const verdict = (): number => {
    tellRefused(refused, context);
    return refused.length > 0 ? EXIT.failed : EXIT.ok;
  };
  if (selection.name !== undefined && found.every(({ objects }) => objects.length === 0)) {
    const [names] = selection.kinds as [KindNames];
    throw new CommandError(
      EXIT.notFound,
      `there is no ${titleOf(targetIn(names, selection))} in ${place.title}: see "${place.typed('get', undefined, `${names.plural}${names.namespaced ? ' -A' : ''}`)}"`,
    );
  }
  const objects = found.flatMap((each) => each.objects);
  if (isDataFormat(output)) {
    await printObjects(context.out, output, selection.name === undefined ? objects : (objects[0] as StoredResource));
    return verdict();
  }
  if (output === 'name') {
    for (const { names, objects } of found) {
      for (const object of objects) context.out.line(nameLine({ names, key: object.metadata }));
    }
    return verdict();
  }
  if (objects.length === 0) {
    const where = selection.namespace === undefined ? '' : ` in the namespace ${selection.namespace}`;
    const all = place.typed('get', undefined, `${kindText === undefined ? '' : `${kindText} `}-A`);
    const hint = (await isElsewhere(place, selection)) ? `; there is something in other namespaces: ${all}` : '';
    context.err.line(`nothing found${where}${hint}`);
    return verdict();
  }
  const shown = found.filter((each) => each.objects.length > 0);
  shown.forEach(({ names, objects }, index) => {
    if (index > 0) context.out.line();
    const table = new ObjectTable(names, options, context, shown.length > 1);
    for (const line of table.render(objects)) context.out.line(line);
  });
  return verdict();
}

function parse(
  kindText: string | undefined,
  nameText: string | undefined,
  options: GetOptions,
): Omit<Selection, 'namespace'> {
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
  return { kinds, ...(name === undefined ? {} : { name }) };
}

function targetIn(names: KindNames, { name = '', namespace }: Selection) {
  return { kind: names.kind, key: names.namespaced && namespace !== undefined ? { namespace, name } : { name } };
}

interface Found {
  found: { names: KindNames; objects: StoredResource[] }[];
  /** Why kinds are missing. */
  refused: Failure[];
}

async function find(place: Place, selection: Selection): Promise<Found> {
  const looks = await Promise.allSettled(
    selection.kinds.map(async (names) => {
      if (selection.name !== undefined) {
        const object = await place.get(names.kind, targetIn(names, selection).key);
        return { names, objects: object === undefined ? [] : [object] };
      }
      return { names, objects: await place.list(names.kind, names.namespaced ? selection.namespace : undefined) };
    }),
  );
  const found = looks.flatMap((look) => (look.status === 'fulfilled' ? [look.value] : []));
  const errors = looks.flatMap((look) => (look.status === 'rejected' ? [look.reason as unknown] : []));
  return { found, refused: refusalsOf(errors, selection) };
}

/**
 * Of several kinds those are shown that may be seen: a tenant may not see the sites of a cluster.
 * @throws what else went wrong; the refusal when all kinds are refused
 */
function refusalsOf(errors: readonly unknown[], { kinds }: Selection): Failure[] {
  for (const error of errors) if (!isForbidden(error) || errors.length === kinds.length) throw error;
  return errors.filter((error) => isForbidden(error));
}

function isForbidden(error: unknown): error is Failure {
  return error instanceof Failure && error.reason === 'Forbidden';
}

function tellRefused(refused: readonly Failure[], { err }: CommandContext): void {
  for (const { message } of refused) err.line(`${err.paint('red', 'imageproxy:')} ${printable(message)}`);
}

async function isElsewhere(place: Place, { kinds, namespace }: Selection): Promise<boolean> {
  if (namespace === undefined) return false;
  const looks = await Promise.allSettled(
    kinds.filter(({ namespaced }) => namespaced).map(({ kind }) => place.hasAny(kind)),
  );
  // Who may not look there needs no hint.
  return looks.some((look) => look.status === 'fulfilled' && look.value);
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
  place: Place,
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
  const errors: unknown[] = [];
  for (const names of selection.kinds) {
    const table = new ObjectTable(names, options, context, selection.kinds.length > 1);
    const scope = { namespace: names.namespaced ? selection.namespace : undefined, name: selection.name };
    const print: Listener = ({ type, object }) => {
      if (options.output === 'json')
        out.line(JSON.stringify({ type: type === 'Deleted' ? 'DELETED' : 'MODIFIED', object }));
      else if (options.output === 'name') out.line(nameLine({ names, key: object.metadata }));
      else for (const line of table.render([object])) out.line(type === 'Deleted' ? `${line}   (deleted)` : line);
    };
    try {
      await place.watch(names.kind, scope, print, signal);
    } catch (error) {
      errors.push(error);
    }
  }
  tellRefused(refusalsOf(errors, selection), context);
  await Promise.race([ended, place.lost]);
  throw signal.reason;
}
