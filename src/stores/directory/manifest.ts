import type { FieldNote } from '../../api/schema.ts';
import type { ConfigMap, Draft, Kind, ObjectKey, Secret } from '../store.ts';
import { deepFreeze } from './freeze.ts';
import {
  API_VERSION,
  DEFAULT_NAMESPACE,
  GROUP,
  isClusterScoped,
  isStoredKind,
  kindOf,
  nameFault,
  namespaceFault,
  STORED_KINDS,
  type Validate,
  nameOf,
} from './kinds.ts';
import { isMapping } from './seams.ts';
import { decodeConfigMap, decodeSecret } from './secret.ts';
import { readDocuments, type YamlDocument } from './yaml.ts';

/** Something wrong with a manifest (or the folder of manifests), as `imageproxy validate` and `problems()` tell it. */
export interface Problem {
  file: string;
  /** From 1; 0 when the file as a whole is meant. */
  document: number;
  /** From 1; 0 when unknown. */
  line: number;
  /** `spec.source.http.urls[0]`; empty for the object itself. */
  field: string;
  message: string;
  severity: 'error' | 'warning';
  /** `VMImage default/ubuntu`, where the document says so much: a file may hold many, and the others are well. */
  object?: string;
  /** Deletions are held: it concerns all objects that come from manifests, wherever these were. */
  held?: true;
}

/** Where an object is written. */
export interface Mention {
  kind: Kind;
  key: ObjectKey;
  file: string;
  document: number;
  line: number;
  /** Its place in a v1 List. */
  item?: number;
}

/** What a manifest says of one object, validated and defaulted. Secrets and ConfigMaps are decoded. */
export interface ManifestObject extends Mention {
  content: Draft | Pick<Secret, 'kind' | 'data'> | Pick<ConfigMap, 'kind' | 'data'>;
  labels: Record<string, string>;
  annotations: Record<string, string>;
}

export interface ParsedManifest {
  objects: ManifestObject[];
  /** Objects that are there, but wrong: their last good state stays. */
  refused: Mention[];
  problems: Problem[];
  /** Something in the file could not be told to be any object: none of the file's former objects may be taken as gone. */
  uncertain: boolean;
}

/** `home` is the namespace of what names none. */
export async function parseManifest(
  file: string,
  text: string,
  validate: Validate,
  home = DEFAULT_NAMESPACE,
): Promise<ParsedManifest> {
  const result: ParsedManifest = { objects: [], refused: [], problems: [], uncertain: false };
  for await (const document of readDocuments(text)) {
    for (const error of document.errors) {
      result.problems.push({ file, document: document.number, field: '', severity: 'error', ...error });
      result.uncertain = true;
    }
    const { value } = document;
    if (value === undefined || Object.keys(value).length === 0) continue;
    if (value.apiVersion === 'v1' && value.kind === 'List') readList(file, document, value, validate, home, result);
    else readObject(new Place(file, document, undefined), value, validate, home, result);
  }
  return result;
}

/** The line of a field of an object, read again from its file's text; for what is found wrong long after parsing. */
export async function lineOfField(object: ManifestObject, text: string, field: string): Promise<number> {
  for await (const document of readDocuments(text)) {
    if (document.number === object.document) return new Place(object.file, document, object.item).lineOf(field);
  }
  return object.line;
}

/** Where in a file an object is written, to say it in problems. */
class Place {
  readonly file: string;
  readonly document: YamlDocument;
  readonly item: number | undefined;

  constructor(file: string, document: YamlDocument, item: number | undefined) {
    this.file = file;
    this.document = document;
    this.item = item;
  }

  lineOf(field: string): number {
    return this.document.lineOf(
      this.item === undefined ? field : `items[${this.item}]${field === '' ? '' : `.${field}`}`,
    );
  }

  problem(note: FieldNote, severity: Problem['severity']): Problem {
    const { file, document } = this;
    return {
      file,
      document: document.number,
      line: this.lineOf(note.path),
      field: note.path,
      message: note.message,
      severity,
    };
  }
}

function readList(
  file: string,
  document: YamlDocument,
  list: Record<string, unknown>,
  validate: Validate,
  home: string,
  result: ParsedManifest,
): void {
  const items: unknown[] = Array.isArray(list.items) ? list.items : [];
  items.forEach((item, index) => {
    const place = new Place(file, document, index);
    if (isMapping(item)) return readObject(place, item, validate, home, result);
    result.problems.push(
      place.problem(
        { path: '', message: 'is no object: an item of a List is a map with apiVersion and kind' },
        'error',
      ),
    );
    result.uncertain = true;
  });
}

