import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { isApiKind, loadSchemas } from '../../../src/api/schema.ts';
import { parseImageList } from '../../../src/catalogs/imageproxy/parse.ts';
import { decodeConfigMap, decodeSecret } from '../../../src/stores/directory/secret.ts';

const ROOT = join(import.meta.dirname, '../../..');
const PAGES = [...globSync('docs/**/*.md', { cwd: ROOT }), 'README.md'].sort();
const schemas = loadSchemas();

interface Example {
  /** `docs/vmimage.md:12`, where the block begins. */
  place: string;
  value: Record<string, unknown>;
}

function examplesOf(page: string): Example[] {
  const text = readFileSync(join(ROOT, page), 'utf8');
  return Array.from(text.matchAll(/^```yaml\n([^]*?)^```$/gm)).flatMap((block) => {
    const place = `${page}:${text.slice(0, block.index).split('\n').length}`;
    return parseAllDocuments(block[1] ?? '').map((document) => {
      expect(document.errors, place).toEqual([]);
      return { place, value: document.toJS() as Record<string, unknown> };
    });
  });
}

const EXAMPLES = PAGES.flatMap(examplesOf);
const VERSIONED = EXAMPLES.filter(({ value }) => value['apiVersion'] === 'imageproxy.dev/v1beta1');
/** A list is no resource: it is published, not applied. */
const LISTS = VERSIONED.filter(({ value }) => value['kind'] === 'ImageList');
const OURS = VERSIONED.filter((example) => !LISTS.includes(example));
const CORE = EXAMPLES.filter(({ value }) => value['apiVersion'] === 'v1');

describe('examples in the documentation', () => {
  it('are there, of every kind', () => {
    expect(new Set(OURS.map(({ value }) => value['kind']))).toEqual(new Set(schemas.kinds));
  });

  it.each(OURS.map(({ place, value }) => [place, String(value['kind']), value] as const))(
    '%s: the %s is taken as it stands, without a warning',
    (_place, kind, value) => {
      if (!isApiKind(kind)) throw new Error(`there is no kind ${kind}`);
      const { errors, warnings } = schemas.validate(kind, value);
      expect({ errors, warnings }).toEqual({ errors: [], warnings: [] });
    },
  );

  it.each(LISTS.map(({ place, value }) => [place, value] as const))(
    '%s: the list is read as it stands, without a warning',
    (_place, value) => {
      const { entries, skipped, warnings } = parseImageList(Buffer.from(JSON.stringify(value)));
      expect({ skipped, warnings }).toEqual({ skipped: [], warnings: [] });
      expect(entries).not.toEqual([]);
    },
  );

  it.each(CORE.map(({ place, value }) => [place, String(value['kind']), value] as const))(
    '%s: the %s can be read',
    (_place, kind, value) => {
      const { errors, data } = kind === 'Secret' ? decodeSecret(value) : decodeConfigMap(value);
      expect(errors).toEqual([]);
      expect(Object.keys(data)).not.toEqual([]);
    },
  );
});
