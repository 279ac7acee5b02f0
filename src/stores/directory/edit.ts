import { chmod, chown, open, readFile, realpath, rename, stat, unlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { isMap, isSeq, type Node, parseDocument, Parser } from 'yaml';
import { Failure } from '../../api/failure.ts';
import type { ObjectKey } from '../store.ts';
import { DEFAULT_NAMESPACE, isClusterScoped, kindOf, nameOf } from './kinds.ts';
import { briefly, codeOf, isMapping } from './seams.ts';
import { readDocuments } from './yaml.ts';

export interface ManifestTarget {
  kind: string;
  key: ObjectKey;
}

/**
 * Takes one document out of a manifest file, by its number (from 1), or all that hold an object. Comments and the other documents
 * stay byte for byte; the file goes when nothing else was in it. Written beside the file and renamed over it.
 * @throws Failure NotFound when the document is not there; Rejected when it is one of several in a List, or the file cannot be changed.
 */
export async function removeFromManifest(file: string, which: number | ManifestTarget): Promise<void> {
  // Replacing a symbolic link would cut the file loose from what manages it.
  const path = await realpath(file).catch((error: unknown) => {
    throw new Failure('NotFound', `${file} cannot be read: ${briefly(error)}`, { cause: error });
  });
  const text = await readFile(path, 'utf8');
  const numbers = typeof which === 'number' ? [which] : await documentsOf(text, which);
  if (typeof which !== 'number' && numbers.length === 0)
    throw new Failure('NotFound', `${nameOf(which.kind, which.key)} is not in ${file} any more`);
  const segments = split(text);
  for (const number of numbers) {
    const segment = segments[number - 1];
    if (segment === undefined) throw new Failure('NotFound', `${file} has no document ${number}`);
    refuseSharedList(file, number, text.slice(segment.start, segment.end));
  }
  const others = segments.filter((_, index) => !numbers.includes(index + 1));
  try {
    if (others.some(({ empty }) => !empty)) {
      const head = text.slice(0, segments[0]?.start);
      await replaceInPlace(path, head + others.map(({ start, end }) => text.slice(start, end)).join(''));
    } else await unlink(path);
  } catch (error) {
    throw new Failure(
      'Rejected',
      `${file} cannot be changed (${briefly(error)}): remove the object where this file comes from`,
      { cause: error },
    );
  }
}

/** Whether a file holds the object, right or wrong, or cannot be read and may hold it. */
export async function mayBeInManifest(file: string, target: ManifestTarget): Promise<boolean> {
  try {
    return (await documentsOf(await readFile(file, 'utf8'), target)).length > 0;
  } catch (error) {
    return codeOf(error) !== 'ENOENT';
  }
}

async function documentsOf(text: string, { kind, key }: ManifestTarget): Promise<number[]> {
  const numbers: number[] = [];
  for await (const { number, value } of readDocuments(text)) {
    const items: unknown[] = value?.kind === 'List' && Array.isArray(value.items) ? value.items : [value];
    if (items.some((item) => isObject(item, kind, key))) numbers.push(number);
  }
  return numbers;
}

function isObject(item: unknown, kind: string, key: ObjectKey): boolean {
  if (!isMapping(item) || !isMapping(item.metadata) || item.kind !== kind || item.metadata.name !== key.name)
    return false;
  const ours = kindOf(String(item.apiVersion), kind);
  if (ours === undefined) return false;
  return isClusterScoped(ours) || (item.metadata.namespace ?? DEFAULT_NAMESPACE) === key.namespace;
}

interface Segment {
  start: number;
  end: number;
  empty: boolean;
}

/**
 * Where documents begin and end, as offsets. One begins at its directives or its `---`; the first, where it has neither, at its
 * content, so that a comment at the head of the file stays.
 */
function split(text: string): Segment[] {
  const segments: Segment[] = [];
  let directives: number | undefined;
  for (const token of new Parser().parse(text)) {
    if (token.type === 'directive') directives ??= token.offset;
    if (token.type !== 'document') continue;
    const marked = token.start.some(({ type }) => type === 'doc-start');
    const first = token.start.find(
      ({ type }) => type === 'doc-start' || (!marked && type !== 'comment' && type !== 'newline' && type !== 'space'),
    );
    const start = directives ?? first?.offset ?? token.value?.offset ?? token.offset;
    const before = segments.at(-1);
    if (before !== undefined) before.end = start;
    segments.push({ start, end: text.length, empty: token.value === undefined });
    directives = undefined;
  }
  return segments;
}

function refuseSharedList(file: string, number: number, text: string): void {
  const { contents } = parseDocument<Node>(text);
  const items = isMap<string>(contents) && contents.get('kind') === 'List' ? contents.get('items') : undefined;
  if (isSeq(items) && items.items.length > 1) {
    throw new Failure(
      'Rejected',
      `document ${number} of ${file} is a List of ${items.items.length} objects: take the one out of it by hand`,
    );
  }
}

async function replaceInPlace(path: string, text: string): Promise<void> {
  const { mode, uid, gid } = await stat(path);
  // A leading dot: the scanner does not look at it.
  const temporary = join(dirname(path), `.${basename(path)}.${process.pid}.tmp`);
  const file = await open(temporary, 'w', 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
    await file.close();
    if (process.getuid?.() === 0) await chown(temporary, uid, gid);
    await chmod(temporary, mode & 0o7777);
    await rename(temporary, path);
  } catch (error) {
    await file.close().catch(() => undefined);
    await unlink(temporary).catch(() => undefined);
    throw error;
  }
  const folder = await open(dirname(path), 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
