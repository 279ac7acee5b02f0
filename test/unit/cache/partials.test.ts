import { existsSync, readdirSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { PartialRecord } from '../../../src/cache/cache.ts';
import { PARTIAL_KEPT_MS } from '../../../src/cache/partials.ts';
import { BLOCK, content, type HeldClock, opened, reasonOf, temporaryFolder, turn } from './fixture.ts';

const DAY = 24 * 3600 * 1000;
const SOURCE = 'http://origin.example/a.qcow2';

async function started(options: { directory?: string; clock?: HeldClock } = {}) {
  const all = await opened(
    { directory: options.directory ?? temporaryFolder(), quotaBytes: 10 * BLOCK },
    options.clock,
  );
  return all;
}

describe('the journal of partials', () => {
  it('keeps generation, validators, source and watermark over a restart', async () => {
    const { cache, directory } = await started();
    const record = await cache.newPartial('k', SOURCE, { etag: '"1"', totalBytes: 5 });
    writeFileSync(record.path, content('part', 2));
    cache.recordWatermark('k', record.generation, BLOCK);
    await cache.close();

    const { cache: again } = await started({ directory });
    expect(again.partial('k')).toEqual({
      key: 'k',
      generation: record.generation,
      path: record.path,
      source: SOURCE,
      validators: { etag: '"1"', totalBytes: 5 },
      watermark: BLOCK,
    });
    expect(statSync(record.path).size).toBe(2 * BLOCK);
  });

  it('takes any text as a key', async () => {
    const { cache, directory } = await started();
    const keys = ['../../../etc', 'https://a/b?c=d', 'é'.repeat(5000), ''];
    for (const key of keys) {
      const record = await cache.newPartial(key, SOURCE, {});
      writeFileSync(record.path, 'x');
    }
    expect(new Set(keys.map((key) => cache.partial(key)?.path)).size).toBe(keys.length);
    expect(readdirSync(`${directory}/partial`)).toHaveLength(keys.length);
  });

  it('never uses the number of a generation twice, not even after a restart or a drop', async () => {
    const { cache, directory } = await started();
    const first = await cache.newPartial('k', SOURCE, {});
    writeFileSync(first.path, 'one');
    const second = await cache.newPartial('k', SOURCE, {});
    expect(second.generation).toBeGreaterThan(first.generation);
    expect(existsSync(first.path)).toBe(false);
    await cache.dropPartial('k');
    await cache.close();
    const { cache: again } = await started({ directory });
    const third = await again.newPartial('k', SOURCE, {});
    expect(third.generation).toBeGreaterThan(second.generation);
  });

  it('takes the number that the writer has chosen, and refuses an older one', async () => {
    const { cache } = await started();
    const { directory, nextGeneration } = await cache.partialDirectory('k');
    expect(statSync(directory).mode & 0o777).toBe(0o700);
    // The writer makes its file before it is journalled.
    writeFileSync(`${directory}/${nextGeneration + 3}.part`, 'x');
    const record = await cache.newPartial('k', SOURCE, {}, nextGeneration + 3);
    expect(record.path).toBe(`${directory}/${nextGeneration + 3}.part`);
    expect(existsSync(record.path)).toBe(true);
    expect((await cache.partialDirectory('k')).nextGeneration).toBe(nextGeneration + 4);
    expect(await reasonOf(cache.newPartial('k', SOURCE, {}, nextGeneration))).toBe('InternalError');
  });

  it('ignores late words of an older generation, and steps back', async () => {
    const { cache } = await started();
    const first = await cache.newPartial('k', SOURCE, {});
    cache.recordWatermark('k', first.generation, 100);
    cache.recordWatermark('k', first.generation, 50);
    expect(cache.partial('k')?.watermark).toBe(100);
    const second = await cache.newPartial('k', SOURCE, {});
    cache.recordWatermark('k', first.generation, 200);
    expect(cache.partial('k')?.watermark).toBe(0);
    cache.recordWatermark('k', second.generation, 7);
    expect(cache.partial('k')?.watermark).toBe(7);
  });

  it('drops, at start, a partial that is missing or shorter than its watermark, and files that no row names', async () => {
    const { cache, directory } = await started();
    const paths: Record<string, string> = {};
    for (const key of ['good', 'short', 'missing']) {
      const record = await cache.newPartial(key, SOURCE, {});
      paths[key] = record.path;
      writeFileSync(record.path, content(key));
      cache.recordWatermark(key, record.generation, BLOCK);
    }
    const { directory: unknown } = await cache.partialDirectory('never journalled');
    writeFileSync(`${unknown}/1.part`, 'x');
    writeFileSync(`${paths['good']}.old`, 'x');
    await cache.close();
    truncateSync(paths['short'] ?? '', BLOCK - 1);
    truncateSync(paths['missing'] ?? '', 0);

    const { cache: again, log } = await started({ directory });
    expect(again.partial('good')?.watermark).toBe(BLOCK);
    expect(again.partial('short')).toBeUndefined();
    expect(again.partial('missing')).toBeUndefined();
    expect(log.messages('warn')).toHaveLength(2);
    const left = readdirSync(`${directory}/partial`, { recursive: true, withFileTypes: true }).filter((entry) =>
      entry.isFile(),
    );
    expect(left.map((entry) => `${entry.parentPath}/${entry.name}`)).toEqual([paths['good']]);
  });

  it('removes, at start and once a day, what got no byte for 7 days, but not what is being written', async () => {
    const { cache, clock } = await started();
    const records: PartialRecord[] = [];
    for (const key of ['old', 'written', 'growing']) {
      const record = await cache.newPartial(key, SOURCE, {});
      writeFileSync(record.path, content(key));
      records.push(record);
    }
    await cache.reserve(2 * BLOCK, 'job', 'written');
    for (let days = 0; days * DAY <= PARTIAL_KEPT_MS; days += 1) {
      expect(cache.partial('old')).toBeDefined();
      clock.advance(DAY);
      cache.recordWatermark('growing', records[2]?.generation ?? 0, days + 1);
      await turn();
    }
    await expect.poll(() => existsSync(records[0]?.path ?? '')).toBe(false);
    expect(cache.partial('old')).toBeUndefined();
    expect(cache.partial('written')).toBeDefined();
    expect(cache.partial('growing')).toBeDefined();
  });

  it('removes at start what grew old while nothing ran', async () => {
    const { cache, clock, directory } = await started();
    const record = await cache.newPartial('old', SOURCE, {});
    writeFileSync(record.path, content('old'));
    await cache.close();
    clock.advance(PARTIAL_KEPT_MS + 1);
    const { cache: again } = await started({ directory, clock });
    expect(again.partial('old')).toBeUndefined();
    expect(existsSync(record.path)).toBe(false);
  });

  it('empties scratch at start', async () => {
    const { cache, directory } = await started();
    writeFileSync(cache.scratch('.raw'), 'x');
    await cache.close();
    await started({ directory });
    expect(readdirSync(`${directory}/scratch`)).toEqual([]);
  });

  it('names no file outside scratch', async () => {
    const { cache } = await started();
    expect(() => cache.scratch('/../../x')).toThrow('not the end of a file name');
  });
});

describe('space of partials', () => {
  it('is part of the reservation that they are written in, then of nothing else’s room', async () => {
    const { cache } = await started();
    const record = await cache.newPartial('k', SOURCE, {});
    const held = await cache.reserve(6 * BLOCK, 'job', 'k');
    writeFileSync(record.path, content('part', 4));
    expect(cache.stats()).toMatchObject({ reservedBytes: 6 * BLOCK, partialBytes: 0 });
    await (await cache.reserve(4 * BLOCK, 'other')).resize(0);
    held.release();
    expect(cache.stats()).toMatchObject({ reservedBytes: 0, partialBytes: 4 * BLOCK });
    // Resumed: the four blocks are part of the ten.
    const resumed = await cache.reserve(10 * BLOCK, 'job', 'k');
    expect(existsSync(record.path)).toBe(true);
    resumed.release();
  });

  it('is given up for others when no blob is left to evict', async () => {
    const { cache } = await started();
    const record = await cache.newPartial('k', SOURCE, {});
    writeFileSync(record.path, content('part', 4));
    await cache.reserve(7 * BLOCK, 'other');
    expect(cache.partial('k')).toBeUndefined();
    expect(existsSync(record.path)).toBe(false);
  });

  it('moves into the blobs when the partial is admitted', async () => {
    const { cache } = await started();
    const record = await cache.newPartial('k', SOURCE, {});
    const held = await cache.reserve(6 * BLOCK, 'job', 'k');
    const bytes = content('whole', 4);
    writeFileSync(record.path, bytes);
    const { createHash } = await import('node:crypto');
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    await cache.admit(record.path, sha256, { digests: {}, size: bytes.length, fetchedAt: '' }, 'public');
    expect(cache.stats()).toMatchObject({ bytes: 4 * BLOCK, reservedBytes: 2 * BLOCK, partialBytes: 0 });
    held.release();
    expect(cache.stats()).toMatchObject({ bytes: 4 * BLOCK, reservedBytes: 0 });
  });
});
