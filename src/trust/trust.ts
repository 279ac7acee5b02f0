import type { Name } from './name.ts';

/**
 * The seam of the room: who is trusted, and what a proof leaves behind. A verifier returns the bytes that were proven and their
 * signer, or throws a Failure that says which rule was broken; nothing in between. The clock is a parameter, so that a list of 2013
 * can be judged at its own date.
 */

/** Whose word is taken, with the material that a subscription's `trust` refers to already read. */
export type Trust = X509Trust | OpenPgpTrust | MinisignTrust | UnsignedTrust;

export type Rule = 'Require' | 'IfPresent' | 'Ignore';

export interface X509Trust {
  readonly kind: 'x509';
  /** Who may sign; undefined: whoever the anchors vouch for (`imageproxy inspect` without `--endorser`). */
  readonly endorsers: readonly Endorser[] | undefined;
  readonly anchors: Anchors;
  readonly crl: Rule;
  /** What a CA may sign, as IGTF distributes it: `.signing_policy` and `.namespaces`. */
  readonly signingPolicy: Rule;
  readonly allowSha1: boolean;
}

/** What a directory of trust anchors holds (`/etc/grid-security/certificates`), whatever its files are called. */
export interface Anchors {
  /** PEM or DER certificates; a file may hold several. */
  readonly certificates: readonly NamedFile[];
  /** PEM or DER. */
  readonly crls: readonly NamedFile[];
  /** `*.signing_policy` and `*.namespaces`; the name says which form it has. */
  readonly policies: readonly NamedFile[];
}

export interface NamedFile {
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** Distinguished names in any of the usual forms: `/DC=ch/CN=x`, RFC 4514 `CN=x,DC=ch`, OpenSSL's `DC = ch, CN = x`. */
export interface Endorser {
  readonly subject: string;
  readonly issuer: string;
}

export interface OpenPgpTrust {
  readonly kind: 'openpgp';
  /** Armored or binary public keys. */
  readonly keyring: Uint8Array;
  readonly allowSha1: boolean;
}

export interface MinisignTrust {
  readonly kind: 'minisign';
  /** Base64, 56 characters that begin with RW. */
  readonly publicKeys: readonly string[];
}

export interface UnsignedTrust {
  readonly kind: 'unsigned';
}

/** Who vouches for the bytes. */
export interface Signer {
  readonly kind: 'x509' | 'openpgp' | 'minisign';
  /** One line for people and for status: the subject as `/DC=ch/…`, the user id and key, the minisign key. */
  readonly name: string;
  /** X.509: one-line form `/DC=ch/DC=cern/CN=x`. */
  readonly subject?: string;
  readonly issuer?: string;
  /** X.509: the same two names, to be compared with what others write (`isSigner`). */
  readonly names?: { readonly subject: Name; readonly issuer: Name };
  /** X.509: addresses of the certificate (rfc822 names and emailAddress). */
  readonly emails?: readonly string[];
  /** Hex: sha256 of the certificate, fingerprint of the OpenPGP key, id of the minisign key. */
  readonly fingerprint: string;
  /** Digest of the signature in lower case, `sha256` for instance. */
  readonly digest?: string;
  /** As the signer says, RFC 3339; no proof of time. */
  readonly signedAt?: string;
  readonly notBefore?: string;
  readonly notAfter?: string;
  /** Subjects from the signer up to the anchor. */
  readonly chain?: readonly string[];
}

export interface Proven {
  /** The bytes that the signature covers, and no others: only these may be parsed. */
  readonly content: Uint8Array;
  readonly signer: Signer;
}
