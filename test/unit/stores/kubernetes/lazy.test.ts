import { join } from 'node:path';
import { expect, it } from 'vitest';
import { readSources } from '../../../../scripts/check-architecture.ts';

const SOURCES = join(import.meta.dirname, '..', '..', '..', '..', 'src');

it('client-node is loaded when a cluster is asked for, and not before: it costs 80 MiB, which a directory need not pay', async () => {
  const importing = [...(await readSources(SOURCES))].filter(([, text]) => text.includes("'@kubernetes/client-node'"));
  expect(importing.map(([file]) => file)).toEqual(['stores/kubernetes/credentials.ts']);
  for (const [, text] of importing) expect(text).not.toMatch(/^import (?!type ).*client-node/m);
});
