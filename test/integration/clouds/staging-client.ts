import { readFile } from 'node:fs/promises';
import type { StagePart } from '../../../src/clouds/cloud.ts';
import { openCloud } from '../../../src/clouds/index.ts';
import { startTransfers } from '../../../src/transfers/index.ts';
import { contextOf } from './fixture.ts';

/** A client in a process of its own, to be killed: sends everything but the last bytes, says so, and waits for ever. */
const job = JSON.parse(await readFile(process.argv[2] ?? '', 'utf8')) as {
  clouds: string;
  part: Omit<StagePart, 'bytes'>;
  path: string;
  size: number;
};
const secret = new Map([['clouds.yaml', new TextEncoder().encode(job.clouds)]]);
const cloud = await openCloud({ openstack: {} }, contextOf(startTransfers(), { secret }));
const keep = setInterval(() => {}, 60_000);
await cloud.stage(
  {
    ...job.part,
    bytes: {
      path: job.path,
      size: job.size,
      digest: async () => '',
      mayFinish: async () => {
        process.stdout.write('holding\n');
        await new Promise(() => {});
      },
    },
  },
  new AbortController().signal,
);
clearInterval(keep);
