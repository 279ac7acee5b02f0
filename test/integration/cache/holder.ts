/**
 * A process that opens a cache, run by the tests: `holder.ts hold DIR`, or `holder.ts fill DIR STEPS` to admit one blob after the
 * other until the process kills itself before a step of the disk.
 */
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { Failure } from '../../../src/api/failure.ts';
import { Database } from '../../../src/cache/database.ts';
import { diskFiles, type FileOps } from '../../../src/cache/files.ts';
import { openCache, startCache } from '../../../src/cache/index.ts';
import { Layout } from '../../../src/cache/layout.ts';

const [mode, directory = '', steps = '0'] = process.argv.slice(2);
const quiet = { info() {}, warn() {}, error() {} };
const options = { directory, now: Date.now, log: quiet, quotaBytes: 2 ** 30, reserveFreeBytes: 0 };

/** Dies, as by the kernel's hand, instead of taking step N. */
function dyingFiles(left: number): FileOps {
  const wrapped = Object.entries(diskFiles).map(([name, step]) => [
    name,
    (...args: never[]) => {
      left -= 1;
      if (left < 0) process.kill(process.pid, 'SIGKILL');
      return (step as (...args: never[]) => unknown)(...args);
    },
  ]);
  return Object.fromEntries(wrapped) as FileOps;
}

try {
  if (mode === 'hold') {
    const cache = await openCache(options);
    console.log(`holding ${cache.stats().blobs}`);
    setInterval(() => undefined, 1000);
  } else {
    const files = dyingFiles(Number(steps));
    const layout = new Layout(directory);
    const cache = await startCache(options, layout, Database.open(layout.database, files), files);
    for (let number = 0; number < 3; number += 1) {
      const bytes = Buffer.alloc(10_000, `blob ${number}.`);
      const sha256 = createHash('sha256').update(bytes).digest('hex');
      const path = cache.scratch('.raw');
      writeFileSync(path, bytes);
      await cache.admit(path, sha256, { digests: {}, size: bytes.length, fetchedAt: '' }, 'public');
      // Synchronous on a pipe: it is out before the next step.
      console.log(`admitted ${sha256}`);
    }
    await cache.close();
    console.log('closed');
  }
} catch (error) {
  console.log(`refused ${Failure.from(error).message}`);
}
