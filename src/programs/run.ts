import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Readable } from 'node:stream';
import { Failure } from '../api/failure.ts';
import { printable } from '../api/printable.ts';
import { missing, type Toolbox, type ToolName } from './toolbox.ts';

/**
 * The one place that starts programs for a moment's work. Each runs under prlimit (memory, CPU time, file size, no core dump), without
 * our environment, with an argument vector and never a shell, in a process group of its own, and dies with this process (a SIGKILL
 * here would else leave qemu-img writing into a file that nobody waits for).
 */
export interface ToolRun {
  /** A tool of the toolbox, or this very Node with a script of ours. */
  tool: ToolName | 'node';
  args: readonly string[];
  limits: ProcessLimits;
  /** Relative names in hostile files resolve here: an empty private folder. */
  cwd: string;
  /** An open file for the standard input; none by default. */
  stdin?: number;
  /** Reads the standard output to its end; a rejection stops the program. Without it the output is discarded. */
  consume?: (out: Readable) => Promise<void>;
  /** `Inherited` for a program started by our own child process: who stops the child's group stops it too. */
  group?: 'Own' | 'Inherited';
  /** Wall-clock bound for short looks; none by default, long work ends by its CPU limit or the signal. */
  timeoutMs?: number;
}

export interface ProcessLimits {
  addressSpaceBytes: number;
  cpuSeconds: number;
  fileSizeBytes: number;
}

export interface ToolExit {
  code: number;
  /** The last 4 KiB, one line, printable. */
  stderr: string;
}

/**
 * glibc reserves 64 MiB of addresses for the heap of each thread, and as much as the stack limit for its stack: with qemu's
 * pool of threads a conversion on a busy machine passed 1 GiB, of which it used 40 MiB. So: one heap, and small stacks.
 */
const ENVIRONMENT = { MALLOC_ARENA_MAX: '1' };
const STACK_BYTES = 2 * 2 ** 20;
const GRACE_MS = 2000;
const STDERR_BYTES = 4096;

/**
 * Resolves with any exit code; what that means is the caller's to know. Resolves or rejects only when the program and all that
 * write where it does are gone; what else it started by this function, the kernel kills with it.
 * @throws Failure Aborted | Timeout | ToolMissing | ResourceLimit | DiskFull | ToolFailed (killed by a signal), or what `consume` threw
 */
export async function runTool(toolbox: Toolbox, run: ToolRun, signal: AbortSignal): Promise<ToolExit> {
  if (signal.aborted) throw new Failure('Aborted', `${run.tool} was not started: stopped`);
  const [command, ...args] = await commandLine(toolbox, run);
  const own = run.group !== 'Inherited';
  const child = spawn(command, args, {
    cwd: run.cwd,
    env: run.tool === 'node' ? {} : ENVIRONMENT,
    detached: own,
    stdio: [run.stdin ?? 'ignore', run.consume === undefined ? 'ignore' : 'pipe', 'pipe'],
  });
  const stop = stopper(child, own);
  let stopped: Failure | undefined;
  const abort = () => {
    stopped ??= new Failure('Aborted', `${run.tool} was stopped`);
    stop();
  };
  const timer =
    run.timeoutMs === undefined
      ? undefined
      : setTimeout(() => {
          stopped ??= new Failure('Timeout', `${run.tool} did not end within ${(run.timeoutMs ?? 0) / 1000} s`);
          stop();
        }, run.timeoutMs);
  signal.addEventListener('abort', abort, { once: true });
  try {
    const closed = once(child, 'close') as Promise<[number | null, NodeJS.Signals | null]>;
    const stderr = keepTail(child.stderr);
    let consumerFailure: { error: unknown } | undefined;
    const consumed = consumeOutput(child, run).catch((error: unknown) => {
      consumerFailure = { error };
      stop();
      child.stdout?.resume();
    });
    const [code, killedBy] = await closed.catch((error: unknown) => {
      throw spawnFailure(run, error);
    });
    await consumed;
    if (stopped !== undefined) throw stopped;
    const text = printable(stderr(), STDERR_BYTES);
    // A reader that gave up makes the program die of a closed pipe: its reason is the cause.
    if (consumerFailure !== undefined) throw consumerFailure.error;
    const death = explainDeath(run, code, killedBy, text);
    if (death !== undefined) throw death;
    return { code: code ?? 0, stderr: text };
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', abort);
    stop.settled();
  }
}

/** Collects the output, of at most `limit` bytes, into `chunks`. */
export function collect(chunks: Buffer[], limit: number): (out: Readable) => Promise<void> {
  return async (out) => {
    let size = 0;
    for await (const chunk of out as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > limit) throw new Failure('ResourceLimit', `a program's answer passed ${limit} bytes`);
      chunks.push(chunk);
    }
  };
}

