import { describe, expect, test } from 'vitest';
import { accept, type AcceptedList } from '../../../src/catalogs/acceptance.ts';
import type { ListFacts } from '../../../src/catalogs/catalog.ts';

const rules = { url: 'https://lists.example.org/image.list', format: 'HEPiX', rollback: 'Refuse' } as const;
const before: AcceptedList = {
  identity: 'list',
  version: '1.10',
  digest: 'sha256:old',
  createdAt: '2026-01-10T00:00:00Z',
  url: rules.url,
  format: rules.format,
};
const list = (more: Partial<ListFacts> = {}): ListFacts => ({
  format: 'HEPiX',
  identity: 'list',
  version: '1.11',
  digest: 'sha256:new',
  createdAt: '2026-01-11T00:00:00Z',
  ...more,
});
const plain = (more: Partial<ListFacts> = {}): ListFacts => ({ format: 'ChecksumFile', digest: 'sha256:new', ...more });
const { identity: _, version: __, ...dated } = before;

describe('a list in the place of the accepted one', () => {
  test.each<[string, ListFacts, AcceptedList | undefined]>([
    ['the first', list(), undefined],
    ['the same', list({ version: '1', digest: 'sha256:old' }), before],
    ['a newer one', list(), before],
    ['one whose number is greater, not its letters', list({ version: '1.100' }), { ...before, version: '1.99' }],
    ['a newer date where there is no version', plain({ createdAt: '2026-01-11T00:00:00Z' }), dated],
    ['one without version and date, as before', plain(), { url: rules.url, format: rules.format, digest: 'sha256:x' }],
    ['the same, without version and date', plain(), { url: rules.url, format: 'HEPiX', digest: 'sha256:old' }],
    [
      'another list at another place',
      list({ identity: 'other', version: '0' }),
      { ...before, url: 'https://other.example.org/' },
    ],
    [
      'an older one without a name at another place',
      plain({ createdAt: '2020-01-01T00:00:00Z' }),
      { ...dated, url: 'https://other.example.org/' },
    ],
  ])('is taken: %s', (_, next, last) => {
    expect(accept(next, last, rules)).toEqual([]);
  });

  test.each<[string, ListFacts, AcceptedList, string]>([
    ['an older version', list({ version: '1.9' }), before, 'ListRollback'],
    [
      'an older version at another place',
      list({ version: '1.9' }),
      { ...before, url: 'https://mirror.example.org/' },
      'ListRollback',
    ],
    [
      'the same version of an older date',
      list({ version: '1.10', createdAt: '2026-01-09T23:59:59Z' }),
      before,
      'ListRollback',
    ],
    ['an older date', plain({ createdAt: '2026-01-09T00:00:00Z' }), dated, 'ListRollback'],
    ['one without date, where the accepted one had it', plain(), dated, 'ListRollback'],
    [
      'one without version and date, where the accepted one had them',
      { format: 'HEPiX', identity: 'list', digest: 'sha256:new' },
      before,
      'ListRollback',
    ],
    ['another list', list({ identity: 'other' }), before, 'ListIdentityChanged'],
    ['one that has lost its name', plain(), before, 'ListIdentityChanged'],
  ])('is refused: %s', (_, next, last, reason) => {
    expect(() => accept(next, last, rules)).toThrow(expect.objectContaining({ reason }));
    expect(accept(next, last, { ...rules, rollback: 'Accept' })).toEqual([]);
  });

  test.each([
    ['a newer date', list({ version: '1.10' })],
    ['the same date', list({ version: '1.10', createdAt: before.createdAt as string })],
    ['no date', { format: 'HEPiX', identity: 'list', version: '1.10', digest: 'sha256:new' } as const],
  ])('with the same version, %s and other bytes is taken with a warning', (_, next) => {
    expect(accept(next, before, rules)).toEqual([expect.stringContaining('without giving it another version')]);
  });
});
