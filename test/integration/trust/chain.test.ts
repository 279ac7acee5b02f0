import { X509Certificate } from 'node:crypto';
import { afterAll, describe, expect, it } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import type { NamedFile, X509Trust } from '../../../src/trust/trust.ts';
import { AUTHORITY, type Party, Pki, SIGNER } from '../../support/pki.ts';
import { installed, judge, NOW, trusting, verdict } from './judging.ts';
import { describePublished } from './published.ts';

const CONTENT = '{\n  "hv:imagelist": {}\n}\n';

const able = installed('openssl', 'prlimit', 'setpriv');

describe.skipIf(!able)('who signed an S/MIME list', () => {
  const pki = new Pki();
  afterAll(() => pki.close());
  const root = pki.party({ subject: '/DC=org/DC=example/CN=Root' });
  const sub = pki.party({ subject: '/DC=org/DC=example/CN=Sub', issuer: root, extensions: AUTHORITY });
  const alice = pki.party({ subject: '/DC=org/DC=example/CN=Alice', issuer: sub });

  const pem = (name: string, ...parties: Party[]): NamedFile => ({
    name,
    bytes: Buffer.concat(parties.map((party) => party.pem)),
  });
  const anchors = [pem('root.0', root), pem('sub.0', sub)];
  const signed = (party: Party, ...options: string[]) => pki.sign(party, CONTENT, '-md', 'sha256', ...options);
  const signer = (issuer: Party, extensions = SIGNER) =>
    pki.party({ subject: '/DC=org/DC=example/CN=Somebody', issuer, extensions });
  const without = (extensions: string[], name: string) => extensions.filter((line) => !line.startsWith(name));

  it('is told with his names, addresses, dates and the chain up to the anchor', async () => {
    const bob = pki.party({
      subject: '/DC=org/DC=example/CN=Bob/emailAddress=bob@example.org',
      issuer: sub,
      extensions: [...SIGNER, 'subjectAltName=email:b@example.org'],
      key: 'rsa',
    });
    const judged = await judge(signed(bob), trusting(anchors));
    expect(judged).toMatchObject({
      signer: {
        kind: 'x509',
        name: '/DC=org/DC=example/CN=Bob/emailAddress=bob@example.org',
        subject: '/DC=org/DC=example/CN=Bob/emailAddress=bob@example.org',
        issuer: '/DC=org/DC=example/CN=Sub',
        emails: ['b@example.org', 'bob@example.org'],
        fingerprint: new X509Certificate(bob.pem).fingerprint256.replaceAll(':', '').toLowerCase(),
        digest: 'sha256',
        notBefore: '2020-01-01T00:00:00.000Z',
        notAfter: '2030-01-01T00:00:00.000Z',
        chain: [
          '/DC=org/DC=example/CN=Bob/emailAddress=bob@example.org',
          '/DC=org/DC=example/CN=Sub',
          '/DC=org/DC=example/CN=Root',
        ],
      },
    });
    expect(Buffer.from(judged instanceof Failure ? '' : judged.content).toString()).toBe(
      CONTENT.replaceAll('\n', '\r\n'),
    );
  });

  describe('is believed', () => {
    it.each(['ec', 'rsa'] as const)('with a key of the kind %s', async (key) => {
      const party = pki.party({ subject: '/CN=Kind', issuer: root, key });
      expect(await verdict(signed(party), trusting(anchors))).toBe('ok');
    });

    it('with RSASSA-PSS, in the signature and in the certificate', async () => {
      const pss = ['rsa_padding_mode:pss'];
      const certified = pki.party({ subject: '/CN=Authority of PSS', key: 'rsa', signatureOptions: pss });
      const party = pki.party({ subject: '/CN=P', issuer: certified, key: 'rsa', signatureOptions: pss });
      const message = signed(party, '-keyopt', 'rsa_padding_mode:pss');
      expect(await verdict(message, trusting([pem('pss.0', certified)]))).toBe('ok');
    });

    it('when the authority in between came with the message only', async () => {
      const message = signed(alice, '-certfile', `${sub.name}.pem`);
      expect(await verdict(message, trusting([pem('root.0', root)]))).toBe('ok');
    });

    it('when his own certificate is among the trusted, though his authority is not', async () => {
      expect(await verdict(signed(alice), trusting([pem('alice.crt', alice)]))).toBe('ok');
    });

    it('when his certificate signed itself and is trusted', async () => {
      const self = pki.party({ subject: '/CN=Self', extensions: without(SIGNER, 'authorityKeyIdentifier') });
      expect(await verdict(signed(self), trusting([pem('self.crt', self)]))).toBe('ok');
    });

    it('by another way when the first way up has ended', async () => {
      const old = pki.party({ subject: '/CN=Old root', to: '2023-01-01' });
      const cross = pki.party({
        subject: '/DC=org/DC=example/CN=Sub',
        issuer: old,
        extensions: AUTHORITY,
        keyOf: sub,
        to: '2023-01-01',
      });
      const files = [pem('old.0', old), pem('cross.0', cross), ...anchors];
      expect(await verdict(signed(alice), trusting(files))).toBe('ok');
      expect(await verdict(signed(alice), trusting(files.toReversed()))).toBe('ok');
    });

    it.each([
      ['without any restriction', ['basicConstraints=CA:FALSE', 'authorityKeyIdentifier=keyid']],
      ['for nonRepudiation alone', ['keyUsage=critical,nonRepudiation', 'authorityKeyIdentifier=keyid']],
      [
        'for client authentication, as grid users have it',
        [...without(SIGNER, 'extended'), 'extendedKeyUsage=clientAuth'],
      ],
      [
        'for a host that may also sign mail, as portals have it',
        [...without(SIGNER, 'extended'), 'extendedKeyUsage=serverAuth,clientAuth,emailProtection'],
      ],
      [
        'with a Netscape type only, as old authorities have it',
        [...without(SIGNER, 'extended'), 'nsCertType=client,email'],
      ],
    ])('with a certificate %s', async (_, extensions) => {
      expect(await verdict(signed(signer(root, extensions)), trusting(anchors))).toBe('ok');
    });
  });

  describe('is not believed', () => {
    it.each(['extendedKeyUsage=serverAuth', 'keyUsage=critical,keyEncipherment'])(
      'and is a stranger first when nobody vouches for him, whatever his certificate is for: %s',
      async (extension) => {
        const self = pki.party({ subject: '/CN=Self-made', extensions: [extension] });
        const endorsers = [{ subject: '/DC=org/DC=example/CN=Alice', issuer: '/DC=org/DC=example/CN=Sub' }];
        expect(await verdict(signed(self), trusting(anchors, { endorsers }))).toBe('UntrustedSigner');
      },
    );

    it('and is a stranger first when nobody vouches for him, however weak his key is', async () => {
      const weak = pki.party({ subject: '/CN=Self-made', key: 'rsa-1024' });
      expect(await verdict(signed(weak), trusting(anchors, { endorsers: [] }))).toBe('UntrustedSigner');
    });

    const cases: [string, string, () => { party: Party; files?: NamedFile[]; rules?: Partial<X509Trust> }][] = [
      [
        'when what is trusted cannot be read',
        'InvalidTrust',
        () => ({
          party: alice,
          files: [
            { name: 'a.0', bytes: root.pem.subarray(0, 200) },
            { name: 'b.0', bytes: Buffer.from([0x30, 0]) },
          ],
        }),
      ],
      ['when nothing is trusted', 'UntrustedSigner', () => ({ party: alice, files: [] })],
      [
        'when his authority has the right name and another key',
        'UntrustedSigner',
        () => ({ party: alice, files: [pem('a.0', pki.party({ subject: '/DC=org/DC=example/CN=Sub' })), anchors[0]!] }),
      ],
      [
        'when only the authority in between is trusted, not the root',
        'UntrustedSigner',
        () => ({ party: alice, files: [anchors[1]!] }),
      ],
      ['when the authority in between is missing', 'UntrustedSigner', () => ({ party: alice, files: [anchors[0]!] })],
      [
        'when his certificate signed itself and nobody trusts it',
        'UntrustedSigner',
        () => ({
          party: pki.party({ subject: '/DC=org/DC=example/CN=Alice', extensions: ['keyUsage=digitalSignature'] }),
        }),
      ],
      [
        'when a person issued his certificate',
        'CertificateInvalid',
        () => {
          const person = pki.party({ subject: '/CN=P', issuer: root, extensions: ['basicConstraints=CA:FALSE'] });
          return { party: signer(person), files: [...anchors, pem('p.0', person)] };
        },
      ],
      [
        'when his authority may not sign certificates',
        'UntrustedSigner',
        () => {
          const extensions = [...without(AUTHORITY, 'keyUsage'), 'keyUsage=critical,cRLSign'];
          const authority = pki.party({ subject: '/CN=A', issuer: root, extensions });
          return { party: signer(authority), files: [...anchors, pem('a.0', authority)] };
        },
      ],
      [
        'when the chain is longer than an authority allows',
        'CertificateInvalid',
        () => {
          const extensions = ['basicConstraints=critical,CA:TRUE,pathlen:0', ...AUTHORITY.slice(1)];
          const last = pki.party({ subject: '/CN=Last', issuer: root, extensions });
          const beyond = pki.party({ subject: '/CN=Beyond', issuer: last, extensions: AUTHORITY });
          return { party: signer(beyond), files: [...anchors, pem('l.0', last), pem('b.0', beyond)] };
        },
      ],
      [
        'when an authority has a critical extension that nobody knows',
        'CertificateInvalid',
        () => {
          const extensions = [...AUTHORITY, '1.2.3.4=critical,ASN1:NULL'];
          const authority = pki.party({ subject: '/CN=X', issuer: root, extensions });
          return { party: signer(authority), files: [...anchors, pem('x.0', authority)] };
        },
      ],
      [
        'when he himself has one',
        'CertificateInvalid',
        () => ({ party: signer(root, [...SIGNER, '1.2.3.4=critical,ASN1:NULL']) }),
      ],
      [
        'when his name is outside of what his authority may certify',
        'CertificateInvalid',
        () => {
          const extensions = [...AUTHORITY, 'nameConstraints=critical,permitted;email:example.com'];
          const authority = pki.party({ subject: '/CN=N', issuer: root, extensions });
          const party = signer(authority, [...SIGNER, 'subjectAltName=email:a@example.org']);
          return { party, files: [...anchors, pem('n.0', authority)] };
        },
      ],
      [
        'with a certificate for servers alone',
        'CertificateInvalid',
        () => ({ party: signer(root, [...without(SIGNER, 'extended'), 'extendedKeyUsage=serverAuth']) }),
      ],
      [
        'with a key for encryption alone',
        'CertificateInvalid',
        () => ({ party: signer(root, [...without(SIGNER, 'keyUsage'), 'keyUsage=critical,keyEncipherment']) }),
      ],
      [
        'when his authority is limited to servers',
        'CertificateInvalid',
        () => {
          const extensions = [...AUTHORITY, 'extendedKeyUsage=serverAuth'];
          const authority = pki.party({ subject: '/CN=S', issuer: root, extensions });
          return { party: signer(authority), files: [...anchors, pem('s.0', authority)] };
        },
      ],
      [
        'with a certificate that has ended',
        'CertificateExpired',
        () => ({ party: pki.party({ subject: '/CN=E', issuer: root, to: '2024-05-31' }) }),
      ],
      [
        'with a certificate that has not begun',
        'CertificateExpired',
        () => ({ party: pki.party({ subject: '/CN=F', issuer: root, from: '2024-06-02' }) }),
      ],
      [
        'when his authority has ended',
        'CertificateExpired',
        () => {
          const authority = pki.party({ subject: '/CN=O', issuer: root, extensions: AUTHORITY, to: '2024-05-31' });
          return { party: signer(authority), files: [...anchors, pem('o.0', authority)] };
        },
      ],
      [
        'when his own trusted certificate has ended',
        'CertificateExpired',
        () => {
          const party = pki.party({ subject: '/CN=G', issuer: root, to: '2024-05-31' });
          return { party, files: [pem('g.crt', party)] };
        },
      ],
      [
        'when his authority signed his certificate with SHA-1',
        'WeakSignature',
        () => ({ party: pki.party({ subject: '/CN=W', issuer: root, digest: 'sha1' }) }),
      ],
      [
        'when the authority in between was signed with SHA-1',
        'WeakSignature',
        () => {
          const authority = pki.party({ subject: '/CN=V', issuer: root, extensions: AUTHORITY, digest: 'sha1' });
          return { party: signer(authority), files: [...anchors, pem('v.0', authority)] };
        },
      ],
      [
        'when MD5 is in the chain, whatever is allowed',
        'WeakSignature',
        () => ({
          party: pki.party({ subject: '/CN=M', issuer: root5(), digest: 'md5' }),
          files: [pem('5.0', root5())],
          rules: { allowSha1: true },
        }),
      ],
      [
        'when his authority has an RSA key of 1024 bits',
        'WeakSignature',
        () => {
          const short = pki.party({ subject: '/CN=Short root', key: 'rsa-1024' });
          return { party: signer(short), files: [pem('short.0', short)] };
        },
      ],
      [
        'with an RSA key of 1024 bits',
        'WeakSignature',
        () => ({ party: pki.party({ subject: '/CN=K', issuer: root, key: 'rsa-1024' }) }),
      ],
      [
        'with a DSA key, whatever is allowed',
        'WeakSignature',
        () => ({ party: pki.party({ subject: '/CN=D', issuer: root, key: 'dsa' }), rules: { allowSha1: true } }),
      ],
    ];

    let rsaRoot: Party | undefined;
    const root5 = () => (rsaRoot ??= pki.party({ subject: '/CN=RSA root', key: 'rsa' }));

    it.each(cases)('%s (%s)', async (_, reason, arrange) => {
      const { party, files = anchors, rules = {} } = arrange();
      expect(await verdict(signed(party), trusting(files, rules))).toBe(reason);
    });

    it('because the system trusts his authority: only the anchors count', async () => {
      const before = process.env['SSL_CERT_FILE'];
      process.env['SSL_CERT_FILE'] = pki.path(`${root.name}.pem`);
      try {
        const message = signed(alice, '-certfile', `${sub.name}.pem`);
        const other = pki.party({ subject: '/CN=Evil' });
        expect(await verdict(message, trusting([pem('evil.0', other)]))).toBe('UntrustedSigner');
      } finally {
        if (before === undefined) delete process.env['SSL_CERT_FILE'];
        else process.env['SSL_CERT_FILE'] = before;
      }
    });

    it('and the message names the certificate that is missing, or the dates', async () => {
      const missing = await judge(signed(alice), trusting([anchors[0]!]));
      expect(missing).toMatchObject({ message: expect.stringContaining('/DC=org/DC=example/CN=Sub') });
      const expired = await judge(signed(alice), trusting(anchors), { at: Date.parse('2031-01-01') });
      expect(expired).toMatchObject({
        reason: 'CertificateExpired',
        message: expect.stringContaining('valid from 2020-01-01T00:00:00.000Z to 2030-01-01T00:00:00.000Z'),
      });
    });
  });

  it('counts SHA-1 in the chain only where the trust allows it, and never in the root, which signs itself', async () => {
    const oldRoot = pki.party({ subject: '/CN=Old', digest: 'sha1' });
    const direct = pki.party({ subject: '/CN=Direct', issuer: oldRoot });
    expect(await verdict(signed(direct), trusting([pem('old.0', oldRoot)]))).toBe('ok');
    const old = pki.party({ subject: '/CN=Aged', issuer: oldRoot, digest: 'sha1' });
    const files = [pem('old.0', oldRoot)];
    expect(await verdict(signed(old), trusting(files))).toBe('WeakSignature');
    expect(await verdict(signed(old), trusting(files, { allowSha1: true }))).toBe('ok');
    const sha1 = pki.sign(direct, CONTENT, '-md', 'sha1');
    expect(await verdict(sha1, trusting(files))).toBe('WeakSignature');
    expect(await verdict(sha1, trusting(files, { allowSha1: true }))).toBe('ok');
  });

  it('must be an endorser, in whichever form he is written; that the anchors vouch for him is not enough', async () => {
    const endorsed = (subject: string, issuer: string) =>
      verdict(
        signed(alice),
        trusting(anchors, {
          endorsers: [
            { subject: '/CN=nobody', issuer: '/CN=nobody' },
            { subject, issuer },
          ],
        }),
      );
    expect(await endorsed('/DC=org/DC=example/CN=Alice', '/DC=org/DC=example/CN=Sub')).toBe('ok');
    expect(await endorsed('CN=Alice,DC=example,DC=org', 'DC = org, DC = example, CN = Sub')).toBe('ok');
    expect(await endorsed('/DC=org/DC=example/CN=Alice', '/DC=org/DC=example/CN=Root')).toBe('EndorserNotTrusted');
    expect(await endorsed('/DC=org/DC=example/CN=Bob', '/DC=org/DC=example/CN=Sub')).toBe('EndorserNotTrusted');
    const refused = await judge(signed(alice), trusting(anchors, { endorsers: [] }));
    expect(refused).toMatchObject({
      message: expect.stringContaining(
        'add subject "/DC=org/DC=example/CN=Alice" and issuer "/DC=org/DC=example/CN=Sub"',
      ),
    });
  });

  it('is out when he is no endorser any more, also while his chain cannot be judged', async () => {
    const endorsers = [{ subject: '/CN=somebody else', issuer: '/DC=org/DC=example/CN=Sub' }];
    expect(await verdict(signed(alice), trusting(anchors, { endorsers, crl: 'Require' }))).toBe('EndorserNotTrusted');
    const later = { at: Date.parse('2031-01-01') };
    expect(await verdict(signed(alice), trusting(anchors, { endorsers }), later)).toBe('EndorserNotTrusted');
    expect(await verdict(signed(alice), trusting([], { endorsers }))).toBe('UntrustedSigner');
  });

  it('of the right name from an authority that nobody trusts is a stranger', async () => {
    const impostor = pki.party({ subject: '/DC=org/DC=example/CN=Sub' });
    const forged = pki.party({ subject: '/DC=org/DC=example/CN=Alice', issuer: impostor });
    const endorsers = [{ subject: '/DC=org/DC=example/CN=Alice', issuer: '/DC=org/DC=example/CN=Sub' }];
    const message = signed(forged, '-certfile', `${impostor.name}.pem`);
    expect(await verdict(message, trusting(anchors, { endorsers }))).toBe('UntrustedSigner');
    expect(await verdict(signed(alice), trusting(anchors, { endorsers }))).toBe('ok');
  });

  describe('and revocation', () => {
    const crlFile = (name: string, bytes: Buffer): NamedFile => ({ name, bytes });
    const mallory = pki.party({ subject: '/DC=org/DC=example/CN=Mallory', issuer: sub });
    const good = [crlFile('root.r0', pki.crl(root)), crlFile('sub.r0', pki.crl(sub, { revoked: [mallory] }))];
    const withCrls = (...crls: NamedFile[]) => [...anchors, ...crls];

    it('a revoked signer is refused, another of the same authority is not', async () => {
      expect(await verdict(signed(mallory), trusting(withCrls(...good), { crl: 'Require' }))).toBe(
        'CertificateRevoked',
      );
      expect(await verdict(signed(mallory), trusting(withCrls(...good)))).toBe('CertificateRevoked');
      expect(await verdict(signed(mallory), trusting(withCrls(...good), { crl: 'Ignore' }))).toBe('ok');
      expect(await verdict(signed(alice), trusting(withCrls(...good), { crl: 'Require' }))).toBe('ok');
    });

    it('a revoked authority takes its people with it', async () => {
      const fallen = pki.party({ subject: '/CN=Fallen', issuer: root, extensions: AUTHORITY });
      const person = signer(fallen);
      const crls = [crlFile('f.r0', pki.crl(fallen)), crlFile('root.r0', pki.crl(root, { revoked: [fallen] }))];
      const files = [...anchors, pem('f.0', fallen), ...crls];
      expect(await verdict(signed(person), trusting(files, { crl: 'Require' }))).toBe('CertificateRevoked');
      expect(await verdict(signed(person), trusting(files))).toBe('CertificateRevoked');
    });

    it('a revoked signer is refused although his own certificate is trusted', async () => {
      const files = [...withCrls(...good), pem('m.crt', mallory)];
      expect(await verdict(signed(mallory), trusting(files))).toBe('CertificateRevoked');
    });

    const DER = () => pki.run('crl', '-in', pki.write('pem.crl', good[1]!.bytes), '-outform', 'DER');
    const missing: [string, () => NamedFile[], string, string][] = [
      ['none at all', () => [], 'CrlMissing', 'ok'],
      ["none of the root's", () => [good[1]!], 'CrlMissing', 'ok'],
      ["none of the signer's authority", () => [good[0]!], 'CrlMissing', 'ok'],
      [
        'one that has ended',
        () => [good[0]!, crlFile('sub.r0', pki.crl(sub, { to: '2024-05-31' }))],
        'CrlExpired',
        'CrlExpired',
      ],
      [
        'one from the future',
        () => [good[0]!, crlFile('sub.r0', pki.crl(sub, { from: '2024-06-02' }))],
        'CrlInvalid',
        'CrlInvalid',
      ],
      [
        'one that another signed in its name',
        () => [
          good[0]!,
          crlFile('sub.r0', pki.crl(pki.party({ subject: '/DC=org/DC=example/CN=Sub', extensions: [...AUTHORITY] }))),
        ],
        'CrlInvalid',
        'CrlInvalid',
      ],
      ['an empty file in its place', () => [good[0]!, crlFile('sub.r0', Buffer.alloc(0))], 'CrlInvalid', 'CrlInvalid'],
      ['a damaged one', () => [good[0]!, crlFile('sub.r0', DER().subarray(0, 60))], 'CrlInvalid', 'CrlInvalid'],
      [
        'one signed with SHA-1',
        () => [good[0]!, crlFile('sub.r0', pki.crl(sub, { digest: 'sha1' }))],
        'WeakSignature',
        'WeakSignature',
      ],
      ['one in DER', () => [good[0]!, crlFile('sub.r0', DER())], 'ok', 'ok'],
      [
        'an old one beside the new one',
        () => [good[0]!, good[1]!, crlFile('old.r0', pki.crl(sub, { from: '2024-01-01', to: '2024-02-01' }))],
        'ok',
        'ok',
      ],
    ];

    it.each(missing)('with %s', async (_, files, required, ifPresent) => {
      const all = withCrls(...files());
      expect(await verdict(signed(alice), trusting(all, { crl: 'Require' }))).toBe(required);
      expect(await verdict(signed(alice), trusting(all, { crl: 'IfPresent' }))).toBe(ifPresent);
      expect(await verdict(signed(alice), trusting(all, { crl: 'Ignore' }))).toBe('ok');
    });

    it('of an authority that may not sign revocation lists is none', async () => {
      const extensions = [...without(AUTHORITY, 'keyUsage'), 'keyUsage=critical,keyCertSign'];
      const mute = pki.party({ subject: '/CN=Mute', issuer: root, extensions });
      const files = [...withCrls(good[0]!, crlFile('mute.r0', pki.crl(mute))), pem('mute.0', mute)];
      expect(await verdict(signed(signer(mute)), trusting(files))).toBe('CrlInvalid');
    });

    it('is waited for, so that nothing is retired because fetch-crl has stopped', async () => {
      const refused = await judge(signed(alice), trusting(anchors, { crl: 'Require' }));
      expect(refused).toMatchObject({
        failureClass: 'Waiting',
        message: expect.stringContaining('/DC=org/DC=example/CN=Sub'),
      });
    });

    it('lies in one bundle with the certificates as well', async () => {
      const bundle = pem('ca.crt', root, sub);
      const bytes = Buffer.concat([bundle.bytes, ...good.map((each) => each.bytes)]);
      const files = [{ name: 'ca.crt', bytes }];
      expect(await verdict(signed(alice), trusting(files, { crl: 'Require' }))).toBe('ok');
      expect(await verdict(signed(mallory), trusting(files, { crl: 'Require' }))).toBe('CertificateRevoked');
    });
  });

  describe('and what his authority may sign', () => {
    const policy = (name: string, text: string): NamedFile => ({ name, bytes: Buffer.from(text) });
    const eacl = (name: string, issuer: string, subjects: string) =>
      policy(name, `access_id_CA X509 '${issuer}'\npos_rights globus CA:sign\ncond_subjects globus '${subjects}'\n`);
    const ofRoot = eacl('root.signing_policy', '/DC=org/DC=example/CN=Root', '"/DC=org/DC=example/CN=Sub"');
    const ofSub = eacl('sub.signing_policy', '/DC=org/DC=example/CN=Sub', '"/DC=org/DC=example/*"');
    const elsewhere = eacl('sub.signing_policy', '/DC=org/DC=example/CN=Sub', '"/DC=org/DC=elsewhere/*"');
    const namespaces = (subject: string) =>
      policy('sub.namespaces', `TO Issuer "SELF" \\\n  PERMIT Subject "${subject}"\n`);

    it.each<[string, NamedFile[], string, string]>([
      ['no file', [], 'SigningPolicyMissing', 'ok'],
      ['a file for each link', [ofRoot, ofSub], 'ok', 'ok'],
      ['a file for one link only', [ofSub], 'SigningPolicyMissing', 'ok'],
      ['a file that leaves him out', [ofRoot, elsewhere], 'SigningPolicyViolation', 'SigningPolicyViolation'],
      [
        'a file that leaves the authority in between out',
        [eacl('r.signing_policy', '/DC=org/DC=example/CN=Root', '"/DC=org/DC=example/CN=Other"'), ofSub],
        'SigningPolicyViolation',
        'SigningPolicyViolation',
      ],
      ['namespaces that permit him', [ofRoot, namespaces('/DC=org/DC=example/.*')], 'ok', 'ok'],
      [
        'namespaces that permit only the beginning of his name',
        [ofRoot, namespaces('/DC=org')],
        'SigningPolicyViolation',
        'SigningPolicyViolation',
      ],
      [
        'both forms, of which one leaves him out',
        [ofRoot, ofSub, namespaces('/DC=org/DC=elsewhere/.*')],
        'SigningPolicyViolation',
        'SigningPolicyViolation',
      ],
      [
        'namespaces that nobody can read',
        [ofRoot, namespaces('(?=/DC=org).*')],
        'SigningPolicyViolation',
        'SigningPolicyViolation',
      ],
    ])('with %s', async (_, files, required, ifPresent) => {
      const all = [...anchors, ...files];
      expect(await verdict(signed(alice), trusting(all, { signingPolicy: 'Require' }))).toBe(required);
      expect(await verdict(signed(alice), trusting(all, { signingPolicy: 'IfPresent' }))).toBe(ifPresent);
      expect(await verdict(signed(alice), trusting(all, { signingPolicy: 'Ignore' }))).toBe('ok');
    });
  });

  it('is judged at the given time, not at the time of the machine', async () => {
    expect(await verdict(signed(alice), trusting(anchors), { at: Date.parse('2019-12-31') })).toBe(
      'CertificateExpired',
    );
    expect(await verdict(signed(alice), trusting(anchors), { at: NOW })).toBe('ok');
    expect(await verdict(signed(alice), trusting(anchors), { at: 0 })).toBe('CertificateExpired');
  });
});

if (able) describePublished();
