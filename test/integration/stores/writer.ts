import { loadSchemas } from '../../../src/api/schema.ts';
import { openDirectoryStore } from '../../../src/stores/directory/index.ts';
import type { Resource } from '../../../src/stores/store.ts';

/**
 * Started by directory.test.ts and killed by it: writes statuses as fast as it can, and says on standard output, one line each, what
 * the store has acknowledged.
 */
const [manifests = '', state = ''] = process.argv.slice(2);
const schemas = loadSchemas();
const quiet = (): void => undefined;
const store = await openDirectoryStore({
  manifests,
  state,
  validate: (kind, input, old) => schemas.validate(kind, input, old),
  now: Date.now,
  timers: globalThis,
  log: { debug: quiet, info: quiet, warn: (_, message) => say({ warning: message }), error: quiet },
});
await store.start(new AbortController().signal);
say({ ready: true });

for (let round = 1; ; round++) {
  const objects = store.list<Resource & { status: object }>('VMImage');
  await Promise.all(
    objects.map(async (object) => {
      const attempts = round + Math.max(0, ...rowsOf(object.status));
      const status = {
        observedGeneration: object.metadata.generation,
        sites: [{ name: 'a', attempts, phase: 'Registering' }],
      };
      if ((await store.applyStatus(object, status)) === undefined) return;
      say({ name: object.metadata.name, uid: object.metadata.uid, attempts });
      await store.applyStatus(object, { ...status, progress: { percent: round % 100 } });
    }),
  );
}

function rowsOf(status: { sites?: { attempts?: number }[] }): number[] {
  return (status.sites ?? []).map(({ attempts = 0 }) => attempts);
}

function say(line: object): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}
