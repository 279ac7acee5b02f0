import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import type { ApiKind } from '../../../src/api/crds.ts';
import { API_VERSION } from '../../../src/api/types.ts';

const DIRECTORY = join(import.meta.dirname, '..', '..', 'fixtures', 'rules');

export type Manifest = Record<string, unknown>;

/** One row of the table in test/fixtures/rules; its fields are explained in vmimage.yaml there. */
export interface RuleCase {
  name: string;
  kind: ApiKind;
  old?: Manifest;
  object: Manifest;
  accepted?: true;
  errors?: { path: string; message?: string }[];
  unstorable?: true;
}

/** All rows, with apiVersion, kind and metadata filled in: as somebody would apply them. */
export function ruleCases(): RuleCase[] {
  return readdirSync(DIRECTORY)
    .toSorted()
    .flatMap((file) => {
      const text = readFileSync(join(DIRECTORY, file), 'utf8');
      const { cases } = parse(text, { merge: true, maxAliasCount: -1 }) as { cases: RuleCase[] };
      return cases.map((row) => ({
        ...row,
        object: complete(row.kind, row.object),
        ...(row.old === undefined ? {} : { old: complete(row.kind, row.old) }),
      }));
    });
}

function complete(kind: ApiKind, part: Manifest): Manifest {
  const namespace = kind === 'ImageSite' ? {} : { namespace: 'default' };
  const metadata = { name: 'example', ...namespace, ...(part['metadata'] as Manifest | undefined) };
  return { apiVersion: API_VERSION, kind, ...part, metadata };
}
