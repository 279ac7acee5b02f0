import { MAX_DEPTH } from './limits.ts';
import { invalidList, plain, quoted } from './text.ts';

export interface Json {
  readonly value: unknown;
  /** Where an object has a key twice: the path of the object, and the key. */
  readonly repeated: readonly { readonly path: readonly (string | number)[]; readonly key: string }[];
}

const MAX_REPEATED = 1000;
const [QUOTE, BACKSLASH, COMMA, OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT] = Array.from('"\\,[]{}', (char) =>
  char.charCodeAt(0),
);

/**
 * JSON with the two things checked that `JSON.parse` lets pass: how deep it is nested, and keys that an object has twice. Readers
 * differ in which of two they take, so a list that one site verifies could be another list at the next.
 * @throws Failure InvalidList
 */
export function parseJson(text: string): Json {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw invalidList(`it is not JSON: ${quoted(error instanceof Error ? error.message : '')}`);
  }
  return { value, repeated: repeatedKeys(text) };
}

/**
 * Which items of a list, that is at this path, have a key twice. Such an item can be left out; anywhere else the whole document says
 * two things.
 * @throws Failure InvalidList
 */
export function ambiguousItems({ repeated }: Json, ...list: readonly string[]): ReadonlyMap<number, string> {
  const found = new Map<number, string>();
  for (const { path, key } of repeated) {
    const place = path[list.length];
    if (typeof place !== 'number' || list.some((name, depth) => path[depth] !== name)) {
      throw invalidList(`it has the key ${plain(key, 60)} twice in one object, and which is meant cannot be told`);
    }
    found.set(place, key);
  }
  return found;
}

interface Level {
  /** Undefined for a list. */
  readonly keys: Set<string> | undefined;
  /** The key or the index that the next value belongs to. */
  at: string | number;
}

/** One pass over a text that is known to be JSON: only strings and brackets matter. */
function repeatedKeys(text: string): Json['repeated'] {
  const levels: Level[] = [];
  const repeated: { path: (string | number)[]; key: string }[] = [];
  let keyComes = false;
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index);
    const level = levels.at(-1);
    if (code === QUOTE) {
      const end = endOfString(text, index);
      if (keyComes && level?.keys !== undefined) {
        const key = keyOf(text.slice(index, end + 1));
        if (level.keys.has(key) && repeated.length < MAX_REPEATED) {
          repeated.push({ path: levels.slice(0, -1).map(({ at }) => at), key });
        }
        level.keys.add(key);
        level.at = key;
        keyComes = false;
      }
      index = end;
    } else if (code === OPEN_OBJECT || code === OPEN_LIST) {
      if (levels.length === MAX_DEPTH) throw invalidList(`it is nested more than ${MAX_DEPTH} deep`);
      levels.push(code === OPEN_OBJECT ? { keys: new Set(), at: '' } : { keys: undefined, at: 0 });
      keyComes = code === OPEN_OBJECT;
    } else if (code === CLOSE_OBJECT || code === CLOSE_LIST) {
      levels.pop();
      keyComes = false;
    } else if (code === COMMA && level !== undefined) {
      keyComes = level.keys !== undefined;
      if (typeof level.at === 'number') level.at++;
    }
  }
  return repeated;
}

function endOfString(text: string, start: number): number {
  let end = text.indexOf('"', start + 1);
  // An even number of backslashes before the mark are themselves escaped, and the mark ends the string.
  for (; end !== -1; end = text.indexOf('"', end + 1)) {
    let backslashes = 0;
    while (text.charCodeAt(end - 1 - backslashes) === BACKSLASH) backslashes++;
    if (backslashes % 2 === 0) return end;
  }
  return text.length;
}

/** `"a"` and `"\u0061"` are the same key. */
function keyOf(literal: string): string {
  return literal.includes('\\') ? String(JSON.parse(literal)) : literal.slice(1, -1);
}
