import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import { type Judged, verifySigned } from '../../../src/trust/index.ts';
import { signingKeysOf } from '../../../src/trust/openpgp.ts';
import { installed, never } from './judging.ts';

/** GnuPG with a home of its own, and its clock where the test wants it. */
class Gpg {
  readonly home = mkdtempSync(join(tmpdir(), 'gpg-'));

  run(date: string, ...args: string[]): Buffer {
    const clock = `--faked-system-time=${date.replaceAll('-', '')}T120000!`;
    const env = { PATH: process.env['PATH'] ?? '', GNUPGHOME: this.home };
    const options = ['--batch', '--yes', '--quiet', '--pinentry-mode', 'loopback', '--passphrase', '', clock];
    return execFileSync('gpg', [...options, ...args], { cwd: this.home, env, stdio: ['ignore', 'pipe', 'pipe'] });
  }

  /** Makes a key; returns its fingerprint. */
  key(user: string, kind = 'rsa2048', expires = 'never', date = '2024-01-01'): string {
    this.run(date, '--quick-generate-key', user, kind, 'sign', expires);
    return this.fingerprint(user);
  }

  fingerprint(user: string): string {
    const listing = this.run('2024-01-01', '--with-colons', '--list-keys', user).toString();
    return /^fpr:+(?<it>[0-9A-F]{40}):/m.exec(listing)?.groups?.['it'] ?? '';
  }

  export(...users: string[]): Buffer {
    return this.run('2024-01-01', '--armor', '--export', ...users);
  }

  write(name: string, content: string | Uint8Array): string {
    writeFileSync(join(this.home, name), content);
    return name;
  }

  sign(user: string, content: string | Uint8Array, mode: '--clearsign' | '--detach-sign', ...more: string[]): Buffer {
    return this.signOn('2024-06-01', user, content, mode, ...more);
  }

  signOn(date: string, user: string, content: string | Uint8Array, mode: string, ...more: string[]): Buffer {
    this.write('content', content);
    this.run(date, '--local-user', user, '--digest-algo', 'SHA256', ...more, '--output', 'signed', mode, 'content');
    return readFileSync(join(this.home, 'signed'));
  }

  close(): void {
    const env = { PATH: process.env['PATH'] ?? '', GNUPGHOME: this.home };
    execFileSync('gpgconf', ['--kill', 'all'], { env });
    rmSync(this.home, { recursive: true, force: true });
  }
}

const TEXT = 'de7c7f4e *noble.img\n- dashed\n-----BEGIN something\n\ntrailing  \t\nlast é\n';
/** RFC 9580 §7.1: without spaces at the ends of lines, and without the line end before the signature. */
const COVERED = 'de7c7f4e *noble.img\n- dashed\n-----BEGIN something\n\ntrailing\nlast é';
const NOW = Date.parse('2024-06-02T00:00:00Z');

