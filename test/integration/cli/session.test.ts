import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { openCache } from '../../../src/cache/index.ts';
import { openSession } from '../../../src/cli/session.ts';
import { systemClock } from '../../../src/runtime/clock.ts';
import { createLogger } from '../../../src/telemetry/log.ts';

let state: string;
beforeEach(() => {
  state = mkdtempSync(join(tmpdir(), 'imageproxy-session-'));
});
afterEach(() => rmSync(state, { recursive: true, force: true }));

it('a command waits for the cache of the one before it, which lets go of the state first', async () => {
  const log = createLogger({ level: 'silent' });
  const cache = await openCache({ directory: join(state, 'cache'), now: () => systemClock.now(), log });
  const opening = openSession({ state, signal: new AbortController().signal });
  // As long as a disk may take that a cut download is made durable on.
  const held = new Promise((resolve) => void setTimeout(resolve, 1500, 'held'));
  expect(await Promise.race([opening, held])).toBe('held');
  await cache.close();
  await (await opening).close();
});
