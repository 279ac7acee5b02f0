import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Somebody with a key and a certificate: an authority, a signer. */
export interface Party {
  readonly name: string;
  readonly pem: Buffer;
}

export interface PartyOptions {
  /** RFC 4514's opposite, as `openssl req -subj` takes it: `/DC=org/CN=x`. */
  subject: string;
  /** Itself when left out. */
  issuer?: Party;
  /** Lines of an extension section. */
  extensions?: string[];
  /** `2024-01-01`; from 2020 to 2030 when left out. */
  from?: string;
  to?: string;
  key?: 'ec' | 'rsa' | 'rsa-1024' | 'dsa';
  /** Of the issuer's signature. */
  digest?: string;
  /** As `-sigopt` takes them. */
  signatureOptions?: string[];
  /** The key of somebody else: an authority that was certified twice. */
  keyOf?: Party;
}

export interface CrlOptions {
  revoked?: Party[];
  from?: string;
  to?: string;
  digest?: string;
}

const KEYS = {
  ec: ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256'],
  rsa: ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048'],
  'rsa-1024': ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:1024'],
} as const;

export const AUTHORITY = [
  'basicConstraints=critical,CA:TRUE',
  'keyUsage=critical,keyCertSign,cRLSign',
  'subjectKeyIdentifier=hash',
];
export const SIGNER = [
  'basicConstraints=CA:FALSE',
  'keyUsage=critical,digitalSignature',
  'extendedKeyUsage=emailProtection',
  'authorityKeyIdentifier=keyid',
];

/** Authorities, signers, revocation lists and signed messages, made on the spot by openssl. */
export class Pki {
  readonly folder = mkdtempSync(join(tmpdir(), 'pki-'));
  #parties = 0;

  close(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }

  run(...args: string[]): Buffer {
    return execFileSync('openssl', args, { cwd: this.folder, stdio: ['ignore', 'pipe', 'pipe'], maxBuffer: 2 ** 27 });
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  write(name: string, content: Uint8Array | string): string {
    writeFileSync(this.path(name), content);
    return name;
  }

  party(options: PartyOptions): Party {
    this.#parties += 1;
    const name = `party-${this.#parties}`;
    const { subject, issuer, key = 'ec', keyOf, signatureOptions = [] } = options;
    if (keyOf !== undefined) this.write(`${name}.key`, readFileSync(this.path(`${keyOf.name}.key`)));
    else if (key === 'dsa') this.#dsaKey(name);
    else this.run('genpkey', ...KEYS[key], '-out', `${name}.key`);
    const names = ['-subj', subject, '-utf8', '-multivalue-rdn'];
    this.run(
      'req',
      '-new',
      '-config',
      this.#configuration(name),
      '-key',
      `${name}.key`,
      ...names,
      '-out',
      `${name}.csr`,
    );
    this.write(`${name}.ext`, (options.extensions ?? (issuer === undefined ? AUTHORITY : SIGNER)).join('\n'));
    const by = issuer ?? { name };
    this.run(
      'ca',
      '-batch',
      '-notext',
      '-preserveDN',
      ...['-config', this.#configuration(by.name), '-keyfile', `${by.name}.key`],
      ...(issuer === undefined ? ['-selfsign'] : ['-cert', `${issuer.name}.pem`]),
      ...['-in', `${name}.csr`, '-out', `${name}.pem`, '-extfile', `${name}.ext`, '-md', options.digest ?? 'sha256'],
      ...['-startdate', moment(options.from ?? '2020-01-01'), '-enddate', moment(options.to ?? '2030-01-01')],
      ...signatureOptions.flatMap((each) => ['-sigopt', each]),
    );
    return { name, pem: readFileSync(this.path(`${name}.pem`)) };
  }

  crl(
    issuer: Party,
    { revoked = [], from = '2024-05-01', to = '2024-07-01', digest = 'sha256' }: CrlOptions = {},
  ): Buffer {
    const ca = ['ca', '-config', this.#configuration(issuer.name), '-keyfile', `${issuer.name}.key`];
    const cert = ['-cert', `${issuer.name}.pem`, '-md', digest];
    for (const party of revoked) this.run(...ca, ...cert, '-revoke', `${party.name}.pem`);
    const out = `${issuer.name}.crl`;
    this.run(...ca, ...cert, '-gencrl', '-crl_lastupdate', moment(from), '-crl_nextupdate', moment(to), '-out', out);
    return readFileSync(this.path(out));
  }

  /** `openssl cms -sign`; more signers, other forms and digests by its own options. */
  sign(party: Party, content: Uint8Array | string, ...options: string[]): Buffer {
    const signer = ['-signer', `${party.name}.pem`, '-inkey', `${party.name}.key`];
    return this.run('cms', '-sign', '-in', this.write('content', content), ...signer, ...options);
  }

  #dsaKey(name: string): void {
    this.run('genpkey', '-genparam', '-algorithm', 'DSA', '-pkeyopt', 'dsa_paramgen_bits:1024', '-out', `${name}.dsa`);
    this.run('genpkey', '-paramfile', `${name}.dsa`, '-out', `${name}.key`);
  }

  /** What `openssl ca` keeps of an authority: serial numbers and what is revoked. */
  #configuration(name: string): string {
    const file = `${name}.cnf`;
    if (this.#made.has(file)) return file;
    this.#made.add(file);
    this.write(`${name}.index`, '');
    this.write(`${name}.index.attr`, 'unique_subject = no\n');
    this.write(`${name}.serial`, '1000\n');
    const attributes = [
      'DC',
      'C',
      'ST',
      'L',
      'O',
      'OU',
      'CN',
      'UID',
      'emailAddress',
      'serialNumber',
      'SN',
      'GN',
      'title',
    ];
    return this.write(
      file,
      [
        '[req]',
        'distinguished_name=none',
        'string_mask=utf8only',
        '[none]',
        '[ca]',
        'default_ca=this',
        '[this]',
        `database=${name}.index`,
        `serial=${name}.serial`,
        'new_certs_dir=.',
        'policy=any',
        '[any]',
        ...attributes.map((each) => `${each}=optional`),
      ].join('\n'),
    );
  }

  readonly #made = new Set<string>();
}

/** `20240101000000Z` */
function moment(date: string): string {
  return new Date(date).toISOString().replaceAll(/[-:T]|\.\d+/g, '');
}
