import { folderOf } from '../below.ts';
import type { Catalog, ReadRequest } from '../catalog.ts';
import { present } from '../present.ts';
import { bring, prove } from '../proof.ts';
import { pathOf } from '../suffixes.ts';
import { digestOf } from '../text.ts';
import { parseChecksums } from './parse.ts';

/**
 * Reads a distribution's checksum file (`SHA256SUMS`, `CHECKSUM`, `x.qcow2.sha256`) as a list of the images beside it.
 * @throws Failure of the fetch and the trust room; InvalidList
 */
export async function readChecksumFile(request: ReadRequest): Promise<Catalog> {
  const document = await bring(request.url, request);
  const { content, signer } = await prove(request.url, document, request);
  const path = pathOf(request.url);
  return {
    list: {
      format: 'ChecksumFile',
      digest: digestOf(document),
      // The file has no date of its own; that of its signature is as good against an older one.
      ...present({ createdAt: signer?.signedAt, signer }),
    },
    ...parseChecksums(content, folderOf(request.url), path.slice(path.lastIndexOf('/') + 1)),
    warnings: [],
  };
}
