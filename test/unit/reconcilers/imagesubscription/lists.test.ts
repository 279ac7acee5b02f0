import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { keep } from '../../../../src/catalogs/kept.ts';
import { KeptLists } from '../../../../src/reconcilers/imagesubscription/lists.ts';
import { entry, list } from './entries.ts';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'lists-'));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

const head = { warnings: [], url: 'https://lists.example.org/image.list', acceptedAt: '2026-01-01T00:00:00Z' };
const accepted = (lists: KeptLists, uid: string, ...ids: string[]) =>
  keep(
    lists.folder(uid),
    { list: list(), entries: ids.map((id) => entry({ id })), skipped: [], warnings: [] },
    head,
    [],
  );

describe('the accepted lists', () => {
  test('are found again after a start, and no longer once they are forgotten', async () => {
    const kept = await accepted(new KeptLists(root), 'uid', 'a');
    const lists = new KeptLists(root);
    expect(await lists.head('uid')).toEqual(kept);
    expect((await lists.entries('uid'))?.entries.map(({ id }) => id)).toEqual(['a']);
    expect(await lists.head('other')).toBeUndefined();
    await lists.forget('uid');
    expect(await lists.head('uid')).toBeUndefined();
    expect(existsSync(lists.folder('uid'))).toBe(false);
  });

  test('give the entries of the newest, from memory as long as that is the one', async () => {
    const lists = new KeptLists(root);
    lists.set('uid', await accepted(lists, 'uid', 'a'));
    const first = await lists.entries('uid');
    expect(await lists.entries('uid')).toBe(first);
    lists.set('uid', await accepted(lists, 'uid', 'a', 'b'));
    expect((await lists.entries('uid'))?.entries).toHaveLength(2);
  });

  test('are lost with their entries, so that they are read again', async () => {
    const lists = new KeptLists(root);
    lists.set('uid', await accepted(lists, 'uid', 'a'));
    rmSync(lists.folder('uid'), { recursive: true });
    expect(await lists.entries('uid')).toBeUndefined();
    expect(await lists.head('uid')).toBeUndefined();
  });

  test('are kept below one folder, whatever a uid looks like', () => {
    expect(join(new KeptLists(root).folder('../../etc'), '..')).toBe(root);
  });

  test('of which too much is in memory are read from the disk again, few as they are', async () => {
    const lists = new KeptLists(root, 1000, 700);
    for (const uid of ['one', 'two']) lists.set(uid, await accepted(lists, uid, 'a'));
    const first = await lists.entries('one');
    expect(await lists.entries('one')).toBe(first);
    await lists.entries('two');
    expect(await lists.entries('one')).not.toBe(first);
  });

  test('of which too many are in memory are read from the disk again', async () => {
    const lists = new KeptLists(root, 3);
    for (const uid of ['one', 'two']) lists.set(uid, await accepted(lists, uid, 'a', 'b'));
    const first = await lists.entries('one');
    const second = await lists.entries('two');
    expect(await lists.entries('two')).toBe(second);
    const again = await lists.entries('one');
    expect(again).toEqual(first);
    expect(again).not.toBe(first);
  });
});
