import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { pino } from 'pino';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { IndexFile } from '../../../src/clouds/directory/catalog.ts';
import type { PartRecord } from '../../../src/clouds/directory/record.ts';
import { PartRecords } from '../../../src/clouds/directory/records.ts';
import { Site } from '../../../src/clouds/directory/site.ts';

let path: string;

beforeEach(() => {
  // In memory where the machine has such a place: these tests sync a lot, and what they show does not depend on the disk.
  path = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'imageproxy-records-'));
  mkdirSync(join(path, '.records'));
});
afterEach(() => rmSync(path, { recursive: true, force: true }));

const open = () => new PartRecords(new Site(path, undefined), pino({ level: 'silent' }));

function record(id: string, name: string): PartRecord {
  return {
    id,
    role: 'Disk',
    phase: 'published',
    file: `${id}.raw`,
    format: 'Raw',
    size: 1,
    ownership: { owner: 'o', guid: id, claim: 'c', sourceDigest: 'sha256:0', attempt: 1 },
    registration: {
      name,
      visibility: 'Private',
      members: [],
      protected: false,
      hidden: false,
      tags: [],
      properties: {},
    },
    boot: {},
    createdAt: '2026-01-01T00:00:00.000Z',
  };
}

const namesIn = (records: readonly PartRecord[]) =>
  records.map(({ id, registration }) => `${id}=${registration.name}`).sort();

function onDisk(): string[] {
  const folder = join(path, '.records');
  const names = readdirSync(folder).filter((name) => name.endsWith('.json'));
  return namesIn(names.map((name) => JSON.parse(readFileSync(join(folder, name), 'utf8')) as PartRecord));
}

test('whoever looks sees what any process wrote before, whoever wrote last', async () => {
  const step = fc.record({
    who: fc.nat({ max: 2 }),
    what: fc.constantFrom('write', 'write', 'delete', 'look'),
    id: fc.constantFrom('a', 'b', 'c'),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
      const processes = [open(), open(), open()];
      for (const [index, { who, what, id }] of steps.entries()) {
        const records = processes[who];
        if (records === undefined) throw new Error('nobody');
        await records.whileWriting(async () => {
          if (what === 'write') await records.write(record(id, `${index}`));
          if (what === 'delete') await records.delete(id);
          expect(namesIn(await records.all())).toEqual(onDisk());
        });
        for (const each of processes) expect(namesIn(await each.all())).toEqual(onDisk());
      }
    }),
    { numRuns: 40 },
  );
});

test('while another process writes, nothing that was read is believed later', async () => {
  const [writer, reader] = [open(), open()];
  await writer.whileWriting(async () => {
    await writer.write(record('a', 'first'));
    expect(namesIn(await reader.all())).toEqual(['a=first']);
    await writer.write(record('a', 'second'));
    expect(namesIn(await reader.all())).toEqual(['a=second']);
  });
  expect(namesIn(await reader.all())).toEqual(['a=second']);
});

test('a process that was killed while it wrote leaves no table that others believe', async () => {
  const [reader, killed] = [open(), open()];
  await killed.whileWriting(async () => await killed.write(record('a', 'first')));
  expect(namesIn(await reader.all())).toEqual(['a=first']);
  // It never says that it has done.
  void killed.whileWriting(() => new Promise(() => undefined));
  await expect.poll(() => readFileSync(join(path, '.imageproxy-writer'), 'utf8')).toContain('is writing');
  await killed.write(record('a', 'second'));
  expect(namesIn(await reader.all())).toEqual(['a=second']);
  await reader.whileWriting(async () => expect(namesIn(await reader.all())).toEqual(['a=second']));
});

test('what is written while the table is being read is in it', async () => {
  const [first, records] = [open(), open()];
  await first.whileWriting(async () => {
    for (let index = 0; index < 100; index++) await first.write(record(`r${index}`, 'old'));
  });
  await records.whileWriting(async () => {
    const loading = records.all();
    await records.write(record('r7', 'new'));
    await records.delete('r8');
    await loading;
    expect(namesIn(await records.all())).toEqual(onDisk());
  });
});

test('a record that a person took away is not in the table once it has been looked for', async () => {
  const records = open();
  await records.whileWriting(async () => await records.write(record('a', 'first')));
  expect(namesIn(await records.all())).toEqual(['a=first']);
  rmSync(join(path, '.records', 'a.json'));
  expect(await records.read('a')).toBeUndefined();
  expect(await records.all()).toEqual([]);
});

test('twenty images published at a time write the index twice, and it tells of all of them', async () => {
  const site = new Site(path, undefined);
  const records = open();
  const index = new IndexFile(site, records);
  const inodes = new Set<string>();
  await records.whileWriting(async () => {
    const numbers = Array.from({ length: 20 }, (_, at) => at);
    await Promise.all(numbers.map((at) => records.write(record(`r${at}`, `image ${at}`))));
    await Promise.all(
      numbers.map(async (at) => {
        await index.refresh();
        inodes.add(readFileSync(join(path, 'index.json'), 'utf8'));
        const { images } = JSON.parse(readFileSync(join(path, 'index.json'), 'utf8')) as { images: { id: string }[] };
        expect(images.map(({ id }) => id)).toContain(`r${at}`);
      }),
    );
  });
  expect(inodes.size).toBeLessThanOrEqual(3);
  expect(await index.isCurrent()).toBe(true);
});

test('an index that somebody edited is found again, though the records are the same', async () => {
  const records = open();
  const index = new IndexFile(new Site(path, undefined), records);
  await records.whileWriting(async () => {
    await records.write(record('a', 'first'));
    await index.refresh();
  });
  expect([await index.isCurrent(), await index.isCurrent()]).toEqual([true, true]);
  writeFileSync(join(path, 'index.json'), '{}');
  expect(await index.isCurrent()).toBe(false);
  await index.refresh();
  expect(await index.isCurrent()).toBe(true);
});

test('an index that waits for others to be published with is not taken for one that somebody edited', async () => {
  const records = open();
  const index = new IndexFile(new Site(path, undefined), records);
  await records.whileWriting(async () => {
    await records.write(record('a', 'first'));
    expect(await index.isCurrent()).toBe(true);
    await index.refresh();
  });
  expect(await index.isCurrent()).toBe(true);
  await records.whileWriting(async () => await records.write(record('b', 'forgotten')));
  expect(await index.isCurrent()).toBe(false);
});
