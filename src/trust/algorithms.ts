import type { KeyObject } from 'node:crypto';
import { type Element, Malformed, Members, members, oidOf, TAG } from './der.ts';

/**
 * Which digests and keys are good enough. An allow-list: what is not here is weak. SHA-1 (and RSA keys of 1024 bits, which are of the
 * same age) only where the trust says `allowSha1`; MD5, MD2 and DSA never.
 */
export interface Strength {
  readonly allowSha1: boolean;
}

/** RFC 8017, RFC 5758, FIPS 180-4, FIPS 202. */
const DIGESTS: Readonly<Record<string, string>> = {
  '1.2.840.113549.2.5': 'md5',
  '1.3.14.3.2.26': 'sha1',
  '2.16.840.1.101.3.4.2.4': 'sha224',
  '2.16.840.1.101.3.4.2.1': 'sha256',
  '2.16.840.1.101.3.4.2.2': 'sha384',
  '2.16.840.1.101.3.4.2.3': 'sha512',
  '2.16.840.1.101.3.4.2.8': 'sha3-256',
  '2.16.840.1.101.3.4.2.9': 'sha3-384',
  '2.16.840.1.101.3.4.2.10': 'sha3-512',
};

/** Signature algorithms by the digest that they hold; undefined: the digest is told elsewhere. */
const SIGNATURES: Readonly<Record<string, string | undefined>> = {
  '1.2.840.113549.1.1.4': 'md5',
  '1.2.840.113549.1.1.5': 'sha1',
  '1.3.14.3.2.29': 'sha1',
  '1.2.840.113549.1.1.14': 'sha224',
  '1.2.840.113549.1.1.11': 'sha256',
  '1.2.840.113549.1.1.12': 'sha384',
  '1.2.840.113549.1.1.13': 'sha512',
  '1.2.840.10045.4.1': 'sha1',
  '1.2.840.10045.4.3.1': 'sha224',
  '1.2.840.10045.4.3.2': 'sha256',
  '1.2.840.10045.4.3.3': 'sha384',
  '1.2.840.10045.4.3.4': 'sha512',
  // Ed25519 with SHA-512 and Ed448 with SHAKE256 within.
  '1.3.101.112': 'sha512',
  '1.3.101.113': 'shake256',
  // CMS may name the key's algorithm alone (RFC 3370 §3.2); the digest is the signer's digestAlgorithm.
  '1.2.840.113549.1.1.1': undefined,
  '1.2.840.10045.2.1': undefined,
};

const RSASSA_PSS = '1.2.840.113549.1.1.10';
const GOOD = /^(?:sha(?:224|256|384|512)|sha3-\d+|shake256)$/;
const CURVES = new Set(['prime256v1', 'secp256k1', 'secp384r1', 'secp521r1']);

/** Lower case, as node:crypto calls it; the object identifier where we do not know it. */
export function digestOf(algorithm: Element): string {
  const oid = oidOf(members(algorithm, TAG.sequence)[0] ?? algorithm);
  return DIGESTS[oid] ?? oid;
}

/** The digest within a signature algorithm; undefined where the algorithm names none. */
export function signatureDigestOf(algorithm: Element): string | undefined {
  const parts = members(algorithm, TAG.sequence);
  const oid = oidOf(parts[0] ?? algorithm);
  if (oid === RSASSA_PSS) return pssDigest(parts[1]);
  return oid in SIGNATURES ? SIGNATURES[oid] : oid;
}

/** RFC 4055 §3.1: the hash is [0] of the parameters, SHA-1 by default. */
function pssDigest(parameters: Element | undefined): string {
  if (parameters === undefined) throw new Malformed('its RSASSA-PSS has no parameters');
  const hash = new Members(parameters).optional(0xa0);
  const algorithm = hash === undefined ? undefined : members(hash)[0];
  return algorithm === undefined ? 'sha1' : digestOf(algorithm);
}

/** What is weak about a digest, for a message; undefined: nothing. */
export function weaknessOfDigest(digest: string, { allowSha1 }: Strength): string | undefined {
  if (GOOD.test(digest) || (digest === 'sha1' && allowSha1)) return undefined;
  return digest === 'sha1' ? 'uses SHA-1' : `uses ${digest.toUpperCase()}`;
}

/** What is weak about a key, for a message; undefined: nothing. */
export function weaknessOfKey(key: KeyObject, { allowSha1 }: Strength): string | undefined {
  const { modulusLength = 0, namedCurve = 'an unnamed curve' } = key.asymmetricKeyDetails ?? {};
  const kind = key.asymmetricKeyType ?? 'unknown';
  if (kind === 'rsa' || kind === 'rsa-pss') {
    return modulusLength >= (allowSha1 ? 1024 : 2048) ? undefined : `has an RSA key of ${modulusLength} bits`;
  }
  if (kind === 'ec') return CURVES.has(namedCurve) ? undefined : `has a key on ${namedCurve}`;
  return kind === 'ed25519' || kind === 'ed448' ? undefined : `has a key of the kind ${kind}`;
}