function readObject(
  place: Place,
  input: Record<string, unknown>,
  validate: Validate,
  home: string,
  result: ParsedManifest,
): void {
  const identity = identify(input, home);
  if ('fault' in identity) {
    result.problems.push(place.problem(identity.fault, identity.foreign ? 'warning' : 'error'));
    // A kind of somebody else's is no misspelled one of ours.
    result.uncertain ||= !identity.foreign;
    return;
  }
  const { kind, key } = identity;
  const metadata = isMapping(input.metadata) ? input.metadata : {};
  const errors: FieldNote[] = [];
  const warnings: FieldNote[] = [];
  const labels = stringMap(metadata.labels, 'metadata.labels', errors);
  const annotations = stringMap(metadata.annotations, 'metadata.annotations', errors);
  if (isClusterScoped(kind) && metadata.namespace !== undefined) {
    warnings.push({ path: 'metadata.namespace', message: `${kind} has no namespace; this one is ignored` });
  }
  const content =
    errors.length > 0 ? undefined : readContent(kind, key, input, labels, annotations, validate, errors, warnings);
  const named = { object: nameOf(kind, key) };
  for (const note of errors) result.problems.push({ ...place.problem(note, 'error'), ...named });
  for (const note of warnings) result.problems.push({ ...place.problem(note, 'warning'), ...named });
  const { file, document, item } = place;
  const mention: Mention = { kind, key, file, document: document.number, line: place.lineOf('') };
  if (item !== undefined) mention.item = item;
  if (content === undefined || errors.length > 0) result.refused.push(mention);
  else result.objects.push(deepFreeze<ManifestObject>({ ...mention, content, labels, annotations }));
}

type Identity = { kind: Kind; key: ObjectKey } | { fault: FieldNote; foreign: boolean };

function identify(input: Record<string, unknown>, home: string): Identity {
  const { apiVersion, kind } = input;
  const metadata = isMapping(input.metadata) ? input.metadata : {};
  const fault = (path: string, message: string, foreign = false): Identity => ({ fault: { path, message }, foreign });
  if (typeof apiVersion !== 'string') return fault('apiVersion', `is missing; ours is ${API_VERSION}`);
  if (typeof kind !== 'string') return fault('kind', `is missing; ours are ${STORED_KINDS.join(', ')}`);
  const ours = kindOf(apiVersion, kind);
  if (ours === undefined) {
    if (isStoredKind(kind)) return fault('apiVersion', `${apiVersion} is not served for ${kind}: write ${API_VERSION}`);
    if (apiVersion.startsWith(`${GROUP}/`))
      return fault('kind', `${kind} is not known: write one of ${STORED_KINDS.join(', ')}`);
    return fault('kind', `${kind} of ${apiVersion} is none of ours and is ignored`, true);
  }
  const wrongName = nameFault(metadata.name);
  if (wrongName !== undefined) return fault('metadata.name', wrongName);
  const name = metadata.name as string;
  if (isClusterScoped(ours)) return { kind: ours, key: { name } };
  const namespace = metadata.namespace ?? home;
  const wrongNamespace = namespaceFault(namespace);
  if (wrongNamespace !== undefined) return fault('metadata.namespace', wrongNamespace);
  return { kind: ours, key: { namespace: namespace as string, name } };
}

function readContent(
  kind: Kind,
  key: ObjectKey,
  input: Record<string, unknown>,
  labels: Record<string, string>,
  annotations: Record<string, string>,
  validate: Validate,
  errors: FieldNote[],
  warnings: FieldNote[],
): ManifestObject['content'] | undefined {
  if (kind === 'Secret' || kind === 'ConfigMap') {
    const decoded = kind === 'Secret' ? decodeSecret(input) : decodeConfigMap(input);
    errors.push(...decoded.errors);
    return { kind, data: decoded.data } as ManifestObject['content'];
  }
  // The status is the controllers' own: what a manifest (`kubectl get -o yaml`) carries of it is not looked at, as with a subresource.
  const { status: _, ...rest } = input;
  const metadata = { ...key, labels, annotations };
  // Judged with the names of all its fields, so that one that is misspelled is warned of; what we do not keep has no value to be judged.
  const written = Object.keys(isMapping(input.metadata) ? input.metadata : {}).map((field) => [field, null]);
  const verdict = validate(kind, { ...rest, metadata: { ...Object.fromEntries(written), ...metadata } });
  errors.push(...verdict.errors);
  warnings.push(...verdict.warnings);
  if (verdict.object === undefined) return undefined;
  // Plain JSON, as it comes back from the state: anything else would look like a change of spec after a restart.
  const spec = JSON.parse(JSON.stringify(verdict.object.spec ?? {})) as unknown;
  return { apiVersion: API_VERSION, kind, metadata, spec };
}

function stringMap(value: unknown, path: string, errors: FieldNote[]): Record<string, string> {
  const map: Record<string, string> = {};
  if (value === undefined || value === null) return map;
  if (!isMapping(value)) {
    errors.push({ path, message: 'must be a map of strings' });
    return map;
  }
  for (const [key, text] of Object.entries(value)) {
    if (typeof text === 'string') map[key] = text;
    else errors.push({ path: `${path}[${JSON.stringify(key)}]`, message: 'must be a string: quote it' });
  }
  return map;
}
