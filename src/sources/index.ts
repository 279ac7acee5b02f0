import { fetchFile } from './file/index.ts';
import { fetchHttp } from './http/index.ts';
import type { Fetch, SourceSpec } from './source.ts';

/** Every kind of source. One line each. */
const fetchers: { [K in SourceSpec['kind']]: Fetch<Extract<SourceSpec, { kind: K }>> } = {
  http: fetchHttp,
  file: fetchFile,
};

/** Fetches from whatever the spec names; see {@link Fetch}. */
export const fetchSource: Fetch<SourceSpec> = (spec, sink, signal) =>
  (fetchers[spec.kind] as Fetch<SourceSpec>)(spec, sink, signal);
