import { describe, expect, it } from 'vitest';
import { fieldPath, isFields, member } from '../../../src/api/admission.ts';
import { API_KINDS, type Rule, type Structural } from '../../../src/api/crds.ts';
import { isTransition } from '../../../src/api/rules.ts';
import { loadSchemas } from '../../../src/api/schema.ts';
import { ruleCases } from './rule-cases.ts';

const schemas = loadSchemas();
const cases = ruleCases();

describe('the table of what may and may not be said', () => {
  it.each(cases.map((row) => [`${row.kind}: ${row.name}`, row] as const))('%s', (_, row) => {
    const verdict = schemas.validate(row.kind, row.object, row.old);
    const expected = (row.errors ?? []).map(({ path, message }) => ({
      path,
      message: message === undefined ? expect.any(String) : expect.stringContaining(message),
    }));
    expect(verdict.errors).toEqual(expected);
    expect(verdict.object !== undefined).toBe(row.accepted === true);
  });

  it('has names that tell the cases apart', () => {
    const names = cases.map((row) => `${row.kind}: ${row.name}`);
    expect(names).toEqual([...new Set(names)]);
  });

  it('accepts and refuses something by every CEL rule there is', () => {
    const accepted = new Set<string>();
    const refused = new Set<string>();
    for (const row of cases) {
      const { schema } = schemas.crd(row.kind);
      for (const { rule, path } of rulesOver(schema, row.object, row.old, '')) {
        const id = identity(row.kind, rule);
        if (row.accepted === true) accepted.add(id);
        const broken = row.errors?.some(
          (error) =>
            error.path === path + (rule.fieldPath ?? '') &&
            error.message !== undefined &&
            rule.message?.includes(error.message),
        );
        if (broken === true) refused.add(id);
      }
    }
    const all = API_KINDS.flatMap((kind) => rulesOf(schemas.crd(kind).schema).map((rule) => identity(kind, rule)));
    expect(all.length).toBeGreaterThan(40);
    expect(all.filter((id) => !accepted.has(id))).toEqual([]);
    expect(all.filter((id) => !refused.has(id))).toEqual([]);
  });
});

/** The same rule stands in several places of a schema (the URLs of disk and kernel): it is shown once for each kind. */
function identity(kind: string, rule: Rule): string {
  return `${kind}: ${rule.rule} (${rule.message})`;
}

function rulesOf(node: Structural): Rule[] {
  const below = [...Object.values(node.properties ?? {}), node.additionalProperties, node.items];
  return [
    ...(node['x-kubernetes-validations'] ?? []),
    ...below.flatMap((each) => (each === undefined ? [] : rulesOf(each))),
  ];
}

/** The rules that apply to a value, and where. */
function rulesOver(node: Structural, value: unknown, old: unknown, path: string): { rule: Rule; path: string }[] {
  const own = (node['x-kubernetes-validations'] ?? [])
    .filter((rule) => !isTransition(rule) || old !== undefined)
    .map((rule) => ({ rule, path }));
  const { items } = node;
  if (Array.isArray(value) && items !== undefined) {
    return [...own, ...value.flatMap((each, i) => rulesOver(items, each, undefined, `${path}[${i}]`))];
  }
  if (!isFields(value)) return own;
  const below = Object.entries(value).flatMap(([name, each]) => {
    const schema = member(node, name);
    const before = isFields(old) ? old[name] : undefined;
    return schema === undefined ? [] : rulesOver(schema, each, before, fieldPath(path, name));
  });
  return [...own, ...below];
}
