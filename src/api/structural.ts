import { isDeepStrictEqual } from 'node:util';
import { fieldPath, isFields, member, nearest } from './admission.ts';
import type { Structural } from './crds.ts';
import type { FieldNote } from './verdict.ts';

/** A violation of a structural schema. While a blocking one stands, the API server does not run the CEL rules. */
export interface Violation extends FieldNote {
  blocking: boolean;
}

type Report = (path: string, message: string, blocking?: boolean) => void;

/**
 * Types, enums, patterns, bounds, required fields, formats and unique list keys of an admitted value.
 *
 * What an update leaves as it was is not judged again (the API server's "ratcheting"): a schema that grew stricter must not
 * make an old object impossible to change.
 */
export function violations(node: Structural, value: unknown, old: unknown, path: string): Violation[] {
  const found: Violation[] = [];
  check(node, value, old, path, (path, message, blocking = false) => found.push({ path, message, blocking }));
  return found;
}

function check(node: Structural, value: unknown, old: unknown, path: string, report: Report): void {
  if (old !== undefined && isDeepStrictEqual(value, old)) return;
  if (value === null && node.nullable === true) return;
  const expected = mistype(node, value);
  if (expected !== undefined) {
    report(path, expected, true);
    return;
  }
  if (node.enum !== undefined && !node.enum.some((each) => isDeepStrictEqual(each, value))) {
    const near = typeof value === 'string' ? nearest(value, node.enum.map(String)) : undefined;
    const hint = near === undefined ? '' : `; did you mean ${near}?`;
    report(path, `must be one of ${node.enum.join(', ')}, not ${show(value)}${hint}`, true);
  }
  if (typeof value === 'string') checkString(node, value, path, report);
  else if (typeof value === 'number') checkNumber(node, value, path, report);
  else if (Array.isArray(value)) checkList(node, value, old, path, report);
  else if (isFields(value)) checkFields(node, value, old, path, report);
}

const ARTICLES = {
  object: 'an object (field: value)',
  array: 'a list',
  string: 'a string',
  integer: 'an integer',
  number: 'a number',
  boolean: 'true or false',
} as const;

function mistype(node: Structural, value: unknown): string | undefined {
  if (node['x-kubernetes-int-or-string'] === true) {
    return typeof value === 'string' || Number.isInteger(value)
      ? undefined
      : `must be an integer or a string, not ${show(value)}`;
  }
  if (node.type === undefined || typeOf(value) === node.type) return undefined;
  if (node.type === 'number' && typeOf(value) === 'integer') return undefined;
  const scalar = typeof value === 'number' || typeof value === 'boolean';
  const cure = node.type === 'string' && scalar ? ': put it in quotes' : '';
  return `must be ${ARTICLES[node.type]}, not ${show(value)}${cure}`;
}

function typeOf(value: unknown): string {
  if (Array.isArray(value)) return 'array';
  if (value === null) return 'null';
  if (Number.isInteger(value)) return 'integer';
  return typeof value;
}

/** A value in a message: short, and told apart from the words around it. */
export function show(value: unknown): string {
  if (Array.isArray(value)) return 'a list';
  if (isFields(value)) return 'an object';
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 80 ? `${text.slice(0, 79)}…` : text;
}

function checkString(node: Structural, value: string, path: string, report: Report): void {
  // Go counts code points, so do we where it matters.
  const length = value.length > (node.maxLength ?? Infinity) ? Array.from(value).length : value.length;
  if (node.maxLength !== undefined && length > node.maxLength) {
    report(path, `must be at most ${node.maxLength} characters long, it has ${length}`, true);
  }
  if (node.minLength !== undefined && length < node.minLength) {
    report(path, node.minLength === 1 ? 'must not be empty' : `must be at least ${node.minLength} characters long`);
  } else if (node.pattern !== undefined && !expression(node.pattern).test(value)) {
    report(path, `${show(value)} does not match ${node.pattern}`);
  }
  if (node.format === 'date-time' && !isDateTime(value)) {
    report(path, `must be a date and time as in 2027-04-30T00:00:00Z (RFC 3339), not ${show(value)}`, true);
  }
}

const expressions = new Map<string, RegExp>();

