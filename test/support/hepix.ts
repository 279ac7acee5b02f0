import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** An image of a HEPiX list, with the keys that every one has. */
export interface ListedImage {
  id: string;
  title: string;
  url: string;
  bytes: Uint8Array;
  version?: string;
  /** Further keys, or other values of those. */
  more?: Record<string, unknown>;
}

export interface ListOptions {
  id: string;
  version: string;
  created?: string;
  expires?: string;
  url?: string;
  endorser?: { subject: string; issuer: string };
  images: readonly ListedImage[];
}

const DAY_MS = 86_400_000;

/** RFC 3339, so many days from now. */
export function inDays(days: number): string {
  return new Date(Date.now() + days * DAY_MS).toISOString().replace(/\.\d{3}Z$/, 'Z');
}

/** The JSON of a HEPiX image list, as VMCaster writes it. */
export function hepixList({ id, version, images, ...options }: ListOptions): string {
  const { subject = '/DC=org/DC=example/CN=alice', issuer = '/DC=org/DC=example/CN=Example CA' } =
    options.endorser ?? {};
  const list = {
    'dc:identifier': id,
    'dc:date:created': options.created ?? inDays(-1),
    'dc:date:expires': options.expires ?? inDays(28),
    'dc:description': 'Images for tests',
    'dc:title': 'Test list',
    'dc:source': 'example.org',
    'hv:uri': options.url ?? 'https://example.org/image.list',
    'hv:version': version,
    'hv:endorser': {
      'hv:x509': { 'dc:creator': 'Alice', 'hv:ca': issuer, 'hv:dn': subject, 'hv:email': 'alice@example.org' },
    },
    'hv:images': images.map((image) => ({
      'hv:image': {
        'dc:identifier': image.id,
        'dc:title': image.title,
        'dc:description': `${image.title} for tests`,
        'hv:hypervisor': 'QEMU,KVM',
        'hv:format': 'qcow2',
        'hv:size': image.bytes.length,
        'hv:uri': image.url,
        'hv:version': image.version ?? '1',
        'sl:arch': 'x86_64',
        'sl:checksum:sha512': createHash('sha512').update(image.bytes).digest('hex'),
        'sl:comments': '',
        'sl:os': 'Linux',
        'sl:osversion': 'Ubuntu 24.04',
        ...image.more,
      },
    })),
  };
  return JSON.stringify({ 'hv:imagelist': list }, undefined, 2);
}

export interface ListSigner {
  readonly subject: string;
  readonly issuer: string;
  /** S/MIME, detached: what is published. */
  sign(list: string): Buffer;
}

export interface ListAuthority {
  /** PEM of the CA's certificate. */
  readonly ca: string;
  signer(name: string): ListSigner;
  /** PEM of the CA's list of revoked certificates, these among them. */
  crl(...revoked: ListSigner[]): string;
  close(): void;
}

/** A certificate authority that issues certificates to endorsers, made on the spot by openssl. */
export function makeListAuthority(name = 'Example CA'): ListAuthority {
  const folder = mkdtempSync(join(tmpdir(), 'list-authority-'));
  const openssl = (...args: string[]) =>
    execFileSync('openssl', args, { cwd: folder, stdio: 'pipe', maxBuffer: 256 * 2 ** 20 });
  const path = (file: string) => join(folder, file);
  const issuer = `/DC=org/DC=example/CN=${name}`;
  writeFileSync(
    path('ca.cnf'),
    [
      '[req]',
      'distinguished_name = dn',
      '[dn]',
      '[v3_ca]',
      'basicConstraints = critical, CA:true',
      'keyUsage = critical, keyCertSign, cRLSign',
      'subjectKeyIdentifier = hash',
      '[user]',
      'basicConstraints = critical, CA:false',
      'keyUsage = critical, digitalSignature, nonRepudiation',
      'extendedKeyUsage = emailProtection, clientAuth',
      'subjectKeyIdentifier = hash',
      'authorityKeyIdentifier = keyid',
      '[ca]',
      'default_ca = us',
      '[us]',
      'database = index.txt',
      'default_md = sha256',
      'default_crl_days = 2',
      'crlnumber = crlnumber',
      '',
    ].join('\n'),
  );
  writeFileSync(path('index.txt'), '');
  writeFileSync(path('crlnumber'), '01\n');
  const key = ['-newkey', 'rsa:2048', '-nodes', '-config', 'ca.cnf'];
  openssl(
    'req',
    '-x509',
    ...key,
    '-keyout',
    'ca.key',
    '-out',
    'ca.pem',
    '-days',
    '30',
    '-subj',
    issuer,
    '-extensions',
    'v3_ca',
  );
  let serial = 100;
  const files = new Map<ListSigner, string>();
  return {
    ca: readFileSync(path('ca.pem'), 'utf8'),
    signer(person) {
      const file = `signer-${serial}`;
      const subject = `/DC=org/DC=example/CN=${person}`;
      openssl('req', ...key, '-keyout', `${file}.key`, '-out', `${file}.csr`, '-subj', subject);
      const by = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-set_serial', String(serial++), '-days', '30'];
      openssl(
        'x509',
        '-req',
        '-in',
        `${file}.csr`,
        '-out',
        `${file}.pem`,
        ...by,
        '-extfile',
        'ca.cnf',
        '-extensions',
        'user',
      );
      const signer: ListSigner = {
        subject,
        issuer,
        sign(list) {
          writeFileSync(path('list.json'), list);
          const how = ['-sign', '-md', 'sha256', '-in', 'list.json', '-signer', `${file}.pem`, '-inkey', `${file}.key`];
          return openssl('smime', ...how);
        },
      };
      files.set(signer, file);
      return signer;
    },
    crl(...revoked) {
      for (const signer of revoked) {
        openssl(
          'ca',
          '-config',
          'ca.cnf',
          '-revoke',
          `${files.get(signer)}.pem`,
          '-keyfile',
          'ca.key',
          '-cert',
          'ca.pem',
        );
      }
      openssl('ca', '-config', 'ca.cnf', '-gencrl', '-keyfile', 'ca.key', '-cert', 'ca.pem', '-out', 'crl.pem');
      return readFileSync(path('crl.pem'), 'utf8');
    },
    close: () => rmSync(folder, { recursive: true, force: true }),
  };
}
