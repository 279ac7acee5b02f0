import { createRequire } from 'node:module';
import type { CelInput } from '@bufbuild/cel';
import { Failure } from '../../api/failure.ts';
import type { Entry } from '../../catalogs/catalog.ts';

type Cel = typeof import('@bufbuild/cel');

const require = createRequire(import.meta.url);
const FIELD = 'spec.select.expression';

/** Loops within loops multiply: two deep, over at most 128 fields, still ends within a few milliseconds for each entry. */
const MAX_NESTED_LOOPS = 2;
/** What loops may go over without an entry having it: literals would let them run as long as their author likes. */
const MAX_LITERALS = 128;
/** Sums of strings and lists, which a loop would multiply: what is longer than the memory ends a whole process, not a thread. */
const MAX_SUMS = 16;
/** Of what is said of a failure: it may quote all of a pattern, and is kept for each entry. */
const MAX_WORDS = 1000;

/** Whether an entry is chosen; or why that cannot be said of it. */
export type Choice = boolean | { readonly fault: string };

/**
 * A CEL expression over `entry`, planned once. Everything that an entry may lack is there nevertheless, empty or 0, so that
 * `entry.os.distro == "ubuntu"` is false rather than an error where a list says nothing of it.
 * @throws Failure InvalidSpec when it is no expression, or one that could hold up the program
 */
export function expressionOf(text: string): (entry: Entry) => Choice {
  const { celEnv, isCelError, parse, plan } = require('@bufbuild/cel') as Cel;
  let evaluate: (bindings: Record<string, CelInput>) => unknown;
  try {
    const parsed = parse(text);
    if (loopsIn(parsed.expr) > MAX_NESTED_LOOPS) {
      throw new Error(`loops (all, exists, map, filter) may stand in one another ${MAX_NESTED_LOOPS} deep at most`);
    }
    if (loopsIn(parsed.expr) > 0 && literalsIn(parsed.expr) > MAX_LITERALS) {
      throw new Error(
        `beside a loop, lists and maps that are written out may have ${MAX_LITERALS} elements together at most`,
      );
    }
    if (loopsIn(parsed.expr) > 0 && sumsIn(parsed.expr) > MAX_SUMS) {
      throw new Error(`beside a loop, "+" (which map and filter are made of, too) may stand ${MAX_SUMS} times at most`);
    }
    evaluate = plan(celEnv(), parsed) as typeof evaluate;
  } catch (error) {
    throw new Failure('InvalidSpec', `${FIELD}: ${wordsOf(error)}`, { cause: error });
  }
  return (entry) => {
    try {
      const result = evaluate({ entry: viewOf(entry) });
      if (typeof result === 'boolean') return result;
      return { fault: isCelError(result) ? wordsOf(result) : `it is neither true nor false` };
    } catch (error) {
      return { fault: wordsOf(error) };
    }
  };
}

/** An entry as expressions see it. */
function viewOf(entry: Entry): CelInput {
  const { os, signer, fields, ...rest } = entry;
  const text = { version: '', title: '', description: '', arch: '', createdAt: '', expiresAt: '', deprecated: '' };
  return {
    ...text,
    format: '',
    compression: '',
    ...rest,
    size: BigInt(entry.size ?? 0),
    minRamMiB: BigInt(entry.minRamMiB ?? 0),
    minDiskGiB: BigInt(entry.minDiskGiB ?? 0),
    os: { name: '', distro: '', version: '', ...os },
    endorser: signer?.subject ?? signer?.name ?? '',
    fields,
  };
}

/** How deep loops stand in one another. The planner's tree is protobuf: every node is an object, every loop a comprehension. */
function loopsIn(node: unknown): number {
  if (Array.isArray(node)) return node.reduce<number>((most, each) => Math.max(most, loopsIn(each)), 0);
  if (typeof node !== 'object' || node === null) return 0;
  const own = (node as { $typeName?: string }).$typeName === 'cel.expr.Expr.Comprehension' ? 1 : 0;
  return own + loopsIn(Object.values(node));
}

/** How many elements the lists and maps have that are written out in the expression. */
function literalsIn(node: unknown): number {
  if (Array.isArray(node)) return node.reduce<number>((sum, each) => sum + literalsIn(each), 0);
  if (typeof node !== 'object' || node === null) return 0;
  const { $typeName: type, elements, entries } = node as Record<string, unknown>;
  const members = type === 'cel.expr.Expr.CreateList' ? elements : type === 'cel.expr.Expr.CreateStruct' ? entries : [];
  return (Array.isArray(members) ? members.length : 0) + literalsIn(Object.values(node));
}

/** How often the expression adds. */
function sumsIn(node: unknown): number {
  if (Array.isArray(node)) return node.reduce<number>((sum, each) => sum + sumsIn(each), 0);
  if (typeof node !== 'object' || node === null) return 0;
  const { $typeName: type, function: name } = node as Record<string, unknown>;
  const own = type === 'cel.expr.Expr.Call' && name === '_+_' ? 1 : 0;
  return own + sumsIn(Object.values(node));
}

function wordsOf(error: unknown): string {
  const words = error instanceof Error ? error.message : String((error as { message?: unknown }).message ?? error);
  return words.slice(0, MAX_WORDS);
}
