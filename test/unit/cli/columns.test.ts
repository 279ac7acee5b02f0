import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { CRD_DIRECTORY } from '../../../src/api/crds.ts';
import { cellOf, columnsOf } from '../../../src/cli/columns.ts';
import { KINDS } from '../../../src/cli/kinds.ts';

describe.each(KINDS)('$kind', (names) => {
  const crd = parse(readFileSync(join(CRD_DIRECTORY, `imageproxy.dev_${names.plural}.yaml`), 'utf8'), {
    merge: true,
    maxAliasCount: -1,
  });

  it('has the names that its CRD has', () => {
    const { kind, plural, singular, shortNames } = crd.spec.names;
    expect(names).toEqual({
      kind,
      plural,
      singular,
      short: shortNames[0],
      namespaced: crd.spec.scope === 'Namespaced',
    });
  });

  it('has the columns of its CRD, though only a part of the file is parsed', () => {
    const columns = crd.spec.versions[0].additionalPrinterColumns as { name: string; type: string }[];
    expect(columnsOf(names).map(({ title, date }) => ({ title, date }))).toEqual(
      columns.map(({ name, type }) => ({ title: name, date: type === 'date' })),
    );
  });
});

describe('a cell', () => {
  const [names] = KINDS;
  const columns = columnsOf(names as (typeof KINDS)[number]);
  const show = (title: string, object: object) =>
    cellOf(
      columns.find((column) => column.title === title) as (typeof columns)[number],
      object,
      Date.parse('2026-01-01T01:00:00Z'),
    );

  it('shows the condition that its filter names', () => {
    const conditions = [
      { type: 'Stalled', status: 'True' },
      { type: 'Ready', status: 'False', message: 'no\u001B[2Jgood\nat all' },
    ];
    expect(show('Ready', { status: { conditions } })).toBe('False');
  });

  it('cannot steer the terminal with what an origin has said', () => {
    const conditions = [{ type: 'Ready', status: 'False', message: 'no\u001B[2Jgood\nat all' }];
    expect(show('Message', { status: { conditions } })).toBe('no\\u001b[2Jgood at all');
  });

  it('shows an age for a date, and nothing for what is not there', () => {
    expect(show('Age', { metadata: { creationTimestamp: '2026-01-01T00:00:00Z' } })).toBe('60m');
    expect(show('Image ID', {})).toBe('');
  });
});
