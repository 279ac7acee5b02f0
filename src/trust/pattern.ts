/**
 * Patterns of subjects as CA policies have them, matched over the whole text in time proportional to pattern times text: a policy file
 * comes from outside, and a backtracking engine can be kept busy for years by `(a+)+b`. Thompson's construction, simulated.
 */
export type Pattern = (text: string) => boolean;

/** No pattern that we can read; its owner must not be taken to permit anything. */
export class UnreadablePattern extends Error {
  override readonly name = 'UnreadablePattern';
}

/** `*` is any run of characters, `?` any one (Globus' cond_subjects). */
export function globPattern(glob: string): Pattern {
  const node = Array.from(glob).map((character): Node => {
    if (character === '*') return { kind: 'repeat', of: ANY, least: 0, most: Number.POSITIVE_INFINITY };
    return character === '?' ? ANY : literal(character);
  });
  return matcher({ kind: 'sequence', of: node });
}

/**
 * The regular expressions of `.namespaces` files: literals, `.`, classes, groups, alternatives, `* + ? {n,m}`, escapes. They cover the
 * whole subject, so anchors at the ends say nothing.
 * @throws UnreadablePattern for look-around, back-references, anchors within
 */
export function regexPattern(regex: string): Pattern {
  const inner = regex.replace(/^\^/, '').replace(/(?<!\\)\$$/, '');
  return matcher(new Parser(inner).parse());
}

type Node =
  | { kind: 'one'; test: (character: string) => boolean }
  | { kind: 'sequence'; of: readonly Node[] }
  | { kind: 'either'; of: readonly Node[] }
  | { kind: 'repeat'; of: Node; least: number; most: number };

const MAX_STEPS = 4096;
const MAX_LENGTH = 2048;
const MAX_REPEAT = 256;

const ANY: Node = { kind: 'one', test: () => true };

function literal(character: string): Node {
  return { kind: 'one', test: (other) => other === character };
}

class Parser {
  readonly #source: readonly string[];
  #at = 0;

