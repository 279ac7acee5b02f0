import { parentPort, workerData } from 'node:worker_threads';
import { runHasher } from './hasher.ts';
import type { Role } from './protocol.ts';

/** The entry of both threads (see thread.ts); the hasher does not load what only transfers need. */
if (parentPort === null) throw new Error('worker.ts runs as a worker thread');
const port = parentPort;
if ((workerData as Role) === 'hasher') runHasher(port);
else (await import('./dispatch.ts')).runTransfers(port);
