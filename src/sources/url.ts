import { createHash } from 'node:crypto';

/**
 * A URL as status, journals and logs may show it: scheme, host, port and path. Credentials are left out; the query, which may be
 * a signature that lets anybody read (S3, GCS and Azure presigned URLs), becomes a short hash, so that two queries stay two.
 * Never throws: what is no URL comes back as `(no URL)`, because it could hold anything.
 */
export function cleanUrl(url: string | URL): string {
  const parsed = typeof url === 'string' ? URL.parse(url) : url;
  if (parsed === null || parsed.host === '') return '(no URL)';
  const query = parsed.search.length > 1 ? `?…${hash(parsed.search)}` : '';
  return `${parsed.protocol}//${parsed.host}${parsed.pathname}${query}`;
}

function hash(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 8);
}
