import { once } from 'node:events';
import { chmod, lstat, rm, unlink } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { Failure, type Reason } from '../../api/failure.ts';
import { printable } from '../../api/printable.ts';
import { lentFile, type Side } from './loans.ts';
import {
  type Answer,
  HEARTBEAT_MS,
  type Job,
  judged,
  MAX_LINE,
  parseLine,
  PROGRESS_MS,
  Request,
  type RunnerPlace,
} from './protocol.ts';

/** The controller converts two images at a time, and looks into some more; who opens more than this is somebody else. */
const MAX_JOBS = 64;
/** A connection that asks for nothing is ended. */
const REQUEST_MS = 10_000;

/** What a job may use. */
export interface Work {
  /** Path of a lent file. @throws Failure ToolRunnerUnavailable | InternalError */
  file(side: Side, name: string): Promise<string>;
  progress(bytes: number, totalBytes?: number): void;
  signal: AbortSignal;
}

/** A job that this runner does. */
export interface Served {
  readonly name: string;
  run(input: unknown, work: Work): Promise<unknown>;
}

export function served<Input, Output>(
  job: Job<Input, Output>,
  run: (input: Input, work: Work) => Promise<Output>,
): Served {
  return { name: job.name, run: (input, work) => run(judged(input, job.input), work) };
}

export interface RunnerOptions extends RunnerPlace {
  jobs: readonly Served[];
  /** Folder of the jobs' working folders: emptied before the first of them, and removed after the last. */
  scratch: string;
  log: Record<'debug' | 'info' | 'warn', (fields: object, message: string) => void>;
}

/**
 * Does jobs until the signal fires; then ends their programs, and resolves when all are gone. Nothing is kept between two jobs.
 * @throws Error when the socket cannot be listened on, with the cure
 */
export async function serveTools(options: RunnerOptions, signal: AbortSignal): Promise<void> {
  const { socket: path, files, scratch, log } = options;
  const jobs = new Map(options.jobs.map((job) => [job.name, job]));
  const running = new Set<Promise<void>>();
  const empty = () => rm(scratch, { recursive: true, force: true });
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    const done = attend(socket, { jobs, ready, files, log }, signal).finally(() => running.delete(done));
    running.add(done);
  });
  server.maxConnections = MAX_JOBS;
  // Who has the socket has the folder: before, it may be another runner's, which is at work there.
  const ready = listen(server, path).then(empty);
  await ready;
  server.on('error', (error) => log.warn({ err: error }, 'a connection could not be taken'));
  log.info({ socket: path, files }, 'the tool runner waits for work');
  if (!signal.aborted) await once(signal, 'abort');
  server.close();
  await Promise.all(running);
  await empty();
}

/** A socket that a killed runner has left is taken over; one that somebody answers on is not. */
async function listen(server: Server, path: string): Promise<void> {
  try {
    if (await isAbandoned(path)) await unlink(path);
    server.listen({ path });
    await once(server, 'listening');
    // Who may write to it may have images converted: this user and its group.
    await chmod(path, 0o660);
  } catch (error) {
    server.close();
    const { code, message } = error as NodeJS.ErrnoException;
    throw new Error(
      code === 'EADDRINUSE'
        ? `--socket: another tool runner, or another program, has ${path}: stop it, or name another`
        : `--socket: cannot listen on ${path} (${code ?? message}): name a path of at most 107 bytes in a folder that this user may write to`,
      { cause: error },
    );
  }
}

async function isAbandoned(path: string): Promise<boolean> {
  const facts = await lstat(path).catch(() => undefined);
  if (facts?.isSocket() !== true) return false;
  const probe = connect({ path });
  try {
    await once(probe, 'connect');
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ECONNREFUSED';
  } finally {
    probe.destroy();
  }
}

/** What every connection is served with. */
interface Office {
  jobs: ReadonlyMap<string, Served>;
  ready: Promise<void>;
  files: string;
  log: RunnerOptions['log'];
}

/** One connection, from its request to its answer. Never rejects. */
async function attend(socket: Socket, { jobs, ready, files, log }: Office, stop: AbortSignal): Promise<void> {
  const started = performance.now();
  const gone = new AbortController();
  socket.on('error', () => gone.abort());
  socket.on('close', () => gone.abort());
  const say = (answer: Answer | undefined): void => {
    if (socket.writable) socket.write(answer === undefined ? '\n' : `${JSON.stringify(answer)}\n`);
  };
  const heartbeat = setInterval(() => say(undefined), HEARTBEAT_MS);
  const reports = reporter(say);
  let name: string | undefined;
  let reason: Reason | undefined;
  try {
    const request = parseLine(await requestFrom(socket, gone, stop), Request);
    name = request.job;
    await ready;
    const job = jobs.get(name);
    if (job === undefined) throw new Failure('ToolFailed', `the tool runner knows no job "${printable(name)}"`);
    const work: Work = {
      file: (side, lent) => lentFile(files, side, lent),
      progress: reports.progress,
      signal: AbortSignal.any([gone.signal, stop]),
    };
    const result = await job.run(request.input, work);
    reports.flush();
    say({ result });
  } catch (error) {
    const failure = Failure.from(error);
    reason = failure.reason;
    say({ failure: { reason, message: printable(failure.message, 1000) } });
  } finally {
    clearInterval(heartbeat);
    reports.stop();
    // What is not read by now is wanted by nobody.
    socket.end(() => socket.destroy());
    const milliseconds = Math.round(performance.now() - started);
    log.debug({ job: name, milliseconds, ...(reason === undefined ? {} : { reason }) }, 'a job ended');
  }
}

/** The one line. What comes behind it can only be the end, which gives the job up; anything else cuts the connection. */
async function requestFrom(socket: Socket, gone: AbortController, stop: AbortSignal): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  let text = Buffer.alloc(0);
  let complete = false;
  socket.on('data', (chunk: Buffer) => {
    text = Buffer.concat([text, chunk]);
    const end = text.indexOf('\n');
    if (complete || text.length > MAX_LINE || (end !== -1 && end < text.length - 1)) socket.destroy();
    if (end === -1) return;
    complete = true;
    resolve(text.toString('utf8', 0, end));
  });
  socket.on('end', () => gone.abort());
  const nothing = () => reject(new Failure('Aborted', 'nothing was asked for'));
  const signal = AbortSignal.any([gone.signal, stop, AbortSignal.timeout(REQUEST_MS)]);
  signal.addEventListener('abort', nothing, { once: true });
  try {
    return await promise;
  } finally {
    signal.removeEventListener('abort', nothing);
  }
}

/** Reports of progress, no more often than anybody looks; the last one is always told. */
function reporter(say: (answer: Answer) => void) {
  let latest: [number] | [number, number] | undefined;
  let timer: NodeJS.Timeout | undefined;
  const flush = (): void => {
    if (latest !== undefined) say({ progress: latest });
    latest = undefined;
  };
  const pause = (): void => {
    timer = setTimeout(() => {
      timer = undefined;
      if (latest === undefined) return;
      flush();
      pause();
    }, PROGRESS_MS);
  };
  return {
    flush,
    progress: (bytes: number, totalBytes?: number): void => {
      latest = totalBytes === undefined ? [bytes] : [bytes, totalBytes];
      if (timer !== undefined) return;
      flush();
      pause();
    },
    stop: () => clearTimeout(timer),
  };
}
