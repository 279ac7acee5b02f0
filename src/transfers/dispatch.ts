import type { MessagePort } from 'node:worker_threads';
import { Failure } from '../api/failure.ts';
import { copy } from './copy.ts';
import { runFetch } from './fetch.ts';
import { Generations } from './generation.ts';
import { Hashers } from './hashers.ts';
import type { FromTransfers, JobKind, Jobs, Note, Question, ToTransfers } from './protocol.ts';
import { Ticker } from './ticker.ts';
import { runUpload } from './upload.ts';

type Start = Extract<ToTransfers, { type: 'start' }>;

interface Running {
  abort: AbortController;
  answer: { resolve(): void; reject(failure: Failure): void } | undefined;
}

/** The transfer thread: starts what the main thread asks for, and carries questions, notes and results back. */
export function runTransfers(port: MessagePort): void {
  const generations = new Generations();
  const hashers = new Hashers();
  const jobs = new Map<number, Running>();
  const send = (message: FromTransfers) => port.postMessage(message);

  const start = async (message: Start): Promise<void> => {
    const { job } = message;
    const running: Running = { abort: new AbortController(), answer: undefined };
    jobs.set(job, running);
    const { signal } = running.abort;
    const ask = (question: Question): Promise<void> =>
      new Promise((resolve, reject) => {
        if (signal.aborted) return reject(new Failure('Aborted', 'stopped'));
        running.answer = { resolve, reject };
        send({ type: 'ask', job, question });
      });
    const note = (content: Note) => send({ type: 'note', job, note: content });
    const run = async (): Promise<Jobs[JobKind]['result']> => {
      switch (message.kind) {
        case 'fetch':
          return runFetch(
            message.request,
            {
              begin: (begun) => ask({ kind: 'begin', begun }),
              progress: (progress) => note({ kind: 'fetched', progress }),
              proven: (proof) => note({ kind: 'proven', proof }),
            },
            generations,
            hashers,
            signal,
          );
        case 'upload':
          return runUpload(
            message.request,
            { mayFinish: () => ask({ kind: 'mayFinish' }), progress: (bytes) => note({ kind: 'moved', bytes }) },
            generations,
            signal,
          );
        case 'copy': {
          let bytes = 0;
          const ticker = new Ticker(() => note({ kind: 'moved', bytes }));
          const { from, to } = message.request;
          try {
            await copy(from, to, (position) => (bytes = position), signal);
          } finally {
            ticker.stop();
          }
          return undefined;
        }
        case 'digest':
          return hashers.digest(message.request.path, message.request.algorithms, signal);
      }
    };
    try {
      send({ type: 'done', job, result: await run() });
    } catch (error) {
      const failure = signal.aborted ? new Failure('Aborted', 'stopped') : Failure.from(error);
      send({ type: 'failed', job, failure: failure.toPlain() });
    } finally {
      jobs.delete(job);
    }
  };

  port.on('message', (message: ToTransfers) => {
    switch (message.type) {
      case 'start':
        void start(message);
        break;
      case 'abort': {
        const running = jobs.get(message.job);
        running?.abort.abort();
        running?.answer?.reject(new Failure('Aborted', 'stopped'));
        break;
      }
      case 'answer': {
        const answer = jobs.get(message.job)?.answer;
        if (message.failure === undefined) answer?.resolve();
        else answer?.reject(Failure.fromPlain(message.failure));
        break;
      }
    }
  });
}
