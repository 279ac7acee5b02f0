import { isDeepStrictEqual } from 'node:util';
import type { Structural } from '../api/crds.ts';

/** A value without the fields that hold what their default is anyway; undefined when nothing is left. */
export function withoutDefaults(schema: Structural | undefined, value: unknown): unknown {
  if (Array.isArray(value))
    return value.length === 0 ? undefined : value.map((item) => withoutDefaults(schema?.items, item) ?? item);
  if (typeof value !== 'object' || value === null) return value;
  const kept = Object.entries(value).flatMap(([name, field]): [string, unknown][] => {
    const below = schema?.properties?.[name] ?? schema?.additionalProperties;
    if (below?.default !== undefined && isDeepStrictEqual(field, below.default)) return [];
    const rest = withoutDefaults(below, field);
    // An empty map that was written counts (siteSelector: {} is every site); one that only held defaults does not.
    if (rest === undefined && !isEmptyMap(field)) return [];
    if (rest === undefined && below?.default !== undefined) return [];
    return [[name, rest ?? field]];
  });
  return kept.length === 0 ? undefined : Object.fromEntries(kept);
}

function isEmptyMap(value: unknown): boolean {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && Object.keys(value).length === 0;
}
