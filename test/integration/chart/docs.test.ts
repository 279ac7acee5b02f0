import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { API_SERVER_PATIENCE_MS } from '../../support/apiserver.ts';
import { CHART, Helm, type Values } from '../../support/kubernetes/chart.ts';

const ROOT = join(CHART, '..', '..', '..');

interface Example {
  place: string;
  values: Values;
}

/** Objects of GitOps tools, as far as they hold values of the chart. */
interface Releasing {
  kind: string;
  spec: { values?: Values; source?: { helm?: { valuesObject: Values } } };
}

/** Blocks that begin with a comment on values, and the values in objects of Flux and Argo CD. */
function examplesOf(page: string): Example[] {
  const text = readFileSync(join(ROOT, page), 'utf8');
  return Array.from(text.matchAll(/^```yaml\n([^]*?)^```$/gm)).flatMap(({ 1: block = '', index }) => {
    const place = `${page}:${text.slice(0, index).split('\n').length}`;
    const documents = parseAllDocuments(block).map((document) => document.toJS() as unknown);
    if (/^# \S+\.yaml\b.*/.test(block) && !block.includes('apiVersion:'))
      return [{ place, values: documents[0] as Values }];
    return (documents as Releasing[]).flatMap(({ kind, spec }) => {
      const values =
        kind === 'HelmRelease' ? spec.values : kind === 'Application' ? spec.source?.helm?.valuesObject : undefined;
      return values === undefined ? [] : [{ place: `${place} (${kind})`, values }];
    });
  });
}

const EXAMPLES = globSync('docs/**/*.md', { cwd: ROOT }).toSorted().flatMap(examplesOf);

describe('values in the documentation', () => {
  let helm: Helm;

  beforeAll(async () => {
    helm = await Helm.start();
  }, API_SERVER_PATIENCE_MS);
  afterAll(() => helm?.close());

  test('are there for Helm, Flux and Argo CD', () => {
    expect(EXAMPLES.length).toBeGreaterThanOrEqual(6);
    for (const kind of ['HelmRelease', 'Application'])
      expect(EXAMPLES.some(({ place }) => place.includes(kind))).toBe(true);
  });

  test.each(EXAMPLES.map(({ place, values }) => [place, values] as const))(
    '%s are taken as they stand',
    async (_place, values) => {
      const objects = await helm.template(values);
      expect(objects.map(({ kind }) => kind)).toContain('Deployment');
    },
  );

  test('what a misspelt value is told is quoted as it is', async () => {
    const page = readFileSync(join(ROOT, 'docs', 'install.md'), 'utf8');
    const { message } = await helm.template({ sites: { 'nova-east': { spec: { openstak: { cloud: 'east' } } } } }).then(
      () => new Error('it was taken'),
      (error: Error) => error,
    );
    const told = message.slice(message.indexOf("values don't")).trim();
    expect(page).toContain(told);
  });
});
