import type { Catalog, ReadRequest } from '../catalog.ts';
import { checkDates } from '../dates.ts';
import { present } from '../present.ts';
import { bring, prove } from '../proof.ts';
import { digestOf } from '../text.ts';
import { parseImageList } from './parse.ts';

/**
 * Reads ImageProxy's own list, in YAML or JSON, signed in any of the ways that the trust room knows.
 * @throws Failure of the fetch and the trust room; InvalidList, ListFromFuture, ListExpired
 */
export async function readImageProxyList(request: ReadRequest): Promise<Catalog> {
  const document = await bring(request.url, request);
  const { content, signer } = await prove(request.url, document, request);
  const { entries, skipped, warnings, ...facts } = parseImageList(content);
  checkDates(facts, request.at);
  return {
    list: { format: 'ImageProxy', ...facts, digest: digestOf(document), ...present({ signer }) },
    entries,
    skipped,
    warnings,
  };
}
