import { parentPort, workerData } from 'node:worker_threads';
import { giveWay, runWhenIdle } from '../programs/scheduling.ts';
import { runHasher } from './hasher.ts';
import type { Role } from './protocol.ts';

/** The entry of all three threads (see thread.ts); the hashers do not load what only transfers need. */
if (parentPort === null) throw new Error('worker.ts runs as a worker thread');
const port = parentPort;
switch (workerData as Role) {
  case 'transfers':
    (await import('./dispatch.ts')).runTransfers(port);
    break;
  case 'hasher':
    giveWay();
    runHasher(port);
    break;
  case 'idle-hasher':
    runWhenIdle();
    runHasher(port);
    break;
}
