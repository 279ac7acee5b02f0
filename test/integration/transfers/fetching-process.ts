/** A process that fetches, tells its progress, and is killed by the test: `node fetching-process.ts '<FetchRequest as JSON>'`. */
import { startTransfers } from '../../../src/transfers/index.ts';
import type { FetchRequest } from '../../../src/transfers/transfers.ts';

const request = JSON.parse(process.argv[2] ?? '') as FetchRequest;
const say = (what: object) => process.stdout.write(`${JSON.stringify(what)}\n`);
await startTransfers().fetch(
  request,
  { onBegin: async (begun) => void say({ begun }), onProgress: (progress) => void say({ progress }) },
  new AbortController().signal,
);
