import { constants } from 'node:fs';
import { type FileHandle, open, realpath } from 'node:fs/promises';
import { join, sep } from 'node:path';
import { Failure } from '../../api/failure.ts';
import type { Fetch, FileSourceSpec } from '../source.ts';

const BLOCK_BYTES = 1024 * 1024;

/**
 * Reads a regular file below a root that the operator configured. Symbolic links may point anywhere below the same root; what
 * counts is the file that was opened in the end, so that a link exchanged between check and use gets nowhere.
 */
export const fetchFile: Fetch<FileSourceSpec> = async (spec, sink, signal) => {
  const source = `file:${spec.path}`;
  const handle = await openBelow(spec, source);
  try {
    const before = await handle.stat({ bigint: true });
    const etag = `"${before.ino}-${before.size}-${before.mtimeNs}"`;
    const size = Number(before.size);
    const { resume } = sink;
    const offset = resume?.source === source && resume.validators.etag === etag ? resume.offset : 0;
    await sink.begin({ source, validators: { etag, totalBytes: size }, offset });
    let block = Buffer.allocUnsafeSlow(BLOCK_BYTES);
    for (let position = offset; position < size; ) {
      if (signal.aborted) throw new Failure('Aborted', 'stopped');
      const { bytesRead } = await handle.read(block, 0, Math.min(BLOCK_BYTES, size - position), position);
      if (bytesRead === 0) throw new Failure('SourceChanged', `${source}: the file became shorter while it was read`);
      const memory = await sink.write(position, block.subarray(0, bytesRead));
      if (memory === 'Lent') block = Buffer.allocUnsafeSlow(BLOCK_BYTES);
      position += bytesRead;
    }
    const after = await handle.stat({ bigint: true });
    if (after.size !== before.size || after.mtimeNs !== before.mtimeNs) {
      throw new Failure('SourceChanged', `${source}: the file was changed while it was read`);
    }
  } finally {
    await handle.close();
  }
};

async function openBelow({ root, path }: FileSourceSpec, source: string): Promise<FileHandle> {
  const parts = path.split('/');
  if (path === '' || path.includes('\0') || path.startsWith('/') || parts.includes('..')) {
    throw new Failure('SourceForbidden', `${source}: the path must be relative to its root, without ..`);
  }
  let handle: FileHandle | undefined;
  try {
    const base = await realpath(root);
    // O_NONBLOCK: opening a FIFO must not wait for its writer.
    handle = await open(
      await realpath(join(base, path)),
      constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK,
    );
    const opened = await realpath(`/proc/self/fd/${handle.fd}`);
    if (!opened.startsWith(base.endsWith(sep) ? base : base + sep)) {
      throw new Failure('SourceForbidden', `${source}: a link leads out of the root`);
    }
    if (!(await handle.stat()).isFile()) throw new Failure('SourceForbidden', `${source}: not a regular file`);
    return handle;
  } catch (error) {
    await handle?.close();
    throw fileFailure(error, source);
  }
}

function fileFailure(error: unknown, source: string): Failure {
  if (error instanceof Failure) return error;
  switch ((error as NodeJS.ErrnoException).code ?? '') {
    case 'ENOENT':
    case 'ENOTDIR':
      return new Failure('NotFound', `${source}: there is no such file below its root`, { cause: error });
    case 'EACCES':
    case 'EPERM':
      return new Failure('Forbidden', `${source}: the controller may not read this file; check its owner and mode`, {
        cause: error,
      });
    case 'ELOOP':
    case 'ENXIO':
      return new Failure('SourceForbidden', `${source}: not a regular file`, { cause: error });
    default:
      return Failure.from(error);
  }
}
