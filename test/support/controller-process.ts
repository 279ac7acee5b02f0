import { systemClock } from '../../src/runtime/clock.ts';
import { startController } from '../../src/cli/controller.ts';
import { createLogger } from '../../src/telemetry/log.ts';

/**
 * The program in a process of its own, to be killed: `node controller-process.ts MANIFESTS STATE [CHANGES]`. With CHANGES it kills
 * itself, as a power cut would, when the store has told so many changes of VMImages.
 */
const [manifests, state, changes] = process.argv.slice(2);
if (manifests === undefined || state === undefined)
  throw new Error('usage: controller-process.ts MANIFESTS STATE [CHANGES]');

const stop = new AbortController();
process.once('SIGTERM', () => stop.abort());
const { store, done } = await startController(
  {
    manifests,
    state,
    allowNetworks: ['127.0.0.0/8'],
    fileRoots: new Map(),
    maxParallelDownloads: 4,
    cacheQuotaBytes: 2 ** 30,
    cacheReserveFreeBytes: 0,
    instance: 'killed',
    lossConfirmMs: 100,
    clock: systemClock,
    log: createLogger({ level: 'info', pretty: false }),
  },
  stop.signal,
);
let seen = 0;
store.subscribe('VMImage', () => {
  seen++;
  if (seen === Number(changes)) process.kill(process.pid, 'SIGKILL');
});
await done;