/** Patterns of the CRDs keep to what RE2 and JavaScript read alike. */
function expression(pattern: string): RegExp {
  let compiled = expressions.get(pattern);
  if (compiled === undefined) {
    compiled = new RegExp(pattern);
    expressions.set(pattern, compiled);
  }
  return compiled;
}

const DATE_TIME = /^(\d{4}-\d{2}-\d{2})[Tt]([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?([Zz]|[+-]\d{2}:\d{2})$/;

/** RFC 3339, §5.6, with a date that exists (Date.parse alone takes February the 30th). */
function isDateTime(text: string): boolean {
  const date = DATE_TIME.exec(text)?.[1];
  if (date === undefined) return false;
  const midnight = Date.parse(`${date}T00:00:00Z`);
  return !Number.isNaN(midnight) && new Date(midnight).toISOString().startsWith(date);
}

function checkNumber(node: Structural, value: number, path: string, report: Report): void {
  if (node.minimum !== undefined && value < node.minimum)
    report(path, `must be at least ${node.minimum}, not ${value}`);
  if (node.maximum !== undefined && value > node.maximum) report(path, `must be at most ${node.maximum}, not ${value}`);
}

function checkList(node: Structural, value: unknown[], old: unknown, path: string, report: Report): void {
  if (node.maxItems !== undefined && value.length > node.maxItems) {
    report(path, `must have at most ${node.maxItems} entries, it has ${value.length}`, true);
    // One error tells it; a list without bound is not walked.
    return;
  }
  if (node.minItems !== undefined && value.length < node.minItems) {
    report(path, `must have at least ${node.minItems} ${node.minItems === 1 ? 'entry' : 'entries'}`);
  }
  const { items } = node;
  if (items === undefined) return;
  const before = correlate(node, old);
  value.forEach((each, i) => check(items, each, before(each), `${path}[${i}]`, report));
  checkUnique(node, value, path, report);
}

function checkUnique(node: Structural, value: unknown[], path: string, report: Report): void {
  const listType = node['x-kubernetes-list-type'];
  if (listType !== 'set' && listType !== 'map') return;
  const seen = new Set<string>();
  value.forEach((each, i) => {
    const key = listType === 'map' ? mapKey(node, each) : JSON.stringify(each);
    if (key === undefined) return;
    if (seen.has(key)) report(`${path}[${i}]`, `${key} is there already: remove one of the two`);
    seen.add(key);
  });
}

/** What tells the entries of a list-map apart; undefined where a key is missing, which is an error of its own. */
function mapKey(node: Structural, entry: unknown): string | undefined {
  const keys = node['x-kubernetes-list-map-keys'] ?? [];
  if (!isFields(entry) || !keys.every((key) => Object.hasOwn(entry, key))) return undefined;
  return keys.map((key) => `${key} ${JSON.stringify(entry[key])}`).join(', ');
}

/** How the entry before the update is found: by its keys in a list-map, not at all in other lists. */
export function correlate(node: Structural, old: unknown): (entry: unknown) => unknown {
  if (node['x-kubernetes-list-type'] !== 'map' || !Array.isArray(old)) return () => undefined;
  const entries = new Map(old.map((each: unknown) => [mapKey(node, each), each]));
  entries.delete(undefined);
  return (entry) => entries.get(mapKey(node, entry));
}

function checkFields(
  node: Structural,
  value: Record<string, unknown>,
  old: unknown,
  path: string,
  report: Report,
): void {
  const names = Object.keys(value);
  if (node.maxProperties !== undefined && names.length > node.maxProperties) {
    report(path, `must have at most ${node.maxProperties} entries, it has ${names.length}`, true);
    return;
  }
  if (node.minProperties !== undefined && names.length < node.minProperties) {
    const known = Object.keys(node.properties ?? {});
    report(path, `must not be empty${known.length === 0 ? '' : `: give at least one of ${known.join(', ')}`}`);
  }
  for (const name of node.required ?? []) {
    if (!Object.hasOwn(value, name)) report(fieldPath(path, name), 'is required', true);
  }
  for (const name of names) {
    const schema = member(node, name);
    if (schema !== undefined) check(schema, value[name], memberOf(old, name), fieldPath(path, name), report);
  }
}

/** The field before the update. */
export function memberOf(old: unknown, name: string): unknown {
  return isFields(old) && Object.hasOwn(old, name) ? old[name] : undefined;
}
