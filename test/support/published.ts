import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { NamedFile } from '../../src/trust/trust.ts';

/**
 * Lists and entries that others published, and that this repository does not ship. They are looked for in `PUBLISHED_LISTS`, else in
 * `shared/fixtures` beside the checkout or above; where there are none, the tests that read them are not there either.
 */
export const PUBLISHED = process.env['PUBLISHED_LISTS'] ?? find(join(import.meta.dirname, '../..'));

export function published(path: string): Buffer {
  return readFileSync(join(PUBLISHED ?? '', path));
}

export function publishedFolder(path: string): NamedFile[] {
  return readdirSync(join(PUBLISHED ?? '', path)).map((name) => ({ name, bytes: published(join(path, name)) }));
}

function find(folder: string): string | undefined {
  const place = join(folder, 'shared/fixtures');
  if (existsSync(join(place, 'hepix/lists'))) return place;
  return dirname(folder) === folder ? undefined : find(dirname(folder));
}
