import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { mergePatch } from '../../../../src/stores/kubernetes/merge-patch.ts';

/** RFC 7386, section 2, word by word. */
function patched(target: unknown, patch: unknown): unknown {
  if (typeof patch !== 'object' || patch === null || Array.isArray(patch)) return patch;
  const isObject = typeof target === 'object' && target !== null && !Array.isArray(target);
  const result = new Map(isObject ? Object.entries(target) : []);
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) result.delete(name);
    else result.set(name, patched(result.get(name), value));
  }
  return Object.fromEntries(result);
}

const names = fc.constantFrom('a', 'b', 'c', '__proto__');
const { tree } = fc.letrec((tie) => ({
  tree: fc.oneof({ depthSize: 'small' }, tie('leaf'), tie('object'), fc.array(tie('leaf'), { maxLength: 3 })),
  leaf: fc.oneof(fc.constantFrom('', 'x'), fc.boolean(), fc.integer({ min: 0, max: 2 })),
  object: fc.array(fc.tuple(names, tie('tree')), { maxLength: 4 }).map((entries) => Object.fromEntries(entries)),
}));
const object = fc
  .array(fc.tuple(names, tree), { maxLength: 4 })
  .map((entries) => Object.fromEntries(entries) as object);

describe('a merge patch', () => {
  it('makes the one of the other', () => {
    fc.assert(
      fc.property(object, object, (from, to) => {
        const patch = mergePatch(from, to);
        expect(patch === undefined ? from : patched(from, patch)).toEqual(to);
      }),
    );
  });

  it('holds nothing that is the same in both', () => {
    expect(mergePatch({ a: 1, b: { c: 2, d: [1] } }, { a: 1, b: { c: 2, d: [1] } })).toBeUndefined();
    expect(mergePatch({ a: 1, b: { c: 2, d: [1], e: 3 } }, { a: 1, b: { c: 2, d: [1, 2] } })).toEqual({
      b: { d: [1, 2], e: null },
    });
  });
});
