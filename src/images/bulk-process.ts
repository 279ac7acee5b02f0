import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import type { Readable } from 'node:stream';
import { Failure } from '../api/failure.ts';
import type { BulkJob, BulkMessage } from './bulk.ts';
import { gunzip } from './gunzip.ts';
import { CHUNK_BYTES, SparseWriter } from './sparse-writer.ts';
import { findTarMember, type Segment } from './tar.ts';
import { complaint, runTool } from '../programs/run.ts';
import { fileWindow } from './window.ts';
import { createToolbox } from '../programs/toolbox.ts';

/** The program of the child process: one job as its argument, JSON lines as its answer. */

const PROGRESS_BYTES = 16 * 2 ** 20;
const XZ_THREADS = Math.min(4, availableParallelism());

const DECOMPRESSORS = {
  Xz: {
    tool: 'xz',
    args: [
      '-dc',
      '-q',
      '--format=xz',
      `-T${XZ_THREADS}`,
      '--memlimit-decompress=2GiB',
      '--memlimit-mt-decompress=1GiB',
    ],
  },
  // -M also sets the largest window (as --long=31 does); without it frames made with --long are refused.
  Zstd: { tool: 'zstd', args: ['-dc', '-q', '--long=31', '-M2048MB'] },
  Bzip2: { tool: 'bzip2', args: ['-dc'] },
} as const;

const job = JSON.parse(process.argv[2] ?? '{}') as BulkJob;
const handle = await open(job.from, 'r');
try {
  const inputBytes = (await handle.stat()).size;
  const output = job.to === undefined ? undefined : openSync(job.to, 'r+');
  const writer = new SparseWriter(output, job.maxOutputBytes, job.digests);
  await readInto(writer, inputBytes, reporter(writer, inputBytes));
  const produced = writer.finish();
  if (output !== undefined) closeSync(output);
  say({ produced });
} catch (error) {
  say({ failure: toFailure(error).toPlain() });
} finally {
  await handle.close();
}

type Report = (consumed: number) => void;

async function readInto(writer: SparseWriter, inputBytes: number, report: Report): Promise<void> {
  const { read } = job;
  if ('tarMember' in read) {
    const { segments, size } = await findTarMember(fileWindow(handle, inputBytes), read.tarMember);
    copySegments(segments, size, writer, report);
  } else if ('span' in read) {
    copySegments([{ offset: read.span.offset, length: read.span.size, at: 0 }], read.span.size, writer, report);
  } else if (read.compression === 'None') {
    copySegments([{ offset: 0, length: inputBytes, at: 0 }], inputBytes, writer, report);
  } else if (read.compression === 'Gzip') {
    await gunzip(handle.fd, inputBytes, (bytes, consumed) => {
      writer.write(bytes);
      report(consumed);
    });
  } else {
    await runDecompressor(read.compression, writer, report);
  }
}

async function runDecompressor(compression: keyof typeof DECOMPRESSORS, writer: SparseWriter, report: Report) {
  const { tool, args } = DECOMPRESSORS[compression];
  const consume = async (out: Readable) => {
    for await (const chunk of out as AsyncIterable<Buffer>) {
      writer.write(chunk);
      report(-1);
    }
  };
  const exit = await runTool(
    createToolbox(job.tools),
    { tool, args, limits: job.limits, cwd: '/', stdin: handle.fd, consume, group: 'Inherited' },
    new AbortController().signal,
  );
  const words = complaint(exit);
  if (/memory usage limit|requires? too much memory|window size larger/i.test(words)) {
    throw new Failure(
      'NotSupported',
      `the ${tool} file needs more memory to be unpacked than is allowed here (2 GiB): compress it with a smaller dictionary or window`,
    );
  }
  // bzip2 ends with code 0 after garbage, and only says so.
  if (exit.code !== 0 || /trailing garbage/i.test(words)) {
    throw new Failure('CorruptImage', `the ${tool} file is damaged, cut short or followed by other data (${words})`);
  }
}

function copySegments(segments: readonly Segment[], size: number, writer: SparseWriter, report: Report) {
  const chunk = Buffer.alloc(CHUNK_BYTES);
  for (const { offset, length, at } of segments) {
    writer.skip(at - writer.size);
    for (let done = 0; done < length; ) {
      const read = readSync(handle.fd, chunk, 0, Math.min(CHUNK_BYTES, length - done), offset + done);
      if (read === 0)
        throw new Failure('CorruptImage', `the file ends at byte ${offset + done}, in the middle of its data`);
      writer.write(chunk.subarray(0, read));
      done += read;
      report(offset + done);
    }
  }
  writer.skip(size - writer.size);
}

/** Tells how many bytes of the input are read, each 16 MiB of output (so a bomb cannot flood the parent with lines). */
function reporter(writer: SparseWriter, inputBytes: number): Report {
  let next = PROGRESS_BYTES;
  return (consumed: number) => {
    if (writer.size < next) return;
    next = writer.size + PROGRESS_BYTES;
    say({ progress: [consumed >= 0 ? consumed : inputPosition(), inputBytes] });
  };
}

/** A decompressor reads the very descriptor that we opened: the kernel tells its position (proc(5), fdinfo). */
function inputPosition(): number {
  try {
    return Number(/^pos:\s*(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${handle.fd}`, 'latin1'))?.[1] ?? 0);
  } catch {
    return 0;
  }
}

function toFailure(error: unknown): Failure {
  if ((error as NodeJS.ErrnoException).code === 'EFBIG') {
    return new Failure('TooLarge', `the unpacked image has more than the ${job.maxOutputBytes} bytes that it may have`);
  }
  return Failure.from(error);
}

function say(message: BulkMessage): void {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}
