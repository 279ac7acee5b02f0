import { createHash } from 'node:crypto';
import { identifierOf } from '../../src/catalogs/marketplace/identifier.ts';

export interface EntryWords {
  /** What the image holds; its checksums and identifier are made of it. */
  readonly content?: string | Uint8Array;
  readonly email?: string;
  readonly subject?: string;
  readonly issuer?: string;
  readonly endorsedAt?: string;
  readonly locations?: readonly string[];
  /** Further children of the Description. */
  readonly more?: string;
}

const hash = (algorithm: string, content: string | Uint8Array) => createHash(algorithm).update(content).digest('hex');

export const identifierFor = (content: string | Uint8Array) => identifierOf(hash('sha1', content));

/** An entry as StratusLab's tools write them, not signed. */
export function entryOf({
  content = 'ttylinux',
  email = 'alice@example.org',
  subject = 'CN=alice,DC=example,DC=org',
  issuer = 'CN=Example CA,DC=example,DC=org',
  endorsedAt = '2026-10-01T10:00:00Z',
  locations = ['https://images.example.org/ttylinux.qcow2.gz'],
  more = '',
}: EntryWords = {}): string {
  const id = identifierFor(content);
  const checksum = (name: string, algorithm: string) =>
    `<slreq:checksum rdf:parseType="Resource"><slreq:algorithm>${name}</slreq:algorithm><slreq:value>${hash(algorithm, content)}</slreq:value></slreq:checksum>`;
  return `<rdf:RDF xmlns:dcterms="http://purl.org/dc/terms/" xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:slreq="http://mp.stratuslab.eu/slreq#" xmlns:slterms="http://mp.stratuslab.eu/slterms#" xml:base="http://mp.stratuslab.eu/">
  <rdf:Description rdf:about="#${id}">
    <dcterms:identifier>${id}</dcterms:identifier>
    <slreq:bytes>${content.length}</slreq:bytes>
    ${checksum('MD5', 'md5')}${checksum('SHA-1', 'sha1')}${checksum('SHA-256', 'sha256')}${checksum('SHA-512', 'sha512')}
    <slreq:endorsement rdf:parseType="Resource"><created xmlns="http://purl.org/dc/terms/">${endorsedAt}</created><endorser xmlns="http://mp.stratuslab.eu/slreq#" rdf:parseType="Resource"><email>${email}</email><subject>${subject}</subject><issuer>${issuer}</issuer></endorser></slreq:endorsement>
    <dcterms:type>base</dcterms:type>
    <slterms:os>ttylinux</slterms:os><slterms:os-version>9.7</slterms:os-version><slterms:os-arch>i486</slterms:os-arch>
    ${locations.map((each) => `<slterms:location>${each}</slterms:location>`).join('')}${more}
  </rdf:Description>
</rdf:RDF>`;
}

export const metadata = (...entries: readonly string[]) =>
  `<?xml version="1.0" encoding="UTF-8"?>\r\n<metadata>${entries.join('\r\n')}</metadata>`;
