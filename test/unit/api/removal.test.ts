import { describe, expect, it, test } from 'vitest';
import { confirmationOf, isRemovalConfirmed, listRemovalWord } from '../../../src/api/removal.ts';
import type { SiteRow } from '../../../src/api/types.ts';
import { vmimage } from '../reconcilers/objects.ts';

const SINCE = '2026-11-21T12:00:00Z';
const row = (name: string, heldSince?: string): SiteRow => ({
  name,
  ...(heldSince === undefined ? {} : { heldSince }),
});
const image = (word: string | undefined, ...sites: SiteRow[]) =>
  vmimage(
    { metadata: word === undefined ? {} : { annotations: { 'imageproxy.dev/confirm-removal': word } } },
    { sites },
  );

describe('the word of a person that what is held at a site may go', () => {
  test.each<[string | undefined, boolean]>([
    [undefined, false],
    ['', false],
    [`nova@${SINCE}`, true],
    [`east@${SINCE}, nova@${SINCE}`, true],
    [`east@${SINCE} nova@${SINCE}`, true],
    ['nova', true],
    ['east, nova', true],
    ['nov', false],
    ['nova@2026-11-21T11:59:59Z', false],
    ['nova@2026-11-21T12:00:01Z', false],
    [`nova-2@${SINCE}`, false],
    [`NOVA@${SINCE}`, false],
  ])('%j confirms it: %s', (word, expected) => {
    expect(isRemovalConfirmed(image(word), row('nova', SINCE))).toBe(expected);
  });

  it('does not confirm by the site alone what was held although that stood there', () => {
    const held = { ...row('nova', SINCE), heldDespiteWord: true };
    expect(isRemovalConfirmed(image('nova'), held)).toBe(false);
    expect(isRemovalConfirmed(image(`nova,nova@${SINCE}`), held)).toBe(true);
  });

  it('counts for nothing where nothing is held', () => {
    expect(isRemovalConfirmed(image(`nova@${SINCE} nova nova@undefined`), row('nova'))).toBe(false);
  });

  it('is added to the words that count, and those of occasions that are over are left out', () => {
    const rows = [row('nova', SINCE), row('east', SINCE), row('west', SINCE), row('south')];
    const before = image(`east@${SINCE}, west@2026-11-20T00:00:00Z, south@${SINCE}, gone@${SINCE}, nova`, ...rows);
    expect(confirmationOf(before, row('nova', SINCE))).toBe(`nova@${SINCE},east@${SINCE}`);
    expect(confirmationOf(image(undefined, ...rows), row('west', SINCE))).toBe(`west@${SINCE}`);
  });
});

test('the word for a list is the beginning of its digest', () => {
  expect(listRemovalWord(`sha256:9f86d081884c${'0'.repeat(52)}`)).toBe('sha256:9f86d081884c');
});
