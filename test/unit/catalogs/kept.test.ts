import { appendFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Catalog, Entry } from '../../../src/catalogs/catalog.ts';
import type { TakenDocument } from '../../../src/catalogs/documents.ts';
import { keep, type KeptList, readEntries, readKept } from '../../../src/catalogs/kept.ts';

let folder: string;
beforeEach(() => {
  folder = join(mkdtempSync(join(tmpdir(), 'kept-')), 'uid');
});
afterEach(() => rmSync(join(folder, '..'), { recursive: true, force: true }));

const entry = (id: string): Entry => ({
  id,
  urls: ['https://example.org/a'],
  checksums: { sha512: 'ab' },
  contentChecksums: {},
  os: {},
  fields: { note: `line\nbreak \u2028 ${id}` },
});
const catalog = (...ids: string[]): Catalog => ({
  list: { format: 'HEPiX', digest: `sha256:${ids.join('')}` },
  entries: ids.map(entry),
  skipped: [{ id: '#9', reason: 'InvalidEntry', message: 'no checksum' }],
  warnings: [],
});
const head = { warnings: [], url: 'https://example.org/list', acceptedAt: '2026-01-01T00:00:00Z' };
const document = (sha256: string): TakenDocument => ({
  url: 'https://example.org/list',
  sha256,
  etag: '"1"',
  bytes: Buffer.from(sha256),
});
const files = () => readdirSync(folder).toSorted();

describe('the accepted list', () => {
  test('is read as it was written', async () => {
    const kept = await keep(folder, catalog('a', 'b'), head, [document('aa')]);
    expect(await readKept(folder)).toEqual(kept);
    expect(kept.documents).toEqual([{ url: 'https://example.org/list', sha256: 'aa', etag: '"1"' }]);
    const { entries, skipped } = catalog('a', 'b');
    expect(await readEntries(folder, kept)).toMatchObject({ entries, skipped });
  });

  test('has the same revision as long as its entries are the same, and leaves nothing of the one before', async () => {
    const first = await keep(folder, catalog('a'), head, [document('aa')]);
    const same = await keep(folder, catalog('a'), { ...head, acceptedAt: '2026-01-02T00:00:00Z' }, [document('bb')]);
    expect(same.revision).toBe(first.revision);
    const other = await keep(folder, catalog('b'), head, [document('bb')]);
    expect(other.revision).not.toBe(first.revision);
    expect(files()).toEqual(['document-bb', `entries-${other.revision}.jsonl`, 'list.json']);
    expect(await readEntries(folder, first)).toBeUndefined();
  });

  test.each<[string, (kept: KeptList) => void]>([
    ['is gone', () => rmSync(folder, { recursive: true })],
    ['has another line', (kept) => appendFileSync(join(folder, `entries-${kept.revision}.jsonl`), '{"skipped":{}}\n')],
    [
      'is cut',
      (kept) => {
        const path = join(folder, `entries-${kept.revision}.jsonl`);
        writeFileSync(path, readFileSync(path).subarray(0, 40));
      },
    ],
  ])('counts as lost when it %s', async (_, damage) => {
    const kept = await keep(folder, catalog('a', 'b'), head, []);
    damage(kept);
    expect(await readEntries(folder, kept)).toBeUndefined();
    const again = await keep(folder, catalog('a', 'b'), head, []);
    expect(await readEntries(folder, again)).toBeDefined();
  });

  test('counts as lost when its head is no JSON, or of another format', async () => {
    await keep(folder, catalog('a'), head, []);
    for (const text of ['{', '{"format":2,"revision":"x"}', 'null']) {
      writeFileSync(join(folder, 'list.json'), text);
      expect(await readKept(folder)).toBeUndefined();
    }
  });
});
