import { SaxesParser, type SaxesTagNS } from 'saxes';
import { Failure } from '../../api/failure.ts';
import { MAX_DEPTH, MAX_ENTRIES, MAX_TEXT } from '../limits.ts';
import { invalidList, plain } from '../text.ts';

const RDF = 'http://www.w3.org/1999/02/22-rdf-syntax-ns#';

/** The prefixes under which fields are known, whatever a document calls its namespaces. */
const PREFIXES: Readonly<Record<string, string>> = {
  [RDF]: 'rdf',
  'http://purl.org/dc/terms/': 'dcterms',
  'http://mp.stratuslab.eu/slreq#': 'slreq',
  'http://mp.stratuslab.eu/slterms#': 'slterms',
  'http://www.w3.org/2000/09/xmldsig#': 'ds',
};

/** Of one entry: the largest real ones have some 100 elements. */
const MAX_ELEMENTS = 2000;

export interface Element {
  /** `dcterms:title`; of a namespace that we do not know `{uri}title`. */
  readonly name: string;
  readonly attributes: ReadonlyMap<string, string>;
  readonly children: readonly Element[];
  /** Trimmed. */
  readonly text: string;
}

/**
 * The entries of an endpoint's answer: one `rdf:RDF`, or a `metadata` element around many. Each comes as it stands in the document,
 * for its signature is over itself alone.
 * @throws Failure InvalidList
 */
export function splitEntries(document: string): string[] {
  const entries: string[] = [];
  let depth = 0;
  let start: number | undefined;
  const parser = openParser(invalidList);
  parser.on('opentag', (tag) => {
    depth++;
    if (depth > MAX_DEPTH) throw invalidList(`its elements are nested more than ${MAX_DEPTH} deep`);
    if (depth === 1 && !isRdf(tag) && tag.local !== 'metadata') {
      throw invalidList(`it begins with <${plain(tag.name, 60)}>: a Marketplace answers with <metadata> or <rdf:RDF>`);
    }
    // A `<` cannot be in an attribute's value, so the last one before here begins this tag.
    if (isRdf(tag) && start === undefined) start = document.lastIndexOf('<', parser.position - 1);
    else if (depth === 2 && start === undefined)
      throw invalidList(`it holds <${plain(tag.name, 60)}> where an rdf:RDF was expected`);
  });
  parser.on('closetag', (tag) => {
    if (start !== undefined && isRdf(tag) && depth <= 2) {
      if (entries.length === MAX_ENTRIES) throw invalidList(`it has more than ${MAX_ENTRIES} entries`);
      entries.push(depth === 1 ? document : document.slice(start, parser.position));
      start = undefined;
    }
    depth--;
  });
  parser.write(document).close();
  return entries;
}

/**
 * One entry as a tree, without its signature.
 * @throws Failure InvalidEntry
 */
export function readTree(document: string, invalid: (fact: string) => Failure): Element {
  interface Draft extends Element {
    readonly children: Element[];
    text: string;
  }
  const path: Draft[] = [];
  let root: Element | undefined;
  let elements = 0;
  const parser = openParser(invalid);
  parser.on('opentag', (tag) => {
    elements++;
    if (elements > MAX_ELEMENTS) throw invalid(`it has more than ${MAX_ELEMENTS} elements`);
    if (path.length === MAX_DEPTH) throw invalid(`its elements are nested more than ${MAX_DEPTH} deep`);
    path.push({ name: nameOf(tag.uri, tag.local), attributes: attributesOf(tag), children: [], text: '' });
  });
  const take = (chunk: string) => {
    const element = path.at(-1);
    if (element !== undefined && element.text.length < MAX_TEXT) element.text += chunk.slice(0, MAX_TEXT);
  };
  parser.on('text', take);
  parser.on('cdata', take);
  parser.on('closetag', () => {
    const element = path.pop();
    if (element === undefined) return;
    element.text = element.text.trim();
    const parent = path.at(-1);
    if (parent === undefined) root = element;
    else if (element.name !== 'ds:Signature') parent.children.push(element);
  });
  parser.write(document).close();
  if (root === undefined) throw invalid('it is empty');
  return root;
}

function openParser(invalid: (fact: string) => Failure): SaxesParser<{ xmlns: true }> {
  const parser = new SaxesParser({ xmlns: true });
  // No entry has a DTD, and with none there is no entity to expand.
  parser.on('doctype', () => {
    throw invalid('it has a DOCTYPE, which must not be');
  });
  parser.on('error', (error) => {
    throw invalid(`it is not well-formed XML: ${plain(error.message.split('\n')[0] ?? '', 120)}`);
  });
  return parser;
}

function isRdf(tag: SaxesTagNS): boolean {
  return tag.uri === RDF && tag.local === 'RDF';
}

function nameOf(uri: string, local: string): string {
  const prefix = Object.hasOwn(PREFIXES, uri) ? PREFIXES[uri] : undefined;
  return prefix === undefined ? (uri === '' ? local : `{${uri}}${local}`) : `${prefix}:${local}`;
}

function attributesOf(tag: SaxesTagNS): ReadonlyMap<string, string> {
  return new Map(
    Object.values(tag.attributes).map(({ uri, prefix, local, value }) => [
      prefix === 'xml' ? `xml:${local}` : nameOf(uri, local),
      value,
    ]),
  );
}
