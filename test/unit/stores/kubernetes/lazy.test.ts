import { join } from 'node:path';
import { expect, it } from 'vitest';
import { readSources } from '../../../../scripts/check-architecture.ts';

const SOURCES = join(import.meta.dirname, '..', '..', '..', '..', 'src');

it('client-node is loaded when a cluster is asked for, and not before: it costs 80 MiB, which a directory need not pay', async () => {
  const sources = [...(await readSources(SOURCES))];
  const importing = (name: string) => sources.filter(([, text]) => text.includes(name)).map(([file]) => file);
  expect(importing("'@kubernetes/client-node'")).toEqual(['stores/kubernetes/client-node.ts']);
  expect(importing("client-node.ts'")).toEqual(['stores/kubernetes/credentials.ts']);
  const credentials = new Map(sources).get('stores/kubernetes/credentials.ts');
  expect(credentials).not.toMatch(/^import (?!type ).*client-node/m);
});
