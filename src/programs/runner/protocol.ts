import { z } from 'zod';
import { Failure, REASONS, type Reason } from '../../api/failure.ts';

/**
 * How the program and its tool runner speak, over a Unix socket. One connection is one job. The program writes one line of JSON, the
 * request; the runner answers with lines: progress, and at last a result or a failure. An empty line says that the runner is alive.
 * Who gives a job up ends its side of the connection; the runner then ends the job's programs, says so, and closes.
 *
 * Files do not cross: they are lent in a folder that both see, and a request names them (`loans.ts`).
 */
export interface Job<Input, Output> {
  readonly name: string;
  readonly input: z.ZodType<Input>;
  /** The runner has read hostile bytes, so what it says is judged as if they had said it. */
  readonly output: z.ZodType<Output>;
}

/** Where a tool runner is. */
export interface RunnerPlace {
  /** Path of its socket. */
  readonly socket: string;
  /** The folder of lent files, as this process sees it. */
  readonly files: string;
  /** How long it may be silent before it is taken for dead, in milliseconds; default: a minute. */
  readonly silenceMs?: number;
}

/** A lent file's name; where it lies is told by what it is for. */
export const LoanName = z.uuid();

/** Names and numbers; a member of an archive and what a program complains of are the longest of them. */
export const MAX_LINE = 64 * 1024;
/** How often the runner speaks at least. */
export const HEARTBEAT_MS = 10_000;
/** More often nobody looks. */
export const PROGRESS_MS = 250;

const Bytes = z.number().int().nonnegative();

export const Request = z.strictObject({ job: z.string().max(32), input: z.unknown() });

export const Answer = z.union([
  z.strictObject({ progress: z.union([z.tuple([Bytes]), z.tuple([Bytes, Bytes])]) }),
  z.strictObject({ result: z.unknown() }),
  z.strictObject({
    failure: z.strictObject({
      reason: z.enum(Object.keys(REASONS) as [Reason, ...Reason[]]),
      message: z.string().max(4096),
    }),
  }),
]);
export type Answer = z.infer<typeof Answer>;

export function unavailable(fact: string, cause?: unknown): Failure {
  return new Failure(
    'ToolRunnerUnavailable',
    `${fact}; it is tried again. See that it runs: the container "tools" of the controller's pod, or "imageproxy tool-runner"`,
    { cause },
  );
}

/** Cuts a stream into lines. @throws Failure ToolFailed for a line that is longer than any honest one */
export async function* linesOf(stream: AsyncIterable<Buffer>): AsyncGenerator<string> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of stream) {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    for (let end = rest.indexOf('\n'); end !== -1; end = rest.indexOf('\n')) {
      if (end > MAX_LINE) break;
      yield rest.toString('utf8', 0, end);
      rest = rest.subarray(end + 1);
    }
    if (rest.length > MAX_LINE) throw new Failure('ToolFailed', `a line of more than ${MAX_LINE} bytes came`);
  }
}

/** @throws Failure ToolFailed */
export function parseLine<T>(line: string, schema: z.ZodType<T>): T {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    value = undefined;
  }
  return judged(value, schema);
}

/** @throws Failure ToolFailed */
export function judged<T>(value: unknown, schema: z.ZodType<T>): T {
  const found = schema.safeParse(value);
  if (found.success) return found.data;
  throw new Failure(
    'ToolFailed',
    'the program and its tool runner do not understand each other: run the same version of both',
    {
      cause: found.error,
    },
  );
}
