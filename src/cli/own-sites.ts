import { readFile } from 'node:fs/promises';
import { parseAllDocuments } from 'yaml';
import type { Draft, Store } from '../stores/store.ts';
import type { Logger } from '../telemetry/log.ts';
import { CommandError, EXIT } from './exit.ts';
import { manifestFiles, readManifest } from './manifest-files.ts';

/**
 * The ImageSites in a folder, as they are written: what they leave to defaults is left to them, and to whoever sets it by hand.
 * @throws CommandError that names file, line and field of all that is wrong
 */
export async function readSites(folder: string): Promise<Draft[]> {
  const sites: Draft[] = [];
  const faults: string[] = [];
  for (const file of await manifestFiles(folder)) {
    const { problems } = await readManifest(file);
    faults.push(...problems.map(({ line, field, message }) => `${file}:${line}: ${field} ${message}`));
    if (problems.length > 0) continue;
    for (const document of parseAllDocuments(await readFile(file, 'utf8'), { merge: true })) {
      const draft = document.toJS() as Draft | null;
      if (draft === null) continue;
      if (draft.kind === 'ImageSite') sites.push(draft);
      else faults.push(`${file}: it holds a ${draft.kind}, and only ImageSites are made from here: move it`);
    }
  }
  if (faults.length > 0) throw new CommandError(EXIT.usage, `--sites: ${faults.join('; ')}`);
  return sites;
}

/**
 * Makes them, or brings them up to date. None is ever deleted: one that has left the folder may be serving images.
 * @throws Failure when the API server refuses one
 */
export async function applySites(
  sites: readonly Draft[],
  store: Pick<Store, 'apply'>,
  log: Pick<Logger, 'info'>,
): Promise<void> {
  for (const site of sites) {
    await store.apply(site);
    log.info({ kind: site.kind, name: site.metadata.name }, 'keeps this site as it is told at the start');
  }
}
