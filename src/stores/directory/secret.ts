import type { FieldNote } from '../../api/schema.ts';
import { isMapping } from './seams.ts';

/** As the API server bounds both kinds. */
const MAX_BYTES = 1024 * 1024;
const KEY = /^[-._a-zA-Z0-9]{1,253}$/;
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

export interface Decoded<T> {
  data: Record<string, T>;
  errors: FieldNote[];
}

/** `data` (base64) and `stringData` of a v1 Secret. No message repeats a value. */
export function decodeSecret(input: Record<string, unknown>): Decoded<Uint8Array> {
  const data: Record<string, Uint8Array> = {};
  const errors: FieldNote[] = [];
  for (const [path, value] of entries(input, 'data', errors)) {
    const compact = value.replaceAll(/[\r\n]/g, '');
    if (BASE64.test(compact)) data[path.key] = Buffer.from(compact, 'base64');
    else errors.push({ path: path.text, message: 'is not base64: encode it, or write it under stringData' });
  }
  for (const [path, value] of entries(input, 'stringData', errors)) data[path.key] = Buffer.from(value, 'utf8');
  return { data, errors: [...errors, ...tooLarge(Object.values(data).map((value) => value.byteLength))] };
}

/** `data` of a v1 ConfigMap; `binaryData` is not read. */
export function decodeConfigMap(input: Record<string, unknown>): Decoded<string> {
  const data: Record<string, string> = {};
  const errors: FieldNote[] = [];
  for (const [path, value] of entries(input, 'data', errors)) data[path.key] = value;
  return { data, errors: [...errors, ...tooLarge(Object.values(data).map((value) => Buffer.byteLength(value)))] };
}

interface DataPath {
  key: string;
  text: string;
}

function* entries(
  input: Record<string, unknown>,
  field: string,
  errors: FieldNote[],
): Generator<[path: DataPath, value: string]> {
  const map = input[field];
  if (map === undefined || map === null) return;
  if (!isMapping(map)) {
    errors.push({ path: field, message: 'must be a map of strings' });
    return;
  }
  for (const [key, value] of Object.entries(map)) {
    const path = { key, text: `${field}[${JSON.stringify(key)}]` };
    if (!KEY.test(key)) errors.push({ path: path.text, message: 'a key has letters, digits, "-", "_" and "." only' });
    else if (typeof value !== 'string') errors.push({ path: path.text, message: 'must be a string: quote it' });
    else yield [path, value];
  }
}

function tooLarge(sizes: number[]): FieldNote[] {
  const total = sizes.reduce((sum, size) => sum + size, 0);
  return total <= MAX_BYTES ? [] : [{ path: 'data', message: `holds ${total} bytes; ${MAX_BYTES} is the most` }];
}
