import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { importsOf, readSources, violations } from '../../scripts/check-architecture.ts';

/** Messages for a house of these files. */
function judge(files: Record<string, string>): string[] {
  return violations(new Map(Object.entries(files))).map(({ file, line, message }) => `${file}:${line}: ${message}`);
}

describe('the architecture check', () => {
  test('finds nothing in this house', async () => {
    const sources = await readSources(join(import.meta.dirname, '../../src'));
    expect(sources.size).toBeGreaterThan(10);
    expect(violations(sources)).toEqual([]);
  });

  test('sees every way to import, in code and not in comments', () => {
    const source = [
      "import a from './a.ts';",
      "import type { B } from './b.ts';",
      "import { type C, type D } from './c.ts';",
      'import {',
      '  E,',
      '  type F,',
      "} from './e.ts';",
      "export * from './g.ts';",
      "export type { H } from './h.ts';",
      "import './i.ts';",
      "const j = await import('./j.ts');",
      " * import k from './k.ts';",
      "// import l from './l.ts', import('./l.ts')",
      "let m: import('./m.ts').M;",
      "export const from = 'x';",
      "import type from './n.ts';",
    ].join('\n');
    const found = importsOf(source).map(
      ({ specifier, line, typeOnly }) => `${line} ${specifier} ${typeOnly ? 'type' : 'value'}`,
    );
    expect(found.toSorted((a, b) => Number.parseInt(a, 10) - Number.parseInt(b, 10))).toEqual([
      '1 ./a.ts value',
      '2 ./b.ts type',
      '3 ./c.ts type',
      '4 ./e.ts value',
      '8 ./g.ts value',
      '9 ./h.ts type',
      '10 ./i.ts value',
      '11 ./j.ts value',
      '14 ./m.ts value',
      '16 ./n.ts value',
    ]);
  });

  test.each([
    ['clouds/glance.ts', "import { x } from '../stores/store.ts';", 'stores/store.ts'],
    ['clouds/glance.ts', "import type { X } from '../stores/store.ts';", 'stores/store.ts'],
    ['clouds/glance.ts', "const x = import('../runtime/queue.ts');", 'runtime/queue.ts'],
    ['runtime/queue.ts', "import type { Format } from '../images/format.ts';", 'images/format.ts'],
    ['stores/directory/read.ts', "import '../../cache/cache.ts';", 'cache/cache.ts'],
    ['api/failure.ts', "import { a } from '../telemetry/log.ts';", 'telemetry/log.ts'],
    ['sources/http/fetch.ts', "export * from '../../transfers/transfers.ts';", 'transfers/transfers.ts'],
    ['reconcilers/vmimage/step.ts', "import { d } from '../../stores/directory.ts';", 'stores/directory.ts'],
    ['reconcilers/vmimage/step.ts', "import { d } from '../../controllers/vmimage.ts';", 'controllers/vmimage.ts'],
  ])('refuses %s with %s', (file, source, target) => {
    expect(judge({ [file]: source, [target]: '' })).toEqual([expect.stringContaining(`must not import ${target}`)]);
  });

  test('lets the arrows pass that point down', () => {
    expect(
      judge({
        'main.ts': "import { run } from './cli/run.ts';",
        'cli/run.ts': "import { c } from '../controllers/vmimage.ts';",
        'controllers/vmimage.ts':
          "import { r } from '../reconcilers/vmimage/step.ts';\nimport { q } from '../runtime/queue.ts';",
        'reconcilers/vmimage/step.ts': "import type { Store } from '../../stores/store.ts';",
        'runtime/queue.ts': '',
        'stores/store.ts': '',
      }),
    ).toEqual([]);
  });

  test('lets clouds know the vocabulary of formats and the types of transfers, and no more of either', () => {
    const others = { 'images/format.ts': '', 'images/images.ts': '', 'transfers/transfers.ts': '' };
    const allowed = "import { F } from '../images/format.ts';\nimport { type T } from '../transfers/transfers.ts';";
    expect(judge({ ...others, 'clouds/cloud.ts': allowed })).toEqual([]);
    expect(judge({ ...others, 'clouds/cloud.ts': "\nimport { T } from '../transfers/transfers.ts';" })).toEqual([
      'clouds/cloud.ts:2: imports values of transfers/transfers.ts; clouds may know its types only (import type)',
    ]);
    expect(judge({ ...others, 'clouds/cloud.ts': "import type { I } from '../images/images.ts';" })).toHaveLength(1);
  });

  test('keeps the Kubernetes client in its room', () => {
    const source = "import { KubeConfig } from '@kubernetes/client-node';";
    expect(judge({ 'stores/kubernetes.ts': source, 'runtime/lease.ts': source })).toEqual([]);
    expect(judge({ 'clouds/cloud.ts': source })).toHaveLength(1);
    expect(
      judge({ 'stores/directory/read.ts': "const k = await import('@kubernetes/client-node/dist/x.js');" }),
    ).toHaveLength(1);
  });

  test('finds import cycles between files of one room, types too', () => {
    expect(
      judge({
        'cache/a.ts': "import { b } from './b.ts';",
        'cache/b.ts': "import type { C } from './c.ts';",
        'cache/c.ts': "import { a } from './a.ts';",
        'cache/d.ts': "import { a } from './a.ts';",
      }),
    ).toEqual(['cache/a.ts:1: import cycle: cache/a.ts -> cache/b.ts -> cache/c.ts -> cache/a.ts']);
  });

  test('refuses names that say nothing, rooms that it does not know, and imports from outside', () => {
    expect(judge({ 'cache/utils.ts': '' })).toEqual([expect.stringContaining('"utils" says nothing')]);
    expect(judge({ 'sources/helpers/a.ts': '' })).toEqual([expect.stringContaining('"helpers" says nothing')]);
    expect(judge({ 'attic/a.ts': '' })).toEqual([expect.stringContaining('attic is no room')]);
    expect(judge({ 'cli/a.ts': "import { x } from '../../test/support/x.ts';" })).toEqual([
      expect.stringContaining('outside of src'),
    ]);
  });
});
