import { setImmediate } from 'node:timers/promises';
import {
  Composer,
  type Document,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  Lexer,
  LineCounter,
  type Node,
  Parser,
  visit,
} from 'yaml';
import { isMapping } from './seams.ts';

/** Nesting of a manifest's maps and lists. The composer recurses: without a bound, 10 kB of `[` overflow its stack. */
const MAX_DEPTH = 64;
/** Expansions of aliases per document: the bound on "billion laughs" and merge-key bombs. */
const MAX_ALIASES = 100;
const PAUSE_EVERY_BYTES = 256 * 1024;

export interface YamlDocument {
  /** 1 for the first; empty ones count. */
  number: number;
  /** Absent when it could not be read. */
  value?: Record<string, unknown>;
  /** Line and fact of each fault; the value is absent then. */
  errors: { line: number; message: string }[];
  /** The line of a field (`spec.sites[0].name`), or of what holds it where the field itself is not there. */
  lineOf(path: string): number;
}

class TooDeep extends Error {}

/** The documents of a YAML (or JSON) text, one by one, so that a bad one does not take the others with it. Empty ones are left out. */
export async function* readDocuments(text: string): AsyncGenerator<YamlDocument> {
  const lines = new LineCounter();
  const lineAt = (offset: number): number => Math.max(1, lines.linePos(offset).line);
  const composer = new Composer({ version: '1.2', merge: true, prettyErrors: false, strict: true });
  let number = 0;
  let position = 0;
  let pauseAt = PAUSE_EVERY_BYTES;
  try {
    for (const document of composer.compose(tokens(text, lines))) {
      number++;
      position = document.range[2];
      yield read(document, number, lineAt);
      if (position >= pauseAt) {
        pauseAt = position + PAUSE_EVERY_BYTES;
        await setImmediate();
      }
    }
  } catch (error) {
    if (!(error instanceof TooDeep) && !(error instanceof RangeError)) throw error;
    const line = lineAt(position);
    const message = `is nested more than ${MAX_DEPTH} levels deep; what follows was not read`;
    yield { number: number + 1, errors: [{ line, message }], lineOf: () => line };
  }
}

function* tokens(text: string, lines: LineCounter): ReturnType<Parser['parse']> {
  const parser = new Parser(lines.addNewLine);
  lines.addNewLine(0);
  for (const lexeme of new Lexer().lex(text)) {
    yield* parser.next(lexeme);
    // Each level is a collection and sometimes its document or scalar.
    if (parser.stack.length > MAX_DEPTH + 2) throw new TooDeep();
  }
  yield* parser.end();
}

function read(document: Document.Parsed, number: number, lineAt: (offset: number) => number): YamlDocument {
  const lineOf = (path: string): number => lineAt(offsetOf(document, path));
  const errors = document.errors.map((error) => ({ line: lineAt(error.pos[0]), message: firstLine(error.message) }));
  if (errors.length > 0) return { number, errors, lineOf };
  try {
    const value: unknown = document.toJS({ maxAliasCount: MAX_ALIASES });
    if (value === null || value === undefined) return { number, value: {}, errors: [], lineOf };
    if (isMapping(value)) return { number, value, errors: [], lineOf };
    return {
      number,
      errors: [{ line: lineOf(''), message: 'is no object: a manifest is a map with apiVersion and kind' }],
      lineOf,
    };
  } catch (error) {
    // Aliases that point nowhere, or too often.
    if (!(error instanceof ReferenceError) && !(error instanceof RangeError)) throw error;
    return {
      number,
      errors: [{ line: firstAlias(document, lineAt) ?? lineOf(''), message: firstLine(error.message) }],
      lineOf,
    };
  }
}

function firstLine(message: string): string {
  return message.split('\n', 1)[0] ?? message;
}

function firstAlias(document: Document.Parsed, lineAt: (offset: number) => number): number | undefined {
  let line: number | undefined;
  visit(document, {
    Alias(_, node) {
      line = lineAt(node.range?.[0] ?? 0);
      return visit.BREAK;
    },
  });
  return line;
}

const SEGMENT = /\[(\d+)\]|\["((?:[^"\\]|\\.)*)"\]|\['([^']*)'\]|([^.[\]]+)/g;

function offsetOf(document: Document.Parsed, path: string): number {
  let node: Node | null = document.contents;
  let offset = node?.range?.[0] ?? document.range[0];
  for (const [, index, doubly, singly, plain] of path.matchAll(SEGMENT)) {
    if (isAlias(node)) node = node.resolve(document) ?? null;
    if (isMap<Node, Node>(node)) {
      const key = index ?? doubly ?? singly ?? plain;
      const pair = node.items.find((item) => isScalar(item.key) && String(item.key.value) === key);
      if (pair === undefined) break;
      offset = pair.key.range?.[0] ?? offset;
      node = pair.value;
    } else if (isSeq<Node>(node) && index !== undefined) {
      node = node.items[Number(index)] ?? null;
      if (node === null) break;
      offset = node.range?.[0] ?? offset;
    } else break;
  }
  return offset;
}
