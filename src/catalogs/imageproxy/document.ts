import { Composer, isMap, isScalar, isSeq, Lexer, LineCounter, type Node, Parser } from 'yaml';
import { type Json, parseJson } from '../json.ts';
import { MAX_DEPTH } from '../limits.ts';
import { invalidList, plain } from '../text.ts';

/** YAML takes some eighty times its size in memory while it is read; this is some 12,000 images. */
const MAX_YAML_CHARACTERS = 4 * 1024 * 1024;

/**
 * A list's text as plain values: JSON where it begins with a brace (four times as fast, for long lists), else one YAML 1.2 document of
 * maps, lists and scalars. Anchors, aliases and tags are refused: a list has no need of them, and with them a kilobyte can unfold to
 * gigabytes.
 * @throws Failure InvalidList
 */
export function parseDocument(text: string): Json {
  return text.trimStart().startsWith('{') ? parseJson(text) : parseYaml(text);
}

function parseYaml(text: string): Json {
  if (text.length > MAX_YAML_CHARACTERS) {
    throw invalidList(
      `it has more than ${MAX_YAML_CHARACTERS} characters of YAML: publish a list of this size as JSON`,
    );
  }
  const lines = new LineCounter();
  const composer = new Composer({ version: '1.2', merge: false, prettyErrors: false, strict: true, uniqueKeys: false });
  const documents = Array.from(composer.compose(tokens(text, lines)));
  const [document, second] = documents;
  if (document === undefined || document.contents === null) throw invalidList('it is empty');
  if (second !== undefined) throw invalidList('it holds several YAML documents: give one');
  const [error] = document.errors;
  if (error !== undefined) {
    const { line } = lines.linePos(error.pos[0]);
    throw invalidList(`it is not YAML: line ${line}: ${plain(error.message.split('\n')[0] ?? '', 120)}`);
  }
  const repeated: { path: (string | number)[]; key: string }[] = [];
  const value = plainValue(document.contents, [], (path, key) => {
    if (repeated.length < 1000) repeated.push({ path, key });
  });
  return { value, repeated };
}

/** The composer recurses, so nesting is bounded before it. */
function* tokens(text: string, lines: LineCounter): ReturnType<Parser['parse']> {
  const parser = new Parser(lines.addNewLine);
  lines.addNewLine(0);
  for (const lexeme of new Lexer().lex(text)) {
    yield* parser.next(lexeme);
    if (parser.stack.length > MAX_DEPTH + 2) throw invalidList(`it is nested more than ${MAX_DEPTH} deep`);
  }
  yield* parser.end();
}

type Report = (path: (string | number)[], key: string) => void;

/** `toJS` of the library follows aliases, and its check of unique keys takes the square of their number. */
function plainValue(node: Node | null, path: (string | number)[], repeat: Report): unknown {
  if (node === null) return null;
  if (!isScalar(node) && !isMap<Node, Node>(node) && !isSeq<Node>(node)) {
    throw invalidList('it has an alias (*name): write out what is meant');
  }
  if (node.anchor !== undefined || node.tag !== undefined) {
    throw invalidList('it has an anchor (&name) or a tag (!name): write out what is meant');
  }
  if (isScalar(node)) return node.value;
  if (isSeq<Node>(node)) return node.items.map((item, index) => plainValue(item, [...path, index], repeat));
  const entries = new Map<string, unknown>();
  for (const { key, value } of node.items) {
    const name = isScalar(key) ? String(key.value) : undefined;
    if (name === undefined) throw invalidList('it has a key that is no text');
    if (entries.has(name)) repeat(path, name);
    entries.set(name, plainValue(value, [...path, name], repeat));
  }
  return Object.fromEntries(entries);
}
