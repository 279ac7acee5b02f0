import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { evaluate, parseJsonPath } from '../../../src/cli/jsonpath.ts';

const object = {
  metadata: { name: 'a', labels: { 'example.org/team': 'x' } },
  status: {
    phase: 'Ready',
    conditions: [
      { type: 'Ready', status: 'True' },
      { type: 'Stalled', status: 'False' },
    ],
    sites: [{ name: 'east' }, { name: 'west', attempts: 2 }],
  },
};

describe('JSONPath', () => {
  it.each([
    ['.status.phase', ['Ready']],
    ['{.status.phase}', ['Ready']],
    ['$.status.phase', ['Ready']],
    ['status.phase', ['Ready']],
    ['.status.conditions[?(@.type=="Stalled")].status', ['False']],
    [".status.conditions[?(@.type!='Stalled')].status", ['True']],
    ['.status.sites[?(@.attempts==2)].name', ['west']],
    ['.status.sites[*].name', ['east', 'west']],
    ['.status.sites[-1].name', ['west']],
    ["['status']['phase']", ['Ready']],
    ['.metadata.labels.example\\.org/team', ['x']],
    ['.status.missing.deeper', []],
    ['.status.phase.length', []],
    ['.constructor', []],
    ['', [object]],
  ])('%s leads to %j', (path, found) => {
    expect(evaluate(parseJsonPath(path), object)).toEqual(found);
  });

  it.each(['.a[?(@.b>1)]', '.a[', '..a', '.a b', '{.a'])('%s is not understood, and says where', (path) => {
    expect(() => parseJsonPath(path)).toThrow(SyntaxError);
  });

  it('finds every member that an object has, whatever its name', () => {
    fc.assert(
      fc.property(
        fc.string().filter((name) => !/['"]/.test(name)),
        fc.jsonValue(),
        (name, value) => {
          const holder = Object.fromEntries([[name, value]]);
          expect(evaluate(parseJsonPath(`['${name}']`), holder)).toEqual([value]);
        },
      ),
    );
  });

  it('takes any text without failing otherwise than by a SyntaxError', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        try {
          evaluate(parseJsonPath(text), object);
        } catch (error) {
          expect(error).toBeInstanceOf(SyntaxError);
        }
      }),
    );
  });
});
