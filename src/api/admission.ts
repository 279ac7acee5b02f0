import type { Structural } from './crds.ts';
import type { FieldNote } from './verdict.ts';

/** An object of JSON, as far as anybody looked. */
export type Fields = Record<string, unknown>;

export function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** `spec.sites[0].name`, as the API server writes it; keys of maps stand there like fields. */
export function fieldPath(path: string, name: string): string {
  return path === '' ? name : `${path}.${name}`;
}

/** The schema of a field or of a map's entry. Own properties only: a field named `constructor` is not one of ours. */
export function member(node: Structural, name: string): Structural | undefined {
  const { properties } = node;
  return properties !== undefined && Object.hasOwn(properties, name) ? properties[name] : node.additionalProperties;
}

/**
 * A copy of the value as the API server would store it: fields that the schema does not know are pruned (and noted), nulls
 * count as absent where null is no value, and absent fields get their defaults, from the top down. Values of the wrong type
 * are left for the validation to name.
 */
export function admit(node: Structural, value: unknown, path: string, warnings: FieldNote[]): unknown {
  if (Array.isArray(value)) {
    const { items } = node;
    return items === undefined ? value : value.map((each, i) => admit(items, each, `${path}[${i}]`, warnings));
  }
  if (!isFields(value) || node.type !== 'object') return value;

  const kept: [string, unknown][] = [];
  for (const [name, each] of Object.entries(value)) {
    const schema = member(node, name);
    if (schema === undefined) {
      if (node['x-kubernetes-preserve-unknown-fields'] === true) kept.push([name, each]);
      else warnings.push({ path: fieldPath(path, name), message: unknownField(node, name) });
    } else if (each !== null || schema.nullable === true) {
      kept.push([name, admit(schema, each, fieldPath(path, name), warnings)]);
    }
  }
  // Object.fromEntries and not assignment: a key `__proto__` must stay a key.
  const admitted: Fields = Object.fromEntries(kept);
  for (const [name, schema] of Object.entries(node.properties ?? {})) {
    if (schema.default !== undefined && !Object.hasOwn(admitted, name)) {
      admitted[name] = admit(schema, structuredClone(schema.default), fieldPath(path, name), warnings);
    }
  }
  return admitted;
}

function unknownField(node: Structural, name: string): string {
  const near = nearest(name, Object.keys(node.properties ?? {}));
  return `unknown field, it is ignored${near === undefined ? '' : `: did you mean ${near}?`}`;
}

/** The known name that a mistyped one stands for; undefined when none is near. */
export function nearest(name: string, known: readonly string[]): string | undefined {
  const folded = fold(name);
  return known.find((each) => fold(each) === folded) ?? known.find((each) => oneEditApart(fold(each), folded));
}

function fold(name: string): string {
  return name.toLowerCase().replaceAll(/[-_]/g, '');
}

/** Whether one insertion, deletion or replacement, or one swap of neighbours, makes one name of the other. */
function oneEditApart(a: string, b: string): boolean {
  if (Math.abs(a.length - b.length) > 1 || Math.min(a.length, b.length) < 3) return false;
  let start = 0;
  while (start < a.length && a[start] === b[start]) start++;
  const [restA, restB] = [a.slice(start), b.slice(start)];
  return (
    restA.slice(1) === restB.slice(1) ||
    restA.slice(1) === restB ||
    restA === restB.slice(1) ||
    (restA[0] === restB[1] && restA[1] === restB[0] && restA.slice(2) === restB.slice(2))
  );
}
