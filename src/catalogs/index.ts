import { Failure } from '../api/failure.ts';
import type { Catalog, CatalogFormat, CatalogReader, ReadRequest } from './catalog.ts';
import { readChecksumFile } from './checksumfile/index.ts';
import { readHepix } from './hepix/index.ts';
import { readImageProxyList } from './imageproxy/index.ts';
import { readMarketplace } from './marketplace/index.ts';
import { readSimplestreams } from './simplestreams/index.ts';

export { recognise } from './recognise.ts';
export { compareVersions } from './versions.ts';

const READERS: Readonly<Record<CatalogFormat, CatalogReader>> = {
  HEPiX: readHepix,
  Marketplace: readMarketplace,
  Simplestreams: readSimplestreams,
  ChecksumFile: readChecksumFile,
  ImageProxy: readImageProxyList,
};

/**
 * Reads a list: fetches what it needs, has it proven, and parses what was proven. It keeps a thread busy for as long as the list is
 * long, so it belongs into a worker.
 * @throws Failure, and nothing else: what is wrong with the list as a whole
 */
export async function readCatalog(format: CatalogFormat, request: ReadRequest): Promise<Catalog> {
  try {
    return await READERS[format](request);
  } catch (error) {
    throw Failure.from(error);
  }
}
