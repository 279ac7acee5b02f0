import { Worker, type WorkerOptions } from 'node:worker_threads';
import { Failure } from '../api/failure.ts';
import type { Role, Threads } from './protocol.ts';

/**
 * Where the threads' code is. From a checkout that is `worker.ts` beside this file. A bundle must have it as an entry point of its
 * own, in the same folder as the bundle that holds this file and named `transfers-worker.js`:
 *
 *     esbuild --bundle --platform=node --format=esm --outdir=dist main=src/main.ts transfers-worker=src/transfers/worker.ts
 */
function workerUrl(): URL {
  return new URL(import.meta.url.endsWith('.ts') ? './worker.ts' : './transfers-worker.js', import.meta.url);
}

/**
 * Bounds of each thread's heap, in MiB. Bodies never pass through it, so it stays small; the young generation is bounded because
 * network buffers hang on young objects: the fewer of those may wait for a collection, the less memory hangs on them.
 */
const HEAP: WorkerOptions['resourceLimits'] = { maxOldGenerationSizeMb: 256, maxYoungGenerationSizeMb: 4 };

export interface WorkerThread<Message> {
  post(message: Message): void;
  /** Whether the thread keeps the process alive. */
  hold(alive: boolean): void;
  terminate(): Promise<void>;
}

/** Starts a thread. `died` is called once, when it has ended for whatever reason but `terminate`. */
export function startWorker<R extends Role>(
  role: R,
  on: { message(message: Threads[R]['from']): void; died(failure: Failure): void },
): WorkerThread<Threads[R]['to']> {
  const worker = new Worker(workerUrl(), { workerData: role, name: role, resourceLimits: HEAP });
  let ended = false;
  const died = (cause: unknown, what: string) => {
    if (ended) return;
    ended = true;
    void worker.terminate();
    on.died(new Failure('InternalError', `the ${role} thread ended (${what}); it is started again`, { cause }));
  };
  worker.on('message', on.message);
  worker.on('error', (error: Error) => died(error, error.message));
  worker.on('messageerror', (error) => died(error, 'a message could not be read'));
  worker.on('exit', (code) => died(undefined, `exit code ${code}`));
  return {
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
    post: (message) => worker.postMessage(message),
    hold: (alive) => (alive ? worker.ref() : worker.unref()),
    terminate: async () => {
      ended = true;
      await worker.terminate();
    },
  };
}
