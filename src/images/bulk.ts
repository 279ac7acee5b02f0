import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import type { Algorithm } from '../api/digest.ts';
import { Failure, type PlainFailure } from '../api/failure.ts';
import type { Compression } from './format.ts';
import type { Produced, Progress } from './images.ts';
import { complaint, type ProcessLimits, runTool } from '../programs/run.ts';
import { type Toolbox, type ToolPaths } from '../programs/toolbox.ts';

/**
 * Work on all bytes of a file (gunzip, hash, sparse write) is done by `bulk-process.ts`, a Node of its own for the length of one
 * job. Not a worker thread: a child can be limited and killed by the kernel, a fault in zlib on hostile bytes does not take the
 * controllers along, its threads are not the ones that serve this process's file system calls, and its memory is given back.
 */
export interface BulkJob {
  from: string;
  /** An empty file; absent when only digests are wanted. */
  to?: string;
  /** All of the file decompressed, a span of it, or a member of it as a tar archive. */
  read: { compression: Compression } | { span: { offset: number; size: number } } | { tarMember: string };
  maxOutputBytes: number;
  digests: readonly Algorithm[];
  tools: ToolPaths;
  limits: ProcessLimits;
}

/** What the child prints, one JSON object a line. */
export type BulkMessage = { progress: [number, number] } | { produced: Produced } | { failure: PlainFailure };

/** V8 reserves 1.3 GiB of addresses before the first line of a script; the decompressors have a limit of their own. */
const ADDRESS_SPACE_BYTES = 6 * 2 ** 30;
/** zstd --long=31 needs a window of 2 GiB. */
const TOOL_ADDRESS_SPACE_BYTES = 3 * 2 ** 30;
/** The slowest decompressor (bzip2) makes 50 MiB/s. */
const SLOWEST_BYTES_PER_CPU_SECOND = 8 * 2 ** 20;
const MAX_LINE = 64 * 1024;

/** A sibling module, whether these are the sources or a build of them. */
const PROCESS_FILE = fileURLToPath(
  new URL(`./bulk-process${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url),
);

const TOOL_OF = { Xz: 'xz', Zstd: 'zstd', Bzip2: 'bzip2' } as const;

/** Runs one job to its end. `to` is there already; what a failure leaves in it is for its maker to remove. */
export async function runBulk(
  toolbox: Toolbox,
  job: Omit<BulkJob, 'tools' | 'limits'>,
  signal: AbortSignal,
  progress?: Progress,
): Promise<Produced> {
  let outcome: Produced | Failure | undefined;
  const consume = async (out: Readable) => {
    for await (const line of createInterface({ input: out })) {
      const message = parseMessage(line);
      if ('progress' in message) progress?.(...message.progress);
      else if ('produced' in message) outcome = message.produced;
      else outcome = Failure.fromPlain(message.failure);
    }
  };
  const complete = await prepare(toolbox, job);
  const exit = await runTool(
    toolbox,
    {
      tool: 'node',
      args: ['--max-old-space-size=128', PROCESS_FILE, JSON.stringify(complete)],
      limits: { ...complete.limits, addressSpaceBytes: ADDRESS_SPACE_BYTES },
      cwd: '/',
      consume,
    },
    signal,
  );
  if (outcome instanceof Failure) throw outcome;
  if (outcome === undefined)
    throw new Failure('ToolFailed', `unpacking ended without a result: ${complaint(exit, job.from)}`);
  return outcome;
}

/** Reads a file for its digests. @throws Failure TooLarge above `maxBytes` */
export function digestFile(
  toolbox: Toolbox,
  { path, maxBytes, digests }: { path: string; maxBytes: number; digests: readonly Algorithm[] },
  signal: AbortSignal,
): Promise<Produced> {
  const read = { compression: 'None' } as const;
  return runBulk(toolbox, { from: path, read, maxOutputBytes: maxBytes, digests }, signal);
}

async function prepare(toolbox: Toolbox, job: Omit<BulkJob, 'tools' | 'limits'>): Promise<BulkJob> {
  const compression = 'compression' in job.read ? job.read.compression : 'None';
  const tools: ToolPaths = {};
  if (compression === 'Xz' || compression === 'Zstd' || compression === 'Bzip2') {
    const tool = TOOL_OF[compression];
    tools[tool] = await toolbox.locate(tool);
    tools.prlimit = await toolbox.locate('prlimit');
    tools.setpriv = await toolbox.locate('setpriv');
  }
  const cpuSeconds = 600 + job.maxOutputBytes / SLOWEST_BYTES_PER_CPU_SECOND;
  // A little above the bound: the writer refuses first, and says so with more words.
  const fileSizeBytes = job.maxOutputBytes + 2 ** 20;
  return { ...job, tools, limits: { addressSpaceBytes: TOOL_ADDRESS_SPACE_BYTES, cpuSeconds, fileSizeBytes } };
}

/** The child is ours, but it has read hostile bytes: a line is bounded, and anything odd ends the job. */
function parseMessage(line: string): BulkMessage {
  if (line.length <= MAX_LINE && line.startsWith('{') && line.endsWith('}')) return JSON.parse(line) as BulkMessage;
  throw new Failure('InternalError', 'the unpacking process answered with something else than a result');
}
