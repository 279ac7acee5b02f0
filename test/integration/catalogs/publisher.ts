import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Endorser, MinisignTrust, OpenPgpTrust, X509Trust } from '../../../src/trust/trust.ts';

/** Somebody who signs lists, with the programs that publishers use. */
export interface Publisher {
  /** Where the keys are: `alice.pem`, `alice.key`, `bob.pem`, `minisign.key`; a GnuPG home. */
  readonly folder: string;
  /** Runs a command line there, with the GnuPG home. */
  run(commandLine: string): void;
  openssl(...args: readonly string[]): void;
  write(name: string, content: string | Uint8Array): void;
  read(name: string): Buffer;
  /** Signs in the name of a person of the authority: S/MIME with the content in it. */
  smime(content: string, person?: Person): Buffer;
  /** Signs with the key of an OpenPGP user. */
  clearsign(content: string, person?: Person): Buffer;
  detached(content: string, person?: Person): Buffer;
  /** An enveloped XML signature, as the last child of the root, by who has a `.key` and a `.pem` of this name. */
  xmlsign(document: string, person?: string): string;
  /** Takes the word of these endorsers. */
  readonly x509: (...people: readonly Person[]) => X509Trust;
  readonly openpgp: (...people: readonly Person[]) => OpenPgpTrust;
  readonly minisign: MinisignTrust;
  close(): void;
}

/** The programs that this takes. */
export const PROGRAMS = ['openssl', 'gpg', 'minisign', 'xmlsec1'] as const;

export type Person = 'alice' | 'bob';

export const ENDORSERS: Readonly<Record<Person, Endorser>> = {
  alice: { subject: '/DC=org/DC=example/CN=alice', issuer: '/DC=org/DC=example/CN=Example CA' },
  bob: { subject: '/DC=org/DC=example/CN=bob', issuer: '/DC=org/DC=example/CN=Example CA' },
};

/** As StratusLab's tools have it, with SHA-256 for SHA-1. */
const XML_SIGNATURE = `<Signature xmlns="http://www.w3.org/2000/09/xmldsig#"><SignedInfo><CanonicalizationMethod Algorithm="http://www.w3.org/TR/2001/REC-xml-c14n-20010315#WithComments"/><SignatureMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"/><Reference URI=""><Transforms><Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"/></Transforms><DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"/><DigestValue/></Reference></SignedInfo><SignatureValue/><KeyInfo><X509Data/></KeyInfo></Signature>`;

export function makePublisher(): Publisher {
  const folder = mkdtempSync(join(tmpdir(), 'publisher-'));
  const env = { ...process.env, GNUPGHOME: folder };
  const start = (program: string, args: readonly string[], input?: string) =>
    execFileSync(program, args, { cwd: folder, env, stdio: 'pipe', ...(input === undefined ? {} : { input }) });
  const path = (name: string) => join(folder, name);
  const newKey = ['-newkey', 'rsa:2048', '-nodes'];
  const subject = (name: string) => ['-subj', `/DC=org/DC=example/CN=${name}`];
  start('openssl', [
    'req',
    '-x509',
    ...newKey,
    '-keyout',
    'ca.key',
    '-out',
    'ca.pem',
    '-days',
    '3650',
    ...subject('Example CA'),
  ]);
  (['alice', 'bob'] as const).forEach((person, index) => {
    start('openssl', ['req', ...newKey, '-keyout', `${person}.key`, '-out', `${person}.csr`, ...subject(person)]);
    writeFileSync(
      path(`${person}.ext`),
      `keyUsage=digitalSignature\nextendedKeyUsage=emailProtection\nsubjectAltName=email:${person}@example.org\n`,
    );
    const issue = [
      'x509',
      '-req',
      '-in',
      `${person}.csr`,
      '-CA',
      'ca.pem',
      '-CAkey',
      'ca.key',
      '-set_serial',
      String(index + 2),
    ];
    start('openssl', [...issue, '-days', '3650', '-extfile', `${person}.ext`, '-out', `${person}.pem`]);
    start('gpg', [
      '--batch',
      '--quiet',
      '--passphrase',
      '',
      '--quick-generate-key',
      `${person}@example.org`,
      'ed25519',
      'sign',
      'never',
    ]);
  });
  start('minisign', ['-G', '-W', '-f', '-p', 'minisign.pub', '-s', 'minisign.key']);
  const user = (person: Person) => ['--batch', '--quiet', '--local-user', `${person}@example.org`];
  return {
    folder,
    run: (commandLine) => {
      const [program = '', ...args] = commandLine.split(/\s+/);
      start(program, args);
    },
    openssl: (...args) => void start('openssl', args),
    write: (name, content) => writeFileSync(path(name), content),
    read: (name) => readFileSync(path(name)),
    smime: (content, person = 'alice') =>
      start(
        'openssl',
        ['cms', '-sign', '-signer', `${person}.pem`, '-inkey', `${person}.key`, '-md', 'sha256'],
        content,
      ),
    clearsign: (content, person = 'alice') => start('gpg', [...user(person), '--clearsign'], content),
    detached: (content, person = 'alice') => start('gpg', [...user(person), '--detach-sign'], content),
    xmlsign: (document, person = 'alice') => {
      writeFileSync(
        path('template.xml'),
        document.replace(/<\/[\w:]+>\s*$/, (end) => XML_SIGNATURE + end),
      );
      start('xmlsec1', [
        '--sign',
        '--privkey-pem',
        `${person}.key,${person}.pem`,
        '--output',
        'signed.xml',
        'template.xml',
      ]);
      return readFileSync(path('signed.xml'), 'utf8')
        .replace(/^<\?xml.*\?>\s*/, '')
        .trimEnd();
    },
    x509: (...people) => ({
      kind: 'x509',
      endorsers: people.map((person) => ENDORSERS[person]),
      anchors: { certificates: [{ name: 'ca.pem', bytes: readFileSync(path('ca.pem')) }], crls: [], policies: [] },
      crl: 'Ignore',
      signingPolicy: 'Ignore',
      allowSha1: false,
    }),
    openpgp: (...people) => ({
      kind: 'openpgp',
      keyring: start('gpg', ['--batch', '--armor', '--export', ...people.map((person) => `${person}@example.org`)]),
      allowSha1: false,
    }),
    minisign: {
      kind: 'minisign',
      publicKeys: [/^RW\S+$/m.exec(readFileSync(path('minisign.pub'), 'utf8'))?.[0] ?? ''],
    },
    close: () => {
      // The agent that gpg has started for the keys.
      start('gpgconf', ['--kill', 'all']);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