describe.skipIf(!installed('gpg', 'gpgconf'))('OpenPGP signatures of GnuPG', () => {
  const gpg = new Gpg();
  afterAll(() => gpg.close());
  const alice = gpg.key('Alice <alice@example.org>');
  gpg.key('Bob <bob@example.org>', 'ed25519');
  const keyring = gpg.export();

  interface Given {
    ring?: Uint8Array;
    signature?: Uint8Array;
    at?: number;
    allowSha1?: boolean;
  }

  async function judge(document: Uint8Array, given: Given = {}): Promise<Judged | Failure> {
    const { ring = keyring, at = NOW, allowSha1 = false, signature } = given;
    try {
      const trust = { kind: 'openpgp', keyring: ring, allowSha1 } as const;
      return await verifySigned(document, { trust, at, signal: never, signature });
    } catch (error) {
      if (error instanceof Failure) return error;
      throw error;
    }
  }
  const verdict = async (document: Uint8Array, given: Given = {}) => {
    const judged = await judge(document, given);
    return judged instanceof Failure ? judged.reason : Buffer.from(judged.content).toString();
  };
  const edited = (document: Buffer, from: string | RegExp, to: string) => {
    const after = document.toString().replace(from, () => to);
    expect(after).not.toBe(document.toString());
    return Buffer.from(after);
  };
  const clear = gpg.sign('Alice', TEXT, '--clearsign');
  const document = Buffer.from(TEXT);

  it('in the text are proven, and only the signed text comes out, unescaped', async () => {
    const judged = await judge(clear);
    if (judged instanceof Failure) throw judged;
    expect(Buffer.from(judged.content).toString()).toBe(COVERED);
    expect(judged.signer).toEqual({
      kind: 'openpgp',
      name: `Alice <alice@example.org> (${alice})`,
      fingerprint: alice.toLowerCase(),
      digest: 'sha256',
      signedAt: '2024-06-01T12:00:00.000Z',
    });
  });

  it.each<[string, () => Uint8Array, () => Given]>([
    ['in the text by an Ed25519 key', () => gpg.sign('Bob', TEXT, '--clearsign'), () => ({})],
    ['in the text under a header that names another digest', () => edited(clear, 'SHA256', 'SHA512'), () => ({})],
    ['in the text with CRLF', () => edited(clear, /\n/g, '\r\n'), () => ({})],
    ['in the text with a binary keyring', () => clear, () => ({ ring: gpg.run('2024-01-01', '--export') })],
    [
      'in the text with several armored keys one after another',
      () => clear,
      () => ({ ring: Buffer.concat([gpg.export('Bob'), gpg.export('Alice')]) }),
    ],
  ])('%s are proven', async (_, message, given) => {
    expect(await verdict(message(), given())).toBe(COVERED);
  });

  it('in the text are taken off where nobody needs to vouch', async () => {
    const { content } = await verifySigned(clear, { trust: { kind: 'unsigned' }, at: 0, signal: never });
    expect(Buffer.from(content).toString()).toBe(COVERED);
  });

  it.each(['--armor', '--no-armor'])('beside the document (%s) are proven, byte for byte', async (form) => {
    const signature = gpg.sign('Alice', TEXT, '--detach-sign', form);
    expect(await verdict(document, { signature })).toBe(TEXT);
    expect(await verdict(Buffer.from(`${TEXT} `), { signature })).toBe('SignatureInvalid');
    const bytes = Buffer.from([0, 255, 13, 10, 13]);
    const ofBytes = gpg.sign('Bob', bytes, '--detach-sign', form);
    const judged = await judge(bytes, { signature: ofBytes });
    expect(judged).toMatchObject({ signer: { name: expect.stringContaining('Bob') } });
  });

  it('of two signers are proven when one of them is trusted', async () => {
    const both = gpg.sign('Alice', TEXT, '--detach-sign', '--local-user', 'Bob');
    expect(await verdict(document, { signature: both, ring: gpg.export('Bob') })).toBe(TEXT);
    expect(await verdict(document, { signature: both, ring: gpg.export('Alice') })).toBe(TEXT);
  });

  it('of a subkey are proven by the key that it belongs to', async () => {
    const carol = gpg.key('Carol <carol@example.org>');
    gpg.run('2024-01-02', '--quick-add-key', carol, 'rsa2048', 'sign', 'never');
    const signed = gpg.sign('Carol', TEXT, '--clearsign');
    const judged = await judge(signed, { ring: gpg.export('Carol') });
    expect(judged).toMatchObject({ signer: { fingerprint: carol.toLowerCase() } });
  });

  describe('are refused', () => {
    it.each<[string, string, () => Uint8Array, () => Given]>([
      ['when there are none', 'SignatureMissing', () => document, () => ({})],
      ['when the key is not in the keyring', 'UntrustedSigner', () => clear, () => ({ ring: gpg.export('Bob') })],
      ['when a letter was changed', 'SignatureInvalid', () => edited(clear, 'noble', 'Noble'), () => ({})],
      ['when a line was added', 'SignatureInvalid', () => edited(clear, 'last', 'more\nlast'), () => ({})],
      [
        'when text stands before',
        'SignatureInvalid',
        () => Buffer.concat([Buffer.from('0000 *evil.img\n'), clear]),
        () => ({}),
      ],
      [
        'when text stands after',
        'SignatureInvalid',
        () => Buffer.concat([clear, Buffer.from('0000 *evil.img\n')]),
        () => ({}),
      ],
      [
        'when text stands among the headers',
        'SignatureInvalid',
        () => edited(clear, 'Hash: SHA256\n', 'Hash: SHA256\n0000 *evil.img\n'),
        () => ({}),
      ],
      [
        'when it has another header',
        'SignatureInvalid',
        () => edited(clear, 'Hash: SHA256\n', 'Hash: SHA256\nComment: 0000 *evil.img\n'),
        () => ({}),
      ],
      [
        'when a dash is not escaped',
        'SignatureInvalid',
        () => edited(clear, '- - dashed', '- dashed\n-evil'),
        () => ({}),
      ],
      ['when the signature is cut', 'SignatureInvalid', () => clear.subarray(0, clear.length - 60), () => ({})],
      [
        'when the signature is missing',
        'SignatureInvalid',
        () => edited(clear, /-----BEGIN PGP SIGNATURE[^]*/, ''),
        () => ({}),
      ],
      [
        'when the text is no UTF-8',
        'SignatureInvalid',
        () => Buffer.from(clear.toString('utf8'), 'latin1'),
        () => ({}),
      ],
      ['when two messages are put together', 'SignatureInvalid', () => Buffer.concat([clear, clear]), () => ({})],
      ['when they are older than the clock', 'SignatureInvalid', () => clear, () => ({ at: Date.parse('2024-05-01') })],
      ['when the digest is SHA-1', 'WeakSignature', () => sha1(), () => ({})],
      ['when the key is too short', 'WeakSignature', () => short(), () => ({ ring: gpg.export('Short') })],
      ['when the key is DSA', 'WeakSignature', () => dsa(), () => ({ ring: gpg.export('Dsa'), allowSha1: true })],
      [
        'when the key has expired',
        'KeyExpired',
        () => expiring(),
        () => ({ ring: gpg.export('Expiring'), at: Date.parse('2024-08-01') }),
      ],
      ['when the keyring is empty', 'InvalidTrust', () => clear, () => ({ ring: Buffer.alloc(0) })],
      [
        'when the keyring is a certificate',
        'InvalidTrust',
        () => clear,
        () => ({ ring: Buffer.from('-----BEGIN CERTIFICATE-----') }),
      ],
    ])('%s (%s)', async (_, reason, message, given) => {
      const said = await verdict(message(), given());
      expect(said).toBe(reason);
    });

    const once = <T>(make: () => T) => {
      let made: T | undefined;
      return () => (made ??= make());
    };
    const sha1 = once(() => gpg.sign('Alice', TEXT, '--clearsign', '--digest-algo', 'SHA1'));
    const short = once(() => {
      gpg.key('Short <s@example.org>', 'rsa1024');
      return gpg.sign('Short', TEXT, '--clearsign');
    });
    const dsa = once(() => {
      gpg.key('Dsa <d@example.org>', 'dsa1024');
      return gpg.sign('Dsa', TEXT, '--clearsign', '--digest-algo', 'SHA256');
    });
    const expiring = once(() => {
      gpg.key('Expiring <e@example.org>', 'rsa2048', '2024-07-01');
      return gpg.sign('Expiring', TEXT, '--clearsign');
    });

    it('but are proven with SHA-1 and short keys where that is allowed, and until the key expires', async () => {
      expect(await verdict(sha1(), { allowSha1: true })).toBe(COVERED);
      expect(await verdict(short(), { allowSha1: true, ring: gpg.export('Short') })).toBe(COVERED);
      expect(await verdict(expiring(), { ring: gpg.export('Expiring') })).toBe(COVERED);
    });

    it('when the key is revoked, though the signature says that it is older', async () => {
      const dave = gpg.key('Dave <dave@example.org>');
      const signed = gpg.sign('Dave', TEXT, '--clearsign');
      expect(await verdict(signed, { ring: gpg.export('Dave') })).toBe(COVERED);
      const certificate = readFileSync(join(gpg.home, 'openpgp-revocs.d', `${dave}.rev`), 'utf8');
      gpg.run('2024-06-01', '--import', gpg.write('revoked', certificate.replace(':-----BEGIN', '-----BEGIN')));
      expect(await verdict(signed, { ring: gpg.export('Dave') })).toBe('KeyRevoked');
    });

    it('when the bad one of two is that of the only trusted key', async () => {
      const good = gpg.sign('Bob', TEXT, '--detach-sign');
      const other = gpg.sign('Alice', 'other', '--detach-sign');
      const both = Buffer.concat([good, other]);
      expect(await verdict(document, { signature: both, ring: gpg.export('Alice') })).toBe('SignatureInvalid');
      expect(await verdict(document, { signature: both, ring: gpg.export('Bob') })).toBe(TEXT);
    });

    it('when the signature names a digest algorithm that nobody knows', async () => {
      const signature = Buffer.from(gpg.sign('Alice', TEXT, '--detach-sign'));
      // RFC 4880, 4.2 and 5.2.3: tag, length of one or two octets, then version, type, key algorithm, digest algorithm.
      const body = ((signature[0] ?? 0) & 3) === 0 ? 2 : 3;
      expect(signature[body]).toBe(4);
      signature[body + 3] = 99;
      expect(await verdict(document, { signature })).toBe('SignatureInvalid');
      expect(await signingKeysOf(signature)).toMatchObject([{ kind: 'openpgp' }]);
    });

    it('when the signature beside the document is something else, or more', async () => {
      const signature = gpg.sign('Alice', TEXT, '--detach-sign', '--armor');
      for (const other of [
        Buffer.from('<html>'),
        Buffer.alloc(0),
        Buffer.from('text'),
        Buffer.concat([signature, Buffer.from('x')]),
      ]) {
        expect(['SignatureInvalid', 'SignatureMissing']).toContain(await verdict(document, { signature: other }));
      }
      expect(await verdict(document, { signature: gpg.export('Alice') })).toBe('SignatureInvalid');
    });
  });

  it('whichever byte is changed, what comes out is what was signed, or nothing', async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(clear.length - 1), fc.integer({ min: 1, max: 127 }), async (at, flip) => {
        const message = Buffer.from(clear);
        message[at] = (message[at] ?? 0) ^ flip;
        const judged = await judge(message);
        if (judged instanceof Failure) expect(judged.reason).not.toBe('InternalError');
        else expect(Buffer.from(judged.content).toString()).toBe(COVERED);
      }),
      { numRuns: 150 },
    );
  });
});

