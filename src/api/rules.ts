import { createRequire } from 'node:module';
import { isDeepStrictEqual } from 'node:util';
import type { CelInput } from '@bufbuild/cel';
import { fieldPath, isFields, member } from './admission.ts';
import type { Rule, Structural } from './crds.ts';
import type { FieldNote } from './verdict.ts';
import { correlate, memberOf } from './structural.ts';

type Cel = typeof import('@bufbuild/cel');
type Wkt = typeof import('@bufbuild/protobuf/wkt');

type Evaluate = (bindings: Record<string, CelInput>) => unknown;

const require = createRequire(import.meta.url);
let cel: Cel | undefined;
let wkt: Wkt | undefined;

/** CEL takes a tenth of a second to load: not before the first rule runs, so that `imageproxy get` does not pay for it. */
function loadCel(): Cel {
  cel ??= require('@bufbuild/cel') as Cel;
  return cel;
}

const programs = new Map<string, Evaluate>();

function program(expression: string): Evaluate {
  let compiled = programs.get(expression);
  if (compiled === undefined) {
    const { celEnv, parse, plan } = loadCel();
    compiled = plan(celEnv(), parse(expression)) as Evaluate;
    programs.set(expression, compiled);
  }
  return compiled;
}

/** Whether a rule compares with the object before: it then runs only where there is one. */
export function isTransition(rule: Rule): boolean {
  return /\boldSelf\b/.test(rule.rule);
}

/**
 * Runs the CEL rules of a node and of all below it, over an admitted and structurally sound value, as the API server does:
 * transition rules where the value was there before, the others where it is new or changed.
 * https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation-rules
 */
export function brokenRules(node: Structural, value: unknown, old: unknown, path: string): FieldNote[] {
  const errors: FieldNote[] = [];
  walk(node, value, old, path, errors);
  return errors;
}

function walk(node: Structural, value: unknown, old: unknown, path: string, errors: FieldNote[]): void {
  const rules = node['x-kubernetes-validations'];
  if (rules !== undefined && value !== null) runRules(rules, node, value, old, path, errors);
  if (Array.isArray(value)) {
    const { items } = node;
    if (items === undefined) return;
    const before = correlate(node, old);
    value.forEach((each, i) => walk(items, each, before(each), `${path}[${i}]`, errors));
  } else if (isFields(value)) {
    for (const [name, each] of Object.entries(value)) {
      const schema = member(node, name);
      if (schema !== undefined) walk(schema, each, memberOf(old, name), fieldPath(path, name), errors);
    }
  }
}

function runRules(
  rules: readonly Rule[],
  node: Structural,
  value: unknown,
  old: unknown,
  path: string,
  errors: FieldNote[],
): void {
  const unchanged = old !== undefined && isDeepStrictEqual(value, old);
  const due = rules.filter((rule) => (isTransition(rule) ? old !== undefined : !unchanged));
  if (due.length === 0) return;
  const bindings: Record<string, CelInput> = { self: toCel(node, value) };
  if (old !== undefined) bindings['oldSelf'] = toCel(node, old);
  for (const rule of due) {
    const verdict = evaluate(rule.rule, bindings);
    if (verdict === true) continue;
    const broken = rule.message ?? `breaks the rule ${rule.rule}`;
    errors.push({
      path: `${path}${rule.fieldPath ?? ''}`,
      message: verdict === false ? broken : `${broken} (the rule could not be evaluated: ${String(verdict)})`,
    });
  }
}

/** true, false, or what went wrong. */
function evaluate(expression: string, bindings: Record<string, CelInput>): unknown {
  try {
    const result = program(expression)(bindings);
    return loadCel().isCelError(result) ? result.message : result;
  } catch (error) {
    return error instanceof Error ? error.message : error;
  }
}

/** JSON as CEL sees it through the schema: integers are int and not double, date-times are timestamps. */
function toCel(node: Structural, value: unknown): CelInput {
  if (Array.isArray(value)) {
    const { items } = node;
    return items === undefined ? (value as CelInput) : (value.map((each) => toCel(items, each)) as CelInput);
  }
  if (isFields(value)) {
    const entries = Object.entries(value).map(([name, each]): [string, CelInput] => {
      const schema = member(node, name);
      return [name, schema === undefined ? (each as CelInput) : toCel(schema, each)];
    });
    return new Map(entries);
  }
  if (node.type === 'integer' && typeof value === 'number') return BigInt(value);
  if (node.format === 'date-time' && typeof value === 'string') {
    wkt ??= require('@bufbuild/protobuf/wkt') as Wkt;
    return wkt.timestampFromMs(Date.parse(value));
  }
  return value as CelInput;
}