  constructor(source: string) {
    this.#source = Array.from(source);
    if (this.#source.length > MAX_LENGTH) throw new UnreadablePattern(`it is longer than ${MAX_LENGTH} characters`);
  }

  parse(): Node {
    const node = this.#either();
    if (this.#at < this.#source.length) throw new UnreadablePattern('a parenthesis closes nothing');
    return node;
  }

  #either(): Node {
    const branches = [this.#sequence()];
    while (this.#skip('|')) branches.push(this.#sequence());
    return { kind: 'either', of: branches };
  }

  #sequence(): Node {
    const items: Node[] = [];
    for (let next = this.#peek(); next !== undefined && next !== '|' && next !== ')'; next = this.#peek()) {
      items.push(this.#repeated(this.#atom()));
    }
    return { kind: 'sequence', of: items };
  }

  #repeated(node: Node): Node {
    const [least, most] = this.#quantifier() ?? [1, 1];
    if (this.#quantifier() !== undefined) throw new UnreadablePattern('it repeats a repetition');
    return least === 1 && most === 1 ? node : { kind: 'repeat', of: node, least, most };
  }

  #quantifier(): [number, number] | undefined {
    if (this.#skip('*')) return [0, Number.POSITIVE_INFINITY];
    if (this.#skip('+')) return [1, Number.POSITIVE_INFINITY];
    if (this.#skip('?')) return [0, 1];
    const counted = /^\{(?<least>\d{1,3})(?<range>,(?<most>\d{0,3}))?\}/.exec(
      this.#source.slice(this.#at, this.#at + 9).join(''),
    );
    if (counted === null) return undefined;
    this.#at += counted[0].length;
    const { least = '0', range, most = '' } = counted.groups ?? {};
    const from = Number(least);
    const to = range === undefined ? from : most === '' ? Number.POSITIVE_INFINITY : Number(most);
    if (to < from || from > MAX_REPEAT || (to > MAX_REPEAT && to !== Number.POSITIVE_INFINITY)) {
      throw new UnreadablePattern('it repeats too often');
    }
    return [from, to];
  }

  #atom(): Node {
    const character = this.#next();
    switch (character) {
      case '.':
        return ANY;
      case '(':
        return this.#group();
      case '[':
        return { kind: 'one', test: this.#class() };
      case '\\':
        return { kind: 'one', test: this.#escape() };
      case '*':
      case '+':
      case '?':
      case '^':
      case '$':
        throw new UnreadablePattern(`"${character}" stands where it means nothing`);
      default:
        return literal(character);
    }
  }

  #group(): Node {
    if (this.#skip('?') && !this.#skip(':')) throw new UnreadablePattern('it looks around, which is not supported');
    const node = this.#either();
    if (!this.#skip(')')) throw new UnreadablePattern('a parenthesis is not closed');
    return node;
  }

  #escape(): (character: string) => boolean {
    const character = this.#next();
    const shorthand = SHORTHANDS[character];
    if (shorthand !== undefined) return (other) => shorthand.test(other);
    if (/[\p{L}\p{N}]/u.test(character)) throw new UnreadablePattern(`"\\${character}" is not supported`);
    return (other) => other === character;
  }

  #class(): (character: string) => boolean {
    const negated = this.#skip('^');
    const tests: ((character: string) => boolean)[] = [];
    for (let first = true; first || this.#peek() !== ']'; first = false) {
      const from = this.#next();
      if (from === '\\') {
        tests.push(this.#escape());
        continue;
      }
      if (this.#peek() === '-' && this.#source[this.#at + 1] !== ']') {
        this.#at += 1;
        const to = this.#next();
        if (to === '\\' || to < from) throw new UnreadablePattern('a class has a range that is none');
        tests.push((other) => other >= from && other <= to);
      } else tests.push((other) => other === from);
    }
    this.#at += 1;
    return (character) => tests.some((test) => test(character)) !== negated;
  }

  #peek(): string | undefined {
    return this.#source[this.#at];
  }

  #skip(character: string): boolean {
    if (this.#peek() !== character) return false;
    this.#at += 1;
    return true;
  }

  #next(): string {
    const character = this.#peek();
    if (character === undefined) throw new UnreadablePattern('it ends too soon');
    this.#at += 1;
    return character;
  }
}

const SHORTHANDS: Readonly<Record<string, RegExp | undefined>> = {
  d: /^\d$/,
  D: /^\D$/u,
  w: /^\w$/,
  W: /^\W$/u,
  s: /^\s$/,
  S: /^\S$/u,
};

type Step = { test: (character: string) => boolean } | { to: number[] } | 'match';

function matcher(node: Node): Pattern {
  const steps: Step[] = [];
  compile(node, steps);
  steps.push('match');
  return (text) => run(steps, text);
}

/** Appends the steps of a node; they fall through to what is appended next. */
function compile(node: Node, steps: Step[]): void {
  if (steps.length > MAX_STEPS) throw new UnreadablePattern('it is too large');
  switch (node.kind) {
    case 'one':
      steps.push({ test: node.test });
      return;
    case 'sequence':
      for (const each of node.of) compile(each, steps);
      return;
    case 'either':
      compileEither(node.of, steps);
      return;
    case 'repeat':
      for (let count = 0; count < node.least; count += 1) compile(node.of, steps);
      if (node.most === Number.POSITIVE_INFINITY) compileLoop(node.of, steps);
      else for (let count = node.least; count < node.most; count += 1) compileOptional(node.of, steps);
  }
}

function compileEither(branches: readonly Node[], steps: Step[]): void {
  const ends: { to: number[] }[] = [];
  for (const [index, branch] of branches.entries()) {
    const fork = { to: [steps.length + 1] };
    if (index < branches.length - 1) steps.push(fork);
    compile(branch, steps);
    if (index === branches.length - 1) continue;
    const end = { to: [] };
    steps.push(end);
    ends.push(end);
    fork.to.push(steps.length);
  }
  for (const end of ends) end.to.push(steps.length);
}

function compileLoop(node: Node, steps: Step[]): void {
  const start = steps.length;
  const fork = { to: [start + 1] };
  steps.push(fork);
  compile(node, steps);
  steps.push({ to: [start] });
  fork.to.push(steps.length);
}

function compileOptional(node: Node, steps: Step[]): void {
  const fork = { to: [steps.length + 1] };
  steps.push(fork);
  compile(node, steps);
  fork.to.push(steps.length);
}

function run(steps: readonly Step[], text: string): boolean {
  let states = reach(steps, [0]);
  for (const character of text) {
    const next: number[] = [];
    for (const state of states) {
      const step = steps[state];
      if (step !== undefined && step !== 'match' && 'test' in step && step.test(character)) next.push(state + 1);
    }
    if (next.length === 0) return false;
    states = reach(steps, next);
  }
  return [...states].some((state) => steps[state] === 'match');
}

/** All states that are reached without a character. */
function reach(steps: readonly Step[], from: readonly number[]): Set<number> {
  const found = new Set<number>();
  const open = [...from];
  for (let state = open.pop(); state !== undefined; state = open.pop()) {
    if (found.has(state)) continue;
    found.add(state);
    const step = steps[state];
    if (step !== undefined && step !== 'match' && 'to' in step) open.push(...step.to);
  }
  return found;
}
