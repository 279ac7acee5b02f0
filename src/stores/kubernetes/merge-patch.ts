import { isDeepStrictEqual } from 'node:util';
import { isFields } from '../../api/admission.ts';

/**
 * The JSON merge patch (RFC 7386) that makes `to` of `from`: the members that differ and no others, so that whoever else writes the
 * same object keeps what is theirs. Lists are replaced whole; undefined where nothing differs. Neither may hold a null, which the
 * RFC has no way to set; objects of the API server hold none.
 */
export function mergePatch(from: unknown, to: unknown): unknown {
  if (!isFields(from) || !isFields(to)) return isDeepStrictEqual(from, to) ? undefined : to;
  // Maps, and not members: `__proto__` is a name like any other here.
  const [before, after] = [new Map(Object.entries(from)), new Map(Object.entries(to))];
  const changes = [...new Set([...before.keys(), ...after.keys()])].flatMap((name): [string, unknown][] => {
    const [old, wanted] = [before.get(name), after.get(name)];
    if (wanted === undefined) return old === undefined ? [] : [[name, null]];
    const change = mergePatch(old, wanted);
    return change === undefined ? [] : [[name, change]];
  });
  return changes.length === 0 ? undefined : Object.fromEntries(changes);
}
