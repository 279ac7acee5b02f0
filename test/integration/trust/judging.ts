import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Failure } from '../../../src/api/failure.ts';
import { anchorsOf, type Judged, verifySigned } from '../../../src/trust/index.ts';
import type { NamedFile, X509Trust } from '../../../src/trust/trust.ts';

process.env['PATH'] = `${process.env['PATH']}:/usr/sbin:/sbin`;

export const never = new AbortController().signal;
/** When the tests' certificates and revocation lists are valid. */
export const NOW = Date.parse('2024-06-01T12:00:00Z');

export function installed(...programs: string[]): boolean {
  const folders = (process.env['PATH'] ?? '').split(':');
  return programs.every((program) => folders.some((folder) => existsSync(join(folder, program))));
}

export function trusting(files: readonly NamedFile[], rules: Partial<X509Trust> = {}): X509Trust {
  const anchors = anchorsOf(files);
  const strict = { crl: 'IfPresent', signingPolicy: 'IfPresent', allowSha1: false } as const;
  return { kind: 'x509', endorsers: undefined, ...strict, anchors, ...rules };
}

/** The one-line form of what comes out: `ok`, or the reason. */
export async function verdict(
  document: Uint8Array,
  trust: X509Trust,
  more: { at?: number; signature?: Uint8Array } = {},
): Promise<string> {
  const judged = await judge(document, trust, more);
  return judged instanceof Failure ? judged.reason : 'ok';
}

export async function judge(
  document: Uint8Array,
  trust: X509Trust,
  { at = NOW, signature }: { at?: number; signature?: Uint8Array } = {},
): Promise<Judged | Failure> {
  try {
    return await verifySigned(document, { trust, at, signal: never, signature });
  } catch (error) {
    if (error instanceof Failure) return error;
    throw error;
  }
}