describe.skipIf(!installed('minisign'))('signatures of minisign', () => {
  const folder = mkdtempSync(join(tmpdir(), 'minisign-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const run = (...args: string[]) => execFileSync('minisign', args, { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
  const keyPair = (name: string) => {
    run('-G', '-W', '-p', `${name}.pub`, '-s', `${name}.key`);
    return readFileSync(join(folder, `${name}.pub`), 'utf8').split('\n')[1] ?? '';
  };
  const [own, other] = [keyPair('own'), keyPair('other')];
  const content = Buffer.from('images: []\n');
  writeFileSync(join(folder, 'list'), content);
  const sign = (...options: string[]) => {
    run('-S', '-s', 'own.key', '-m', 'list', '-x', 'list.minisig', ...options);
    return readFileSync(join(folder, 'list.minisig'));
  };
  const verdict = async (document: Uint8Array, signature: Uint8Array | undefined, publicKeys = [other, own]) => {
    try {
      const trust = { kind: 'minisign', publicKeys } as const;
      const { signer } = await verifySigned(document, { trust, at: NOW, signal: never, signature });
      return signer;
    } catch (error) {
      if (error instanceof Failure) return error.reason;
      throw error;
    }
  };

  it.each([
    ['prehashed', [], 'blake2b512'],
    ['legacy', ['-l'], 'sha512'],
  ])('in the %s form are proven, and say by which key and when', async (_, options, digest) => {
    // minisign prints the id without leading zeros, one key in sixteen has one.
    const [, printed = ''] = /public key ([0-9A-F]{1,16})\n/.exec(readFileSync(join(folder, 'own.pub'), 'utf8')) ?? [];
    const id = printed.padStart(16, '0');
    expect(await verdict(content, sign(...options, '-t', 'timestamp:1700000000\tfile:list'))).toEqual({
      kind: 'minisign',
      name: `minisign key ${id}`,
      fingerprint: id.toLowerCase(),
      digest,
      signedAt: '2023-11-14T22:13:20.000Z',
    });
  });

  it('are refused when anything about them is another', async () => {
    const signature = sign('-t', 'a comment');
    const edited = (from: string | RegExp, to: string) => Buffer.from(signature.toString().replace(from, to));
    expect(await verdict(content, undefined)).toBe('SignatureMissing');
    expect(await verdict(Buffer.from('images: [x]\n'), signature)).toBe('SignatureInvalid');
    expect(await verdict(content, signature, [other])).toBe('UntrustedSigner');
    expect(await verdict(content, edited('a comment', 'another'))).toBe('SignatureInvalid');
    expect(await verdict(content, edited('untrusted comment: ', ''))).toBe('SignatureInvalid');
    expect(await verdict(content, edited('\nRU', '\nRW'))).toBe('SignatureInvalid');
    expect(await verdict(content, Buffer.concat([signature, Buffer.from('more\n')]))).toBe('SignatureInvalid');
    expect(await verdict(content, Buffer.alloc(0))).toBe('SignatureInvalid');
    expect(await verdict(content, Buffer.alloc(2 ** 20, 'a'))).toBe('SignatureInvalid');
    expect(await verdict(content, signature, ['RWnonsense'])).toBe('InvalidTrust');
    expect(
      await verdict(content, edited('untrusted comment: ', 'untrusted comment: which nobody believes, ')),
    ).toMatchObject({
      kind: 'minisign',
    });
  });

  it('of which any byte is changed are refused, but for the untrusted comment', async () => {
    const signature = sign('-t', 'x');
    const start = signature.indexOf('\n');
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: start, max: signature.length - 2 }),
        fc.integer({ min: 1, max: 255 }),
        async (at, flip) => {
          const changed = Buffer.from(signature);
          changed[at] = (changed[at] ?? 0) ^ flip;
          expect(['SignatureInvalid', 'UntrustedSigner']).toContain(await verdict(content, changed));
        },
      ),
    );
  });
});
