import { setFlagsFromString } from 'node:v8';
import { defineConfig } from 'vitest/config';

/** As bin/imageproxy has it in a checkout, which says why: threads that tests start strip the types of their sources as well. */
const KEEP_WASM_CODE = '--no-wasm-code-gc';
setFlagsFromString(KEEP_WASM_CODE); // unit tests run in threads of this process, which cannot have flags of their own

/** Unit tests stand alone; integration tests start real parts (Keystone, Glance, qemu-img, origins) and run one file at a time; e2e ones use a cluster, see scripts/e2e.ts. */
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/unit/**/*.test.ts'],
          pool: 'threads',
          // Wide, as are all of them: on a machine that is busy with other things a second's work has taken a minute.
          testTimeout: 120_000,
          hookTimeout: 120_000,
          expect: { poll: { timeout: 60_000 } },
        },
      },
      {
        test: {
          name: 'integration',
          include: ['test/integration/**/*.test.ts'],
          pool: 'forks',
          execArgv: [KEEP_WASM_CODE],
          fileParallelism: false,
          testTimeout: 300_000,
          hookTimeout: 300_000,
          // The default is a second: what a loaded machine needs longer for has not failed.
          expect: { poll: { timeout: 120_000 } },
        },
      },
      {
        test: {
          name: 'e2e',
          include: ['test/e2e/**/*.test.ts'],
          pool: 'forks',
          execArgv: [KEEP_WASM_CODE],
          fileParallelism: false,
          testTimeout: 600_000,
          hookTimeout: 600_000,
          expect: { poll: { timeout: 120_000 } },
        },
      },
    ],
  },
});
