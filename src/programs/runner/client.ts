import { connect, type Socket } from 'node:net';
import { Failure } from '../../api/failure.ts';
import { printable } from '../../api/printable.ts';
import { Answer, type Job, judged, linesOf, parseLine, type RunnerPlace, unavailable } from './protocol.ts';

const KiB = 1024;
const SILENCE_MS = 60_000;
/** How long the runner may take to end the programs of a job that was given up. */
const PATIENCE_MS = 10_000;
/** What a job may say in all: an honest one speaks four times a second. */
const WORDS_AT_ONCE = 256 * KiB;
const WORDS_PER_SECOND = KiB;

/**
 * Has the runner do a job, and resolves to its judged result.
 * @throws Failure ToolRunnerUnavailable when it is not there, or ends before the job does; Aborted; what the job fails with
 */
export async function callRunner<Input, Output>(
  { socket: path, silenceMs = SILENCE_MS }: RunnerPlace,
  job: Job<Input, Output>,
  input: Input,
  signal: AbortSignal,
  progress?: (bytes: number, totalBytes?: number) => void,
): Promise<Output> {
  if (signal.aborted) throw new Failure('Aborted', `${job.name} was not begun: stopped`);
  const socket = connect({ path });
  socket.setTimeout(silenceMs, () => socket.destroy(new Error(`silent for ${silenceMs / 1000} s`)));
  const giveUp = abandonment(socket);
  signal.addEventListener('abort', giveUp, { once: true });
  try {
    socket.write(`${JSON.stringify({ job: job.name, input })}\n`);
    return judged(await resultFrom(socket, progress), job.output);
  } catch (error) {
    throw signal.aborted ? new Failure('Aborted', `${job.name} was stopped`) : error;
  } finally {
    signal.removeEventListener('abort', giveUp);
    giveUp.settled();
    socket.destroy();
  }
}

/** Ends our side, and waits for the runner to end the job's programs, within reason. */
function abandonment(socket: Socket) {
  let patience: NodeJS.Timeout | undefined;
  const giveUp = (): void => {
    socket.end();
    patience = setTimeout(() => socket.destroy(), PATIENCE_MS);
  };
  giveUp.settled = () => clearTimeout(patience);
  return giveUp;
}

async function resultFrom(socket: Socket, progress?: (bytes: number, totalBytes?: number) => void): Promise<unknown> {
  const started = performance.now();
  let outcome: { result?: unknown; failure?: Failure } | undefined;
  try {
    for await (const line of linesOf(socket)) {
      if (socket.bytesRead > WORDS_AT_ONCE + (WORDS_PER_SECOND * (performance.now() - started)) / 1000)
        throw new Failure('ToolFailed', 'the tool runner says more than any job has to say');
      if (line === '') continue;
      const answer = parseLine(line, Answer);
      if ('progress' in answer) {
        const [bytes, totalBytes] = answer.progress;
        progress?.(bytes, totalBytes);
      } else {
        outcome = 'failure' in answer ? { failure: told(answer.failure) } : answer;
        break;
      }
    }
  } catch (error) {
    if (error instanceof Failure) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    throw unavailable(`the tool runner does not answer (${code ?? message})`, error);
  }
  if (outcome === undefined) throw unavailable('the tool runner ended in the middle of the work');
  if (outcome.failure !== undefined) throw outcome.failure;
  return outcome.result;
}

function told({ reason, message }: Extract<Answer, { failure: unknown }>['failure']): Failure {
  // We have not stopped it, so the runner is on its way out.
  if (reason === 'Aborted') return unavailable('the tool runner stopped in the middle of the work');
  return new Failure(reason, printable(message, 1000));
}
