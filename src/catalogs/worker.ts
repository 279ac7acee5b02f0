import { parentPort } from 'node:worker_threads';
import { Failure } from '../api/failure.ts';
import { readCatalog } from './index.ts';
import type { FromReader, ToReader } from './protocol.ts';
import { readList } from './reading.ts';

/** The entry of the thread (see thread.ts). */
if (parentPort === null) throw new Error('worker.ts runs as a worker thread');
const port = parentPort;
const running = new Map<number, AbortController>();

// oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
const answer = (message: FromReader): void => port.postMessage(message);

port.on('message', (message: ToReader) => {
  if (message.type === 'abort') {
    running.get(message.reading)?.abort();
    return;
  }
  const { reading, task } = message;
  const abort = new AbortController();
  running.set(reading, abort);
  readList(task, readCatalog, abort.signal)
    .then(
      (outcome) => answer({ type: 'done', reading, outcome }),
      (error: unknown) => answer({ type: 'failed', reading, failure: Failure.from(error).toPlain() }),
    )
    .finally(() => running.delete(reading));
});
answer({ type: 'ready' });
