/**
 * The part of Kubernetes' JSONPath (https://kubernetes.io/docs/reference/kubectl/jsonpath/) that printer columns and
 * `wait --for=jsonpath=…` use: members, indexes, `[*]` and a filter of one equation.
 */
type Step =
  | { type: 'member'; name: string }
  | { type: 'index'; index: number }
  | { type: 'all' }
  | { type: 'filter'; path: readonly Step[]; negated: boolean; value: string | number | boolean };

export type JsonPath = readonly Step[];

const MEMBER = /^\.([\w/-]+(?:\\\.[\w/-]+)*)/;
const QUOTED = /^\[\s*(?:'([^']*)'|"([^"]*)")\s*\]/;
const INDEX = /^\[\s*(-?\d{1,9})\s*\]/;
const ALL = /^(?:\[\s*\*\s*\]|\.\*)/;
const FILTER = /^\[\?\(\s*@((?:\.[\w-]+)+)\s*(==|!=)\s*(?:"([^"]*)"|'([^']*)'|(true|false|-?\d+(?:\.\d+)?))\s*\)\]/;

/** @throws SyntaxError that shows where it stops being understood */
export function parseJsonPath(text: string): JsonPath {
  let rest = text.trim();
  if (rest.startsWith('{') && rest.endsWith('}')) rest = rest.slice(1, -1).trim();
  if (rest.startsWith('$')) rest = rest.slice(1);
  if (rest !== '' && !/^[.[]/.test(rest)) rest = `.${rest}`;
  const steps: Step[] = [];
  while (rest !== '') {
    const [length, step] = next(rest);
    if (step === undefined) throw new SyntaxError(`"${rest.slice(0, 40)}" in the JSONPath "${text}" is not understood`);
    steps.push(step);
    rest = rest.slice(length);
  }
  return steps;
}

function next(text: string): [length: number, step?: Step] {
  const all = ALL.exec(text);
  if (all !== null) return [all[0].length, { type: 'all' }];
  const member = MEMBER.exec(text) ?? undefined;
  if (member !== undefined) {
    return [member[0].length, { type: 'member', name: (member[1] ?? '').replaceAll('\\.', '.') }];
  }
  const quoted = QUOTED.exec(text);
  if (quoted !== null) return [quoted[0].length, { type: 'member', name: quoted[1] ?? quoted[2] ?? '' }];
  const index = INDEX.exec(text);
  if (index !== null) return [index[0].length, { type: 'index', index: Number(index[1]) }];
  const filter = FILTER.exec(text);
  if (filter === null) return [0];
  const [whole, path = '', operator, doubly, singly, bare = ''] = filter;
  const value = doubly ?? singly ?? (bare === 'true' || bare === 'false' ? bare === 'true' : Number(bare));
  return [whole.length, { type: 'filter', path: parseJsonPath(path), negated: operator === '!=', value }];
}

/** All that the path leads to; nothing where a part of the way is missing. */
export function evaluate(path: JsonPath, root: unknown): unknown[] {
  let found: unknown[] = [root];
  for (const step of path) found = found.flatMap((value) => take(step, value));
  return found;
}

function take(step: Step, value: unknown): unknown[] {
  if (typeof value !== 'object' || value === null) return [];
  switch (step.type) {
    case 'member':
      return !Array.isArray(value) && Object.hasOwn(value, step.name)
        ? [(value as Record<string, unknown>)[step.name]]
        : [];
    case 'index': {
      const item: unknown = Array.isArray(value) ? value.at(step.index) : undefined;
      return item === undefined ? [] : [item];
    }
    case 'all':
      return Object.values(value);
    case 'filter':
      return (Array.isArray(value) ? value : []).filter((item: unknown) => {
        const equal = evaluate(step.path, item).some((each) => each === step.value);
        return equal !== step.negated;
      });
  }
}
