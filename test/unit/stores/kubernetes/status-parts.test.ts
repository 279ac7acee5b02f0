import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isWritten, partsOf } from '../../../../src/stores/kubernetes/status-parts.ts';
import type { StatusShare } from '../../../../src/stores/store.ts';

const east: StatusShare = { rows: 'sites', isOurs: (row) => row.startsWith('east'), rest: false };
const status = {
  phase: 'Ready',
  conditions: [{ type: 'Ready' }, { type: 'Available' }],
  sites: [
    { name: 'east-1', phase: 'Ready' },
    { name: 'west-1', phase: 'Fetching' },
  ],
};

describe('A status that several controllers write', () => {
  it('is one part, under our own name, for a controller that is alone', () => {
    const parts = partsOf(status, undefined, 'me');
    expect(parts.map(({ fieldManager, fields }) => [fieldManager, fields])).toEqual([['me', status]]);
  });

  it('is our rows for one that serves some sites, and nothing else', () => {
    const [part, ...more] = partsOf(status, east, 'me');
    expect(part).toMatchObject({ fieldManager: 'me', fields: { sites: [{ name: 'east-1', phase: 'Ready' }] } });
    expect(more).toEqual([]);
  });

  it('is our rows, and then the rest under the common name, for the one that summarizes', () => {
    const parts = partsOf(status, { ...east, rest: true }, 'me');
    const { sites: _sites, ...rest } = status;
    expect(parts.map(({ fieldManager, fields }) => [fieldManager, fields])).toEqual([
      ['me', { sites: [{ name: 'east-1', phase: 'Ready' }] }],
      ['imageproxy-summary', rest],
    ]);
  });

  it('is written when only the order of rows and conditions differs, or the rows of others', () => {
    const [rows, rest] = partsOf(status, { ...east, rest: true }, 'me');
    const now = {
      ...status,
      conditions: status.conditions.toReversed(),
      sites: [{ name: 'west-1', phase: 'Ready' }, ...status.sites.slice(0, 1)],
    };
    expect(rows && isWritten(rows, now)).toBe(true);
    expect(rest && isWritten(rest, now)).toBe(true);
    expect(rest && isWritten(rest, { ...now, phase: 'Failed' })).toBe(false);
    expect(rows && isWritten(rows, { ...now, sites: [] })).toBe(false);
  });

  it('takes over what is ours and leaves what is others’, whatever stands there', () => {
    const row = fc.record({ name: fc.constantFrom('east-1', 'east-2', 'west-1', 'west-2'), phase: fc.string() });
    const rows = fc.uniqueArray(row, { selector: ({ name }) => name });
    const any = fc.record({ phase: fc.string(), sites: rows, old: fc.string() }, { requiredKeys: [] });
    fc.assert(
      fc.property(any, any, fc.boolean(), (wanted, now, rest) => {
        const others = (now.sites ?? []).filter(({ name }) => !east.isOurs(name));
        let result: Record<string, unknown> = now;
        for (const part of partsOf(wanted, { ...east, rest }, 'me')) {
          result = part.into(result);
          expect(isWritten(part, result)).toBe(true);
        }
        expect(((result['sites'] ?? []) as { name: string }[]).filter(({ name }) => !east.isOurs(name))).toEqual(
          others,
        );
        expect(result['old']).toBe(rest ? wanted.old : now.old);
      }),
    );
  });
});
