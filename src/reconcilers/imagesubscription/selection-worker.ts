import { parentPort } from 'node:worker_threads';
import { Failure } from '../../api/failure.ts';
import type { Entry } from '../../catalogs/catalog.ts';
import { type Choice, expressionOf } from './expression.ts';
import { selectionOf } from './select.ts';
import type { FromSelector, ToSelector } from './selections.ts';

/** The entry of the thread (see selections.ts). */
if (parentPort === null) throw new Error('selection-worker.ts runs as a worker thread');
const port = parentPort;

/** So long it may work without saying how far it has come, in milliseconds. */
const PART_MS = 100;

// oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
const answer = (message: FromSelector): void => port.postMessage(message);

let isChosen: (entry: Entry) => Choice = () => true;

port.on('message', ({ asked, entries }: ToSelector) => {
  try {
    if (asked !== undefined) {
      const { select, signer } = asked;
      const selection = selectionOf(select);
      // Where a list is signed as a whole, its signer endorses each of its entries.
      isChosen = (entry) =>
        selection(entry.signer !== undefined || signer === undefined ? entry : { ...entry, signer });
    }
    let choices: Choice[] = [];
    let [since, cpu] = [performance.now(), process.threadCpuUsage()];
    const tell = () => {
      const { user, system } = process.threadCpuUsage(cpu);
      answer({ type: 'Chosen', choices, cpuMs: (user + system) / 1000 });
      choices = [];
      [since, cpu] = [performance.now(), process.threadCpuUsage()];
    };
    for (const entry of entries) {
      choices.push(isChosen(entry));
      if (performance.now() - since > PART_MS) tell();
    }
    if (choices.length > 0) tell();
  } catch (error) {
    answer({ type: 'Failed', failure: Failure.from(error).toPlain() });
  }
});
// What loading the language costs is not the first selection's fault.
expressionOf('true');
answer({ type: 'Ready' });
