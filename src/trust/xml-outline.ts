import { SaxesParser, type SaxesTagNS } from 'saxes';
import { Failure } from '../api/failure.ts';
import { printable } from '../api/printable.ts';

/** An element of the signature, as far as it has to be understood. */
export interface XmlElement {
  /** Local name; the namespace is that of XML signatures, else it is empty. */
  readonly name: string;
  readonly attributes: Readonly<Record<string, string>>;
  readonly children: XmlElement[];
  /** Character data directly within. */
  text: string;
}

export interface SignatureOutline {
  readonly signature: XmlElement;
  /** As it stands in the document, with the namespace that it may have from outside. */
  readonly source: string;
  /** 1: directly below the root. */
  readonly depth: number;
  /** `xml:base`, `xml:lang` and their like that are in force where it stands. */
  readonly xmlAttributes: Readonly<Record<string, string>>;
}

const SIGNATURE_NAMESPACE = 'http://www.w3.org/2000/09/xmldsig#';

/** A Marketplace entry has some 4 KiB; parsed by XML Signature's DOM a document takes fifty times its size. */
const MAX_BYTES = 2 ** 20;
const MAX_DEPTH = 64;
const MAX_ELEMENTS = 10_000;
const MAX_ATTRIBUTES = 64;

/** The document as text. @throws Failure TooLarge | SignatureInvalid */
export function readText(document: Uint8Array): string {
  if (document.length > MAX_BYTES) {
    throw new Failure('TooLarge', `the XML document has ${document.length} bytes; at most ${MAX_BYTES} are judged`);
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(document);
  } catch (error) {
    throw unreadable('it is not in UTF-8', error);
  }
}

/**
 * Reads the document once before any tree is built of it: well-formed, without a document type (entities that grow without end are
 * declared there), bounded in depth and number. Returns its signatures wherever they are.
 * @throws Failure SignatureInvalid
 */
export function outlineSignatures(text: string): SignatureOutline[] {
  const parser = new SaxesParser({ xmlns: true });
  const found: SignatureOutline[] = [];
  /** What is open within a signature. */
  const within: { element: XmlElement; tag: SaxesTagNS; start: number }[] = [];
  /** Of each open element. */
  const xmlAttributes: Readonly<Record<string, string>>[] = [{}];
  let depth = 0;
  let elements = 0;
  parser.on('error', (error) => {
    throw unreadable(`it is not well-formed: ${error.message}`);
  });
  parser.on('doctype', () => {
    throw unreadable('it has a document type, which signed documents must not have');
  });
  parser.on('xmldecl', ({ encoding }) => {
    if (encoding !== undefined && !/^utf-?8$/i.test(encoding)) throw unreadable(`it says that it is in ${encoding}`);
  });
  parser.on('processinginstruction', () => {
    throw unreadable('it has a processing instruction');
  });
  parser.on('opentag', (tag) => {
    elements += 1;
    if (depth >= MAX_DEPTH || elements > MAX_ELEMENTS || Object.keys(tag.attributes).length > MAX_ATTRIBUTES) {
      throw unreadable('it is nested too deeply, or has too many parts');
    }
    xmlAttributes.push({ ...xmlAttributes.at(-1), ...xmlAttributesOf(tag) });
    const parent = within.at(-1);
    if (parent !== undefined || isSignature(tag)) {
      const element = elementOf(tag);
      parent?.element.children.push(element);
      // No attribute can hold a "<".
      within.push({ element, tag, start: text.lastIndexOf('<', parser.position - 1) });
    }
    depth += 1;
  });
  const characters = (data: string) => {
    const open = within.at(-1);
    if (open !== undefined) open.element.text += data;
  };
  parser.on('text', characters);
  parser.on('cdata', characters);
  parser.on('closetag', () => {
    depth -= 1;
    const inherited = xmlAttributes.pop() ?? {};
    const closed = within.pop();
    if (closed === undefined || !isSignature(closed.tag)) return;
    const { element, tag, start } = closed;
    found.push({
      signature: element,
      source: withNamespace(text.slice(start, parser.position), tag),
      depth,
      xmlAttributes: inherited,
    });
  });
  parser.write(text).close();
  return found;
}

function isSignature({ uri, local }: SaxesTagNS): boolean {
  return uri === SIGNATURE_NAMESPACE && local === 'Signature';
}

function xmlAttributesOf({ attributes }: SaxesTagNS): Record<string, string> {
  const found = Object.values(attributes).filter(({ prefix }) => prefix === 'xml');
  return Object.fromEntries(found.map(({ name, value }) => [name, value]));
}

function withNamespace(source: string, { name, prefix, ns }: SaxesTagNS): string {
  if (Object.hasOwn(ns, prefix)) return source;
  const declaration = prefix === '' ? 'xmlns' : `xmlns:${prefix}`;
  return `<${name} ${declaration}="${SIGNATURE_NAMESPACE}"${source.slice(1 + name.length)}`;
}

function elementOf({ uri, local, attributes }: SaxesTagNS): XmlElement {
  return {
    name: uri === SIGNATURE_NAMESPACE ? local : '',
    attributes: Object.fromEntries(Object.values(attributes).map(({ name, value }) => [name, value])),
    children: [],
    text: '',
  };
}

function unreadable(fact: string, cause?: unknown): Failure {
  return new Failure('SignatureInvalid', `the XML document cannot be judged: ${printable(fact, 200)}`, { cause });
}
