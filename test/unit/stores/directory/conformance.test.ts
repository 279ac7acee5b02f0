import { chmod, mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { stringify } from 'yaml';
import type { ObjectKey } from '../../../../src/stores/store.ts';
import { storeConformance } from '../conformance.ts';
import { Bench } from '../support.ts';

storeConformance('A directory of manifests', async () => {
  const bench = await Bench.make();
  await mkdir(bench.manifests);
  let store = await bench.started();
  const fileOf = (kind: string, { namespace = '', name }: ObjectKey): string =>
    join(bench.manifests, `${kind}-${namespace}-${name}.yaml`);
  return {
    get store() {
      return store;
    },
    user: {
      async put({ data, ...object }) {
        const content =
          object.kind === 'Secret'
            ? { ...object, stringData: data }
            : { ...object, ...(data === undefined ? {} : { data }) };
        const file = fileOf(object.kind, object.metadata);
        await writeFile(file, stringify(content));
        await chmod(file, 0o600);
      },
      remove: (kind, key) => rm(fileOf(kind, key), { force: true }),
    },
    settle: () => bench.lookTwice(store),
    async restart() {
      await store.close();
      store = await bench.started();
      return store;
    },
    dispose: () => bench.dispose(),
    specs: [{ url: 'https://example.org/a' }, { url: 'https://example.org/b', policy: 'Retain' }],
    status: (observedGeneration, percent) => ({
      observedGeneration,
      ...(percent === undefined ? {} : { progress: { percent } }),
    }),
  };
});
