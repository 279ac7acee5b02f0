import { execFileSync } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { fetchFile } from '../../../src/sources/file/index.ts';
import type { Sink } from '../../../src/sources/source.ts';
import { content, MIB, never } from '../transfers/harness.ts';

const BODY = content(2 * MIB + 5);
let folder: string;
let root: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'file-source-'));
  root = join(folder, 'root');
  mkdirSync(join(root, 'sub'), { recursive: true });
  writeFileSync(join(root, 'sub', 'a.img'), BODY);
  writeFileSync(join(folder, 'secret'), 'hunter2');
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

class MemorySink implements Sink {
  resume: Sink['resume'];
  begun: Parameters<Sink['begin']>[0] | undefined;
  readonly chunks: Buffer[] = [];
  onWrite: () => void = () => {};

  async begin(opened: Parameters<Sink['begin']>[0]): Promise<void> {
    this.begun = opened;
  }

  async write(_offset: number, bytes: Uint8Array): Promise<void> {
    this.chunks.push(Buffer.from(bytes));
    this.onWrite();
  }
}

async function fetch(path: string, sink = new MemorySink()): Promise<MemorySink> {
  await fetchFile({ kind: 'file', root, path }, sink, never);
  return sink;
}
const reason = (name: string) => expect.objectContaining({ reason: name });

describe('a file source', () => {
  it('gives the file below its root, by a name that does not show where the root is', async () => {
    const sink = await fetch('sub/a.img');
    expect(Buffer.concat(sink.chunks).equals(BODY)).toBe(true);
    expect(sink.begun).toMatchObject({ source: 'file:sub/a.img', offset: 0, validators: { totalBytes: BODY.length } });
  });

  it('follows a link that stays below the root', async () => {
    symlinkSync('sub/a.img', join(root, 'latest'));
    expect(Buffer.concat((await fetch('latest')).chunks).equals(BODY)).toBe(true);
  });

  it.each(['../secret', 'sub/../../secret', '/etc/passwd', '', 'a\0b', 'sub/../sub/a.img'])(
    'does not take the path %j',
    async (path) => {
      await expect(fetch(path)).rejects.toEqual(reason('SourceForbidden'));
    },
  );

  it('refuses links that lead out of the root, of a file or of a folder on the way', async () => {
    symlinkSync('../secret', join(root, 'out'));
    symlinkSync(folder, join(root, 'up'));
    symlinkSync('/etc', join(root, 'etc'));
    for (const path of ['out', 'up/secret', 'etc/passwd']) {
      await expect(fetch(path), path).rejects.toEqual(reason('SourceForbidden'));
    }
  });

  it('does not take the neighbour whose name begins like the root', async () => {
    mkdirSync(`${root}-2`);
    writeFileSync(join(`${root}-2`, 'x'), 'x');
    symlinkSync(`${root}-2/x`, join(root, 'x'));
    await expect(fetch('x')).rejects.toEqual(reason('SourceForbidden'));
  });

  it('refuses what is no regular file, and does not wait for the writer of a FIFO', async () => {
    execFileSync('mkfifo', [join(root, 'pipe')]);
    await expect(fetch('pipe')).rejects.toEqual(reason('SourceForbidden'));
    await expect(fetch('sub')).rejects.toEqual(reason('SourceForbidden'));
  });

  it('is NotFound where there is no such file, without naming the root', async () => {
    await expect(fetch('missing')).rejects.toEqual(reason('NotFound'));
    await expect(fetch('sub/a.img/x')).rejects.toEqual(reason('NotFound'));
    await expect(fetch('missing')).rejects.not.toThrow(root);
  });

  it('goes on where an earlier read was cut, if the file is the same', async () => {
    const first = await fetch('sub/a.img');
    const sink = new MemorySink();
    sink.resume = { offset: MIB, validators: first.begun?.validators ?? {}, source: 'file:sub/a.img' };
    await fetch('sub/a.img', sink);
    expect(sink.begun?.offset).toBe(MIB);
    expect(Buffer.concat(sink.chunks).equals(BODY.subarray(MIB))).toBe(true);
    utimesSync(join(root, 'sub', 'a.img'), 1, 1);
    const again = new MemorySink();
    again.resume = sink.resume;
    await fetch('sub/a.img', again);
    expect(again.begun?.offset).toBe(0);
  });

  it('that changes while it is read is SourceChanged', async () => {
    const path = join(root, 'sub', 'a.img');
    const touched = new MemorySink();
    touched.onWrite = () => utimesSync(path, 1, 1);
    await expect(fetch('sub/a.img', touched)).rejects.toEqual(reason('SourceChanged'));
    const cut = new MemorySink();
    cut.onWrite = () => truncateSync(path, 10);
    await expect(fetch('sub/a.img', cut)).rejects.toEqual(reason('SourceChanged'));
    expect(readFileSync(join(folder, 'secret'), 'utf8')).toBe('hunter2');
  });

  it('stops at its signal', async () => {
    const abort = new AbortController();
    const sink = new MemorySink();
    sink.onWrite = () => abort.abort();
    await expect(fetchFile({ kind: 'file', root, path: 'sub/a.img' }, sink, abort.signal)).rejects.toEqual(
      reason('Aborted'),
    );
    expect(sink.chunks.length).toBe(1);
  });
});
