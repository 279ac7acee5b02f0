import { createHash, type KeyObject, X509Certificate } from 'node:crypto';
import { signatureDigestOf } from './algorithms.ts';
import { bit, context, type Element, Malformed, Members, members, octetsOf, oidOf, only, TAG } from './der.ts';
import { emailsIn, type Name, nameOf, oneLine } from './name.ts';
import { derBlocks } from './pem.ts';
import type { NamedFile } from './trust.ts';

/** RFC 5280 §4.1, as far as rules need it. Reading proves nothing. */
export interface Certificate {
  readonly der: Uint8Array;
  readonly x509: X509Certificate;
  readonly publicKey: KeyObject;
  readonly subject: Name;
  readonly issuer: Name;
  /** Mail addresses that the authority vouches for: rfc822 names, and emailAddress in the subject. */
  readonly emails: readonly string[];
  /** The digest of the issuer's signature over it. */
  readonly digest: string;
  /** The bits that the extension allows; undefined: it has none, so any use is. */
  readonly keyUsage: ReadonlySet<KeyUsage> | undefined;
  /** Object identifiers; undefined: any purpose. */
  readonly purposes: readonly string[] | undefined;
  readonly selfSigned: boolean;
  /** sha256, hex. */
  readonly fingerprint: string;
  /** The files that it came from, without their ending: policies of the same stem speak of it. */
  readonly stems: readonly string[];
}

/** RFC 5280 §4.2.1.3, in the order of the bits. */
const KEY_USAGES = [
  'digitalSignature',
  'nonRepudiation',
  'keyEncipherment',
  'dataEncipherment',
  'keyAgreement',
  'keyCertSign',
  'cRLSign',
] as const;

export type KeyUsage = (typeof KEY_USAGES)[number];

const EXTENSION = { keyUsage: '2.5.29.15', extendedKeyUsage: '2.5.29.37', subjectAltName: '2.5.29.17' } as const;
const MAX_BYTES = 64 * 2 ** 10;

/** @throws Malformed, or what OpenSSL says of it */
export function readCertificate(der: Uint8Array): Certificate {
  if (der.length > MAX_BYTES) throw new Malformed(`it has more than ${MAX_BYTES} bytes`);
  const x509 = new X509Certificate(der);
  const certificate = new Members(only(der));
  const fields = new Members(certificate.take(TAG.sequence));
  const algorithm = certificate.take(TAG.sequence);
  fields.optional(context(0));
  fields.take(TAG.integer);
  fields.take(TAG.sequence);
  const issuer = nameOf(fields.take(TAG.sequence));
  fields.take(TAG.sequence);
  const subject = nameOf(fields.take(TAG.sequence));
  fields.take(TAG.sequence);
  fields.optional(0x81);
  fields.optional(0x82);
  const extensions = extensionsOf(fields.optional(context(3)));
  return {
    der,
    x509,
    publicKey: x509.publicKey,
    subject,
    issuer,
    emails: emailsOf(subject, extensions.get(EXTENSION.subjectAltName)),
    digest: signatureDigestOf(algorithm) ?? 'no digest',
    keyUsage: keyUsageOf(extensions.get(EXTENSION.keyUsage)),
    purposes: purposesOf(extensions.get(EXTENSION.extendedKeyUsage)),
    selfSigned: x509.checkIssued(x509) && x509.verify(x509.publicKey),
    fingerprint: createHash('sha256').update(der).digest('hex'),
    stems: [],
  };
}

/** All that can be read in files of certificates; one that is damaged vouches for nobody and is left out. */
export function readCertificates(files: readonly NamedFile[]): Certificate[] {
  const found = new Map<string, Certificate>();
  for (const { name, bytes } of files) {
    for (const der of derBlocks(bytes, 'CERTIFICATE')) {
      try {
        const certificate = readCertificate(der);
        const stems = [...(found.get(certificate.fingerprint)?.stems ?? []), stemOf(name)];
        found.set(certificate.fingerprint, { ...certificate, stems });
      } catch {
        // A chain that needs it fails, and says which name is missing.
      }
    }
  }
  return [...found.values()];
}

/** `d254cc30` of `d254cc30.0`, `d254cc30.namespaces`. */
export function stemOf(fileName: string): string {
  return fileName.replace(/\.[^.]*$/, '');
}

export function titleOf({ subject }: Certificate): string {
  return oneLine(subject);
}

function emailsOf(subject: Name, subjectAltName: Uint8Array | undefined): string[] {
  const names = subjectAltName === undefined ? [] : members(only(subjectAltName), TAG.sequence);
  const addresses = names.filter(({ tag }) => tag === RFC822_NAME);
  return [
    ...new Set([...addresses.map(({ content }) => Buffer.from(content).toString('latin1')), ...emailsIn(subject)]),
  ];
}

const RFC822_NAME = 0x81;

function extensionsOf(wrapped: Element | undefined): Map<string, Uint8Array> {
  const found = new Map<string, Uint8Array>();
  if (wrapped === undefined) return found;
  for (const extension of members(members(wrapped)[0] ?? wrapped, TAG.sequence)) {
    const parts = new Members(extension);
    const oid = oidOf(parts.take(TAG.oid));
    parts.optional(TAG.boolean);
    // RFC 5280 §4.2: no more than one instance; with two, different readers would believe different ones.
    if (found.has(oid)) throw new Malformed(`it has the extension ${oid} twice`);
    found.set(oid, octetsOf(parts.take()));
  }
  return found;
}

function keyUsageOf(der: Uint8Array | undefined): ReadonlySet<KeyUsage> | undefined {
  if (der === undefined) return undefined;
  const bits = only(der);
  return new Set(KEY_USAGES.filter((_, index) => bit(bits, index)));
}

function purposesOf(der: Uint8Array | undefined): readonly string[] | undefined {
  return der === undefined ? undefined : members(only(der), TAG.sequence).map(oidOf);
}
