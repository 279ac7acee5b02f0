import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { describe, expect, it } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import { openCache } from '../../../src/cache/index.ts';
import {
  admitted,
  BLOCK,
  blobFiles,
  content,
  HeldClock,
  opened,
  reasonOf,
  recordingLog,
  temporaryFolder,
} from './fixture.ts';

function open(directory: string, now = new HeldClock().now) {
  return openCache({ directory, now, log: recordingLog() });
}

describe('opening the cache', () => {
  it('makes its folder, closed to others', async () => {
    const directory = `${temporaryFolder()}/a/cache`;
    await opened({ directory });
    expect(statSync(directory).mode & 0o777).toBe(0o700);
  });

  it('defaults to 80 % of the volume', async () => {
    const cache = await openCache({
      directory: temporaryFolder(),
      now: new HeldClock().now,
      log: recordingLog(),
      statfs: () => ({ bsize: 1024, blocks: 1000, bavail: 10 }),
    });
    expect(cache.stats().quotaBytes).toBe(819_200);
    await cache.close();
  });

  it('is refused to a second one, which is told who has it and what to do', async () => {
    const { directory, cache } = await opened();
    const refusal = await open(directory).catch((error: unknown) => error);
    expect(refusal).toBeInstanceOf(Failure);
    expect((refusal as Failure).reason).toBe('CacheInUse');
    expect((refusal as Failure).message).toMatch(
      new RegExp(`in use by process ${process.pid} on host .+ since 2026-11-21T12:00:00.000Z: stop that one`),
    );
    await cache.close();
    expect(existsSync(`${directory}/holder.json`)).toBe(false);
    await (await open(directory)).close();
  });

  it('finds after a restart what was admitted, in the order of use', async () => {
    const { cache, directory, clock } = await opened({ quotaBytes: 3 * BLOCK });
    const [a, b, c] = [await admitted(cache, 'a'), await admitted(cache, 'b'), await admitted(cache, 'c')];
    await cache.get(a);
    await cache.close();
    const { cache: again } = await opened({ directory, quotaBytes: 3 * BLOCK }, clock);
    expect(again.stats()).toMatchObject({ blobs: 3, bytes: 3 * BLOCK, pinnedBytes: 0, reservedBytes: 0 });
    await again.reserve(BLOCK, 'job');
    expect([a, b, c].map((sha256) => blobFiles(directory).has(sha256))).toEqual([true, false, true]);
  });

  it('comes back below a quota that was made smaller', async () => {
    const { cache, directory } = await opened({ quotaBytes: 3 * BLOCK });
    const [a, b] = [await admitted(cache, 'a'), await admitted(cache, 'b')];
    await cache.close();
    const { cache: again } = await opened({ directory, quotaBytes: BLOCK });
    expect(again.stats()).toMatchObject({ bytes: BLOCK, blobs: 1 });
    expect([a, b].map((sha256) => blobFiles(directory).has(sha256))).toEqual([false, true]);
  });

  it('removes files without a row, and drops rows without a file', async () => {
    const { cache, directory } = await opened();
    const [kept, lost] = [await admitted(cache, 'kept'), await admitted(cache, 'lost')];
    await cache.close();
    rmSync(`${directory}/blobs/sha256/${lost.slice(0, 2)}/${lost}`);
    const stray = 'ab'.repeat(32);
    mkdirSync(`${directory}/blobs/sha256/ab`, { recursive: true });
    writeFileSync(`${directory}/blobs/sha256/ab/${stray}`, 'never proven');
    mkdirSync(`${directory}/blobs/sha256/not-ours/deep`, { recursive: true });

    const { cache: again, log } = await opened({ directory });
    expect([...blobFiles(directory).keys()]).toEqual([kept]);
    expect(readdirSync(`${directory}/blobs/sha256`)).not.toContain('not-ours');
    expect(again.stats()).toMatchObject({ blobs: 1, bytes: BLOCK });
    expect(log.messages('info')[0]).toBe('removed from the cache what an unfinished step had left');
  });

  it('leaves a folder alone that holds another program’s blobs', async () => {
    const directory = temporaryFolder();
    const layer = `${directory}/blobs/sha256/${'a'.repeat(64)}`;
    mkdirSync(`${directory}/blobs/sha256`, { recursive: true });
    writeFileSync(layer, 'an OCI layer');
    const refusal = (await open(directory).catch((error: unknown) => error)) as Failure;
    expect(refusal.reason).toBe('Conflict');
    expect(refusal.message).toContain('name an empty folder');
    expect(readFileSync(layer, 'utf8')).toBe('an OCI layer');
  });

  it('leaves another program’s database alone', async () => {
    const directory = temporaryFolder();
    const db = new DatabaseSync(`${directory}/cache.db`);
    db.exec('create table theirs (a)');
    db.close();
    expect(await reasonOf(open(directory))).toBe('Conflict');
  });

  it('refuses the index of another version, by number', async () => {
    const { cache, directory } = await opened();
    await cache.close();
    const db = new DatabaseSync(`${directory}/cache.db`);
    db.exec('pragma user_version = 99');
    db.close();
    const refusal = (await open(directory).catch((error: unknown) => error)) as Failure;
    expect(refusal.reason).toBe('NotSupported');
    expect(refusal.message).toContain('schema 99');
  });

  it('puts a damaged index aside and starts empty', async () => {
    const { cache, directory } = await opened();
    await admitted(cache, 'a');
    await cache.close();
    writeFileSync(`${directory}/cache.db`, content('rubbish', 4));
    const { cache: again, log } = await opened({ directory });
    expect(log.messages('error')[0]).toContain('put aside');
    expect(readdirSync(directory).some((name) => name.startsWith('cache.db.damaged-'))).toBe(true);
    expect(again.stats()).toMatchObject({ blobs: 0, bytes: 0 });
    expect(blobFiles(directory).size).toBe(0);
    const sha256 = await admitted(again, 'a');
    expect(await again.get(sha256)).toBeDefined();
  });

  it('answers Aborted once it is closed', async () => {
    const { cache } = await opened();
    const held = await cache.reserve(BLOCK, 'job');
    await cache.close();
    await cache.close();
    expect(await reasonOf(cache.find({}, 'public'))).toBe('Aborted');
    expect(await reasonOf(cache.reserve(1, 'job'))).toBe('Aborted');
    expect(await reasonOf(held.resize(1))).toBe('Aborted');
    cache.recordWatermark('k', 1, 1);
  });

  it('finishes an admission that is under way before it lets go of the lock', async () => {
    const { cache, directory } = await opened();
    const admission = admitted(cache, 'a');
    await cache.close();
    const sha256 = await admission;
    const { cache: again } = await opened({ directory });
    expect(await again.get(sha256)).toBeDefined();
  });
});
