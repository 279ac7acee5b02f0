import type { Anchors, NamedFile } from './trust.ts';

/**
 * Sorts what a directory of trust anchors holds by what is in the files; their names only tell the two forms of policies apart. Takes
 * `/etc/grid-security/certificates` as it is, and a single bundle of certificates and CRLs too: a file may be on both lists. `.info`,
 * `.crl_url` and whatever else lies there is left out.
 */
export function anchorsOf(files: readonly NamedFile[]): Anchors {
  const policies = files.filter(({ name }) => /\.(?:signing_policy|namespaces)$/.test(name));
  const others = files.filter((file) => !policies.includes(file));
  return {
    certificates: others.filter(({ name, bytes }) =>
      isPem(bytes) ? hasBlock(bytes, 'CERTIFICATE') : isDer(bytes) && !isCrlName(name),
    ),
    crls: others.filter(({ name, bytes }) => (isPem(bytes) ? hasBlock(bytes, 'X509 CRL') : isCrlName(name))),
    policies,
  };
}

/** fetch-crl writes `<hash>.r0`, in PEM or DER as it is told. */
function isCrlName(name: string): boolean {
  return /\.(?:r\d+|crl)$/.test(name);
}

function isPem(bytes: Uint8Array): boolean {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).includes('-----BEGIN ');
}

function hasBlock(bytes: Uint8Array, label: string): boolean {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return text.includes(`-----BEGIN ${label}-----`);
}

/** A SEQUENCE: certificates and CRLs in DER are one. */
function isDer(bytes: Uint8Array): boolean {
  return bytes[0] === 0x30;
}
