import { randomBytes } from 'node:crypto';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it, vi } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import { createToolbox } from '../../../src/programs/toolbox.ts';
import { verifySigned } from '../../../src/trust/index.ts';
import { Pki } from '../../support/pki.ts';
import { installed, judge, never, NOW, trusting, verdict } from './judging.ts';
import { effortMs } from '../../support/effort.ts';

const CONTENT = '{\r\n  "hv:imagelist": { "dc:title": "é" }\r\n}\r\n';

describe.skipIf(!installed('openssl', 'prlimit', 'setpriv'))('what a signature covers', () => {
  const pki = new Pki();
  afterAll(() => pki.close());
  const root = pki.party({ subject: '/CN=Root' });
  const alice = pki.party({ subject: '/CN=Alice', issuer: root });
  const bob = pki.party({ subject: '/CN=Bob', issuer: root });
  const trust = trusting([{ name: 'root.0', bytes: root.pem }]);

  const sign = (...options: string[]) => pki.sign(alice, CONTENT, '-md', 'sha256', ...options);
  const text = (message: Uint8Array) => Buffer.from(message).toString('latin1');
  const edited = (message: Uint8Array, from: string | RegExp, to: string) => {
    const before = text(message);
    const after = before.replace(from, to);
    expect(after).not.toBe(before);
    return Buffer.from(after, 'latin1');
  };
  async function content(message: Uint8Array, signature?: Uint8Array): Promise<string> {
    const judged = await judge(message, trust, signature === undefined ? {} : { signature });
    if (judged instanceof Failure) throw judged;
    return Buffer.from(judged.content).toString('utf8');
  }
  const smime = sign();
  const boundary = /boundary="(?<it>[^"]+)"/.exec(text(smime))?.groups?.['it'] ?? '';

  describe('is returned, and nothing else,', () => {
    it.each<[string, () => Uint8Array]>([
      ['from multipart/signed as openssl writes it', () => smime],
      ['with the headers that openssl smime writes', () => edited(smime, /application\/pkcs7/g, 'application/x-pkcs7')],
      ['with an unquoted micalg, as CERN writes it', () => edited(smime, /micalg="sha-256"/, 'micalg=sha256')],
      ['with a micalg that lies', () => edited(smime, /micalg="sha-256"/, 'micalg="md5"')],
      ['without a preamble', () => edited(smime, 'This is an S/MIME signed message\n', '')],
      ['with CRLF everywhere', () => Buffer.from(text(smime).replaceAll(/\r?\n/g, '\r\n'), 'latin1')],
      ['with LF everywhere', () => Buffer.from(text(smime).replaceAll('\r\n', '\n'), 'latin1')],
      ['with a byte order mark before its headers', () => Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), smime])],
      ['with headers of mail around it', () => Buffer.concat([Buffer.from('Subject: list\nX-Long: a\n\tb\n'), smime])],
      ['from application/pkcs7-mime, with the content inside', () => sign('-nodetach')],
      ['from DER', () => sign('-nodetach', '-outform', 'DER', '-binary')],
      ['from BER of indefinite lengths', () => sign('-nodetach', '-outform', 'DER', '-stream', '-binary')],
      ['from PEM', () => sign('-nodetach', '-outform', 'PEM', '-binary')],
      ['without the certificate in it being named first', () => sign('-certfile', `${root.name}.pem`)],
      ['of a signer named by the identifier of his key', () => pki.sign(keyed(), CONTENT, '-md', 'sha256', '-keyid')],
    ])('%s', async (_, message) => {
      expect(await content(message())).toBe(CONTENT);
    });

    let withKeyId: ReturnType<Pki['party']> | undefined;
    const keyed = () =>
      (withKeyId ??= pki.party({
        subject: '/CN=Keyed',
        issuer: root,
        extensions: ['keyUsage=digitalSignature', 'subjectKeyIdentifier=hash'],
      }));

    it('with lines as they were, where the signer left them alone (-binary)', async () => {
      const lf = CONTENT.replaceAll('\r\n', '\n');
      expect(await content(pki.sign(alice, lf, '-md', 'sha256', '-binary'))).toBe(lf);
    });

    it('without the header that -text signs with it', async () => {
      expect(await content(sign('-text'))).toBe(CONTENT);
    });

    it('from a document beside its signature, in DER and in PEM, byte for byte', async () => {
      const yaml = 'images:\n- name: x\n';
      for (const form of ['DER', 'PEM']) {
        const signature = pki.sign(alice, yaml, '-md', 'sha256', '-binary', '-outform', form);
        expect(await content(Buffer.from(yaml), signature)).toBe(yaml);
      }
    });

    it('without what stands before and beside the parts', async () => {
      const message = edited(smime, 'This is an S/MIME signed message\n', '{ "hv:imagelist": "another" }\n');
      expect(await content(message)).toBe(CONTENT);
    });

    it.each(['sha384', 'sha512'])('with the digest %s', async (digest) => {
      const judged = await judge(pki.sign(alice, CONTENT, '-md', digest), trust);
      expect(judged).toMatchObject({ signer: { digest } });
    });
  });

  describe('is refused', () => {
    const twoSigners = () => sign('-signer', `${bob.name}.pem`, '-inkey', `${bob.name}.key`);
    it.each<[string, string, () => Uint8Array]>([
      ['when it is not signed', 'SignatureMissing', () => Buffer.from(CONTENT)],
      ['when there is nothing', 'SignatureMissing', () => Buffer.alloc(0)],
      ['when it is NULs', 'SignatureMissing', () => Buffer.alloc(1000)],
      ['when it is a page of HTML', 'SignatureMissing', () => Buffer.from('<html><body>log in</body></html>')],
      ['when it is mail without a signature', 'SignatureMissing', () => Buffer.from('Content-Type: text/plain\n\n{}')],
      ['when two have signed', 'SignerAmbiguous', twoSigners],
      ['when nobody has', 'SignatureMissing', () => pki.run('crl2pkcs7', '-nocrl', '-certfile', `${alice.name}.pem`)],
      ['when it was signed without attributes', 'SignatureInvalid', () => sign('-noattr')],
      ['when its certificate is missing', 'SignatureInvalid', () => sign('-nocerts')],
      ['when it was signed with SHA-1', 'WeakSignature', () => pki.sign(alice, CONTENT, '-md', 'sha1')],
      ['when it was signed with MD5', 'WeakSignature', () => pki.sign(rsa(), CONTENT, '-md', 'md5')],
      ['when a letter was changed', 'SignatureInvalid', () => edited(smime, 'imagelist', 'imagelisT')],
      ['when a line was added', 'SignatureInvalid', () => edited(smime, '}\r\n\n', '}\r\n\r\n\n')],
      ['when it has a NUL more', 'SignatureInvalid', () => edited(smime, '{\r\n', '{\0\r\n')],
      [
        'when a byte order mark was put into it',
        'SignatureInvalid',
        () => edited(smime, '{\r\n', '\u00ef\u00bb\u00bf{\r\n'),
      ],
      ['when it is cut in the middle', 'SignatureInvalid', () => smime.subarray(0, smime.length / 2)],
      ['when it lost its last boundary', 'SignatureInvalid', () => edited(smime, `--${boundary}--`, '')],
      ['when something follows it', 'SignatureInvalid', () => Buffer.concat([smime, Buffer.from('{"more": 1}')])],
      [
        'when a third part follows',
        'SignerAmbiguous',
        () => edited(smime, `--${boundary}--`, `--${boundary}\nContent-Type: text/plain\n\n{}\n--${boundary}--`),
      ],
      [
        'when another part stands before the signed one',
        'SignerAmbiguous',
        () => edited(smime, `--${boundary}\n`, `--${boundary}\n{}\n--${boundary}\n`),
      ],
      [
        'when its two headers of content disagree',
        'SignatureInvalid',
        () => edited(smime, 'MIME-Version', 'Content-Type: text/plain\nMIME-Version'),
      ],
      ['when it names no boundary', 'SignatureInvalid', () => edited(smime, /; boundary="[^"]+"/, '')],
      [
        'when its second part is something else',
        'SignatureInvalid',
        () => edited(smime, 'Content-Type: application/pkcs7-signature', 'Content-Type: application/octet-stream'),
      ],
      ['when its signature is no base64', 'SignatureInvalid', () => edited(smime, /\nMII/, '\n!!!')],
      ['when its signature is that of other content', 'SignatureInvalid', () => rewrapped()],
      ['when content hides within the detached signature', 'SignatureInvalid', () => hiding()],
      ['when the parts were put the other way round', 'SignatureInvalid', () => swapped()],
      [
        'when it was encrypted instead',
        'SignatureInvalid',
        () => pki.run('cms', '-encrypt', '-in', 'content', '-outform', 'DER', `${rsa().name}.pem`),
      ],
    ])('%s', async (_, reason, message) => {
      expect(await verdict(message(), trust)).toBe(reason);
    });

    let withRsa: ReturnType<Pki['party']> | undefined;
    const rsa = () => (withRsa ??= pki.party({ subject: '/CN=R', issuer: root, key: 'rsa' }));

    const parts = (message: Uint8Array) => text(message).split(`--${boundaryOf(message)}`);
    const boundaryOf = (message: Uint8Array) => /boundary="(?<it>[^"]+)"/.exec(text(message))?.groups?.['it'] ?? '';
    const joined = (pieces: string[]) => Buffer.from(pieces.join(`--${boundary}`), 'latin1');

    function rewrapped(): Buffer {
      const other = parts(pki.sign(alice, '{"other": true}', '-md', 'sha256'));
      const [head = '', body = '', , end = ''] = parts(smime);
      return joined([head, body, other[2] ?? '', end]);
    }

    function hiding(): Buffer {
      const opaque = text(pki.sign(alice, CONTENT, '-md', 'sha256', '-nodetach', '-binary'));
      const base64 = opaque.slice(opaque.indexOf('\n\n') + 2);
      const [head = '', body = '', signature = '', end = ''] = parts(smime);
      const headers = signature.slice(0, signature.indexOf('\n\n') + 2);
      return joined([head, body, headers + base64, end]);
    }

    function swapped(): Buffer {
      const [head = '', body = '', signature = '', end = ''] = parts(smime);
      return joined([head, signature, body, end]);
    }

    it('when it is larger than any list, before it is looked at', async () => {
      const message = Buffer.alloc(100 * 2 ** 20, 0x20);
      const before = process.memoryUsage.rss();
      expect(await verdict(message, trust)).toBe('TooLarge');
      expect(process.memoryUsage.rss() - before).toBeLessThan(90 * 2 ** 20);
    });

    it('when a signature beside it is something else', async () => {
      expect(await verdict(Buffer.from(CONTENT), trust, { signature: Buffer.from('<html>') })).toBe('SignatureInvalid');
      const opaque = sign('-nodetach', '-binary', '-outform', 'DER');
      expect(await verdict(Buffer.from(CONTENT), trust, { signature: opaque })).toBe('SignatureInvalid');
      const other = pki.sign(alice, 'other', '-md', 'sha256', '-binary', '-outform', 'DER');
      expect(await verdict(Buffer.from(CONTENT), trust, { signature: other })).toBe('SignatureInvalid');
    });

    it('when the signature of a detached form stands alone', async () => {
      expect(await verdict(sign('-outform', 'DER'), trust)).toBe('SignatureInvalid');
    });
  });

  it('whichever byte is changed, comes out as it was signed or not at all', async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(smime.length - 1), fc.integer({ min: 1, max: 255 }), async (at, flip) => {
        const message = Buffer.from(smime);
        message[at] = (message[at] ?? 0) ^ flip;
        const judged = await judge(message, trust);
        if (judged instanceof Failure) return;
        expect(Buffer.from(judged.content).toString()).toBe(CONTENT);
      }),
      { numRuns: 60 },
    );
  });

  it('whichever byte of the CMS is changed, the answer is the content or a Failure that is not ours', async () => {
    const der = sign('-nodetach', '-binary', '-outform', 'DER');
    await fc.assert(
      fc.asyncProperty(fc.nat(der.length - 1), fc.integer({ min: 1, max: 255 }), async (at, flip) => {
        const message = Buffer.from(der);
        message[at] = (message[at] ?? 0) ^ flip;
        const judged = await judge(message, trust);
        if (judged instanceof Failure) expect(judged.reason).not.toBe('InternalError');
        else expect(Buffer.from(judged.content).toString()).toBe(CONTENT);
      }),
      { numRuns: 60 },
    );
  });

  it('is found in garbage of any kind without an error of ours, and soon', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(
          fc.uint8Array({ maxLength: 300 }),
          fc
            .string({ unit: 'binary', maxLength: 200 })
            .map((body) => Buffer.from(`Content-Type: multipart/signed; boundary=b\n\n--b\n${body}\n--b--`)),
          fc.uint8Array({ maxLength: 60 }).map((body) => Buffer.concat([Buffer.from([0x30, 0x80, 6, 9]), body])),
        ),
        async (garbage) => {
          const judged = await judge(garbage, trust);
          expect(judged).toBeInstanceOf(Failure);
        },
      ),
      { numRuns: 200 },
    );
  });

  it('comes out of its envelope where nobody needs to vouch for it, as it does out of none', async () => {
    const opened = async (document: Uint8Array) => {
      const { content: out, signer } = await verifySigned(document, {
        trust: { kind: 'unsigned' },
        at: 0,
        signal: never,
      });
      expect(signer).toBeUndefined();
      return Buffer.from(out).toString();
    };
    for (const options of [[], ['-text'], ['-nodetach'], ['-nodetach', '-binary', '-outform', 'DER']]) {
      expect(await opened(sign(...options))).toBe(CONTENT);
    }
    expect(await opened(Buffer.from(CONTENT))).toBe(CONTENT);
    expect(await opened(edited(smime, 'imagelist', 'imagelisT'))).toBe(CONTENT.replace('imagelist', 'imagelisT'));
  });

  it('keeps this thread free when it is the largest list that is taken', async () => {
    const large = `{"filler":"${randomBytes(10 * 2 ** 20).toString('hex')}"}`;
    const message = pki.sign(alice, large, '-md', 'sha256');
    const took = await effortMs(async () => expect(await content(message)).toBe(large));
    expect(took).toBeLessThan(10_000);
  });

  it('waits for a program that is missing, and names its package', async () => {
    const toolbox = createToolbox({ openssl: '/nowhere/openssl' });
    const failure = await verifySigned(smime, { trust, at: NOW, signal: never, toolbox }).catch(
      (error: unknown) => error,
    );
    expect(failure).toMatchObject({ reason: 'ToolMissing', failureClass: 'Waiting' });
    expect(failure).toMatchObject({ message: 'openssl is not installed at /nowhere/openssl: apt-get install openssl' });
  });

  it('leaves no file behind, whether it holds, fails or is stopped', async () => {
    // Nobody else's: another process may be verifying at this moment.
    const folder = mkdtempSync(join(tmpdir(), 'trust-it-'));
    vi.stubEnv('TMPDIR', folder);
    try {
      await content(smime);
      await judge(smime, trusting([]));
      const stopped = verifySigned(smime, { trust, at: NOW, signal: AbortSignal.abort() });
      await expect(stopped).rejects.toMatchObject({ reason: 'Aborted' });
      expect(readdirSync(folder)).toEqual([]);
    } finally {
      vi.unstubAllEnvs();
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