/** First words of a program's complaint, without the paths of this machine. */
export function complaint(exit: ToolExit, ...hide: string[]): string {
  const text = hide.reduce((rest, path) => rest.replaceAll(path, 'the image'), exit.stderr);
  return text === '' ? `exit code ${exit.code}` : printable(text, 300);
}

async function commandLine(toolbox: Toolbox, run: ToolRun): Promise<[string, ...string[]]> {
  const { addressSpaceBytes, cpuSeconds, fileSizeBytes } = run.limits;
  const [prlimit, setpriv, program] = await Promise.all([
    toolbox.locate('prlimit'),
    toolbox.locate('setpriv'),
    run.tool === 'node' ? process.execPath : toolbox.locate(run.tool),
  ]);
  // SIGXCPU at the soft limit tells what happened; SIGKILL follows if it is ignored.
  const limits = [
    `--as=${Math.floor(addressSpaceBytes)}`,
    `--cpu=${Math.ceil(cpuSeconds)}:${Math.ceil(cpuSeconds) + 5}`,
    `--fsize=${Math.floor(fileSizeBytes)}`,
    '--core=0',
    // V8 counts on the usual stack.
    ...(run.tool === 'node' ? [] : [`--stack=${STACK_BYTES}`]),
  ];
  return [prlimit, ...limits, '--', setpriv, '--pdeathsig', 'KILL', '--no-new-privs', '--', program, ...run.args];
}

/** SIGTERM, and SIGKILL after a grace, to the whole group: a decompressor started by our child must not outlive it. */
function stopper(child: ChildProcess, own: boolean) {
  let timer: NodeJS.Timeout | undefined;
  const send = (name: NodeJS.Signals) => {
    if (child.pid === undefined) return;
    try {
      process.kill(own ? -child.pid : child.pid, name);
    } catch {
      // ESRCH: gone already.
    }
  };
  const stop = () => {
    if (timer !== undefined) return;
    send('SIGTERM');
    timer = setTimeout(() => send('SIGKILL'), GRACE_MS);
  };
  stop.settled = () => clearTimeout(timer);
  return stop;
}

async function consumeOutput(child: ChildProcess, run: ToolRun): Promise<void> {
  if (run.consume === undefined || child.stdout === null) return;
  await run.consume(child.stdout);
}

function keepTail(stream: Readable | null): () => string {
  let tail = Buffer.alloc(0);
  stream?.on('data', (chunk: Buffer) => {
    const all = Buffer.concat([tail, chunk]);
    tail = all.subarray(Math.max(0, all.length - STDERR_BYTES));
  });
  return () => tail.toString('utf8');
}

function explainDeath(
  run: ToolRun,
  code: number | null,
  killedBy: NodeJS.Signals | null,
  stderr: string,
): Failure | undefined {
  const { tool, limits } = run;
  if (killedBy === 'SIGXCPU')
    return new Failure('ResourceLimit', `${tool} used up its ${limits.cpuSeconds} s of CPU time`);
  if (killedBy === 'SIGXFSZ' || /File too large/i.test(stderr)) {
    return new Failure(
      'ResourceLimit',
      `${tool} wanted to write more than the ${limits.fileSizeBytes} bytes set aside`,
    );
  }
  if (killedBy === 'SIGKILL')
    return new Failure('ResourceLimit', `${tool} was killed: its CPU time or the machine's memory ran out`);
  // glib ends with SIGABRT or SIGTRAP when it gets no memory; qemu-img convert does so below 256 MiB of address space.
  const noMemory =
    /Cannot allocate memory|failed to allocate|out of memory|not enough memory|Resource temporarily unavailable/i;
  if (
    killedBy === 'SIGABRT' ||
    killedBy === 'SIGTRAP' ||
    ((killedBy !== null || code !== 0) && noMemory.test(stderr))
  ) {
    return new Failure(
      'ResourceLimit',
      `${tool} needs more than its ${Math.round(limits.addressSpaceBytes / 2 ** 20)} MiB of memory`,
    );
  }
  if (code !== 0 && /No space left on device|Disk quota exceeded/i.test(stderr)) {
    return new Failure(
      'DiskFull',
      `the disk became full while ${tool} wrote: free space on the volume, or give it more`,
    );
  }
  if (killedBy !== null) return new Failure('ToolFailed', `${tool} died by ${killedBy}`);
  if (code === 127 && tool !== 'node') return missing(tool);
  return undefined;
}

function spawnFailure(run: ToolRun, error: unknown): Failure {
  const code = (error as NodeJS.ErrnoException).code;
  if (code === 'EAGAIN' || code === 'ENOMEM') {
    return new Failure('ResourceLimit', `the machine has no room for another process (${code})`, { cause: error });
  }
  if (code === 'ENOENT')
    return new Failure('ToolMissing', 'prlimit cannot be started: apt-get install util-linux', { cause: error });
  return new Failure('ToolFailed', `${run.tool} could not be started (${code ?? 'unknown error'})`, { cause: error });
}
