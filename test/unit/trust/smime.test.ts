import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import { splitClearsigned } from '../../../src/trust/clearsigned.ts';
import { readings, splitMessage, withoutTextHeader } from '../../../src/trust/smime.ts';

const CMS = Buffer.from('signature');

/** A message as the tools write it, LF in its headers and whatever the body has. */
function message(body: string, { boundary = '----ABC', newline = '\n', quoted = true } = {}): Buffer {
  const lines = [
    'MIME-Version: 1.0',
    `Content-Type: multipart/signed; protocol="application/x-pkcs7-signature"; micalg=sha1; boundary=${quoted ? `"${boundary}"` : boundary}`,
    '',
    'This is an S/MIME signed message',
    '',
    `--${boundary}`,
    body,
    `--${boundary}`,
    'Content-Type: application/x-pkcs7-signature; name="smime.p7s"',
    'Content-Transfer-Encoding: base64',
    '',
    CMS.toString('base64'),
    '',
    `--${boundary}--`,
    '',
  ];
  return Buffer.from(lines.join(newline), 'latin1');
}

const reasonOf = (act: () => unknown) => {
  try {
    act();
    return 'ok';
  } catch (error) {
    if (error instanceof Failure) return error.reason;
    throw error;
  }
};

describe('an S/MIME message', () => {
  it('is split where its boundary stands in a line of its own, and the line break before it is not of the body', () => {
    fc.assert(
      fc.property(
        fc.string({
          unit: fc.constantFrom('a', '-', '\r', '\n', ' ', '{', '-ABC', '----ABC', '\0', 'é'),
          maxLength: 60,
        }),
        fc.constantFrom('\n', '\r\n'),
        fc.boolean(),
        (text, newline, quoted) => {
          fc.pre(!/(?:^|\n)------ABC/.test(text) && !(newline === '\n' && text.endsWith('\r')));
          const { body, cms } = splitMessage(message(text, { newline, quoted }));
          expect(Buffer.from(body ?? []).toString('latin1')).toBe(text);
          expect(Buffer.from(cms)).toEqual(CMS);
        },
      ),
    );
  });

  it.each<[string, string]>([
    ['', 'SignatureMissing'],
    ['{"hv:imagelist": {}}', 'SignatureMissing'],
    ['no header\n\nbody', 'SignatureMissing'],
    ['Content-Type: text/plain\n\nx', 'SignatureMissing'],
    ['Content-Type: multipart/mixed; boundary=a\n\n--a\nx\n--a--', 'SignatureMissing'],
    ['Content-Type: multipart/signed\n\n--a\nx\n--a--', 'SignatureInvalid'],
    [`Content-Type: multipart/signed; boundary="${'a'.repeat(71)}"\n\n`, 'SignatureInvalid'],
    ['Content-Type: multipart/signed; boundary="a\tb"\n\n', 'SignatureInvalid'],
    ['Content-Type: multipart/signed; boundary=a\nContent-Type: x/y\n\n', 'SignatureInvalid'],
    ['Content-Type: multipart/signed; boundary=a\nnonsense\n\n', 'SignatureInvalid'],
    ['Content-Type: multipart/signed; boundary=a\nX: \0\n\n', 'SignatureInvalid'],
    ['Content-Type: application/pkcs7-mime\n\n!!', 'SignatureInvalid'],
    ['Content-Type: application/pkcs7-mime\nContent-Transfer-Encoding: quoted-printable\n\nAAAA', 'SignatureInvalid'],
  ])('%j is refused: %s', (text, reason) => {
    expect(reasonOf(() => splitMessage(Buffer.from(text)))).toBe(reason);
  });

  it('of bytes of any kind is split or refused, never with another error', () => {
    const words = fc.constantFrom(
      'Content-Type: multipart/signed; boundary=a',
      '\n',
      '\r\n',
      '--a',
      '--a--',
      'x',
      ':',
      ' ',
      '\0',
      'Content-Type: application/pkcs7-signature',
      'AAAA',
    );
    fc.assert(
      fc.property(fc.array(words, { maxLength: 25 }), (parts) => {
        expect(['ok', 'SignatureMissing', 'SignatureInvalid', 'SignerAmbiguous']).toContain(
          reasonOf(() => splitMessage(Buffer.from(parts.join('')))),
        );
      }),
      { numRuns: 500 },
    );
  });
});

describe('what a signature may cover', () => {
  const all = (text: string) =>
    Array.from(readings(Buffer.from(text, 'latin1')), (each) => Buffer.from(each).toString('latin1'));

  it.each([
    ['a\nb', ['a\r\nb', 'a\nb']],
    ['a\r\nb', ['a\r\nb']],
    ['\n\n', ['\r\n\r\n', '\n\n']],
    ['a\r\nb\nc\r', ['a\r\nb\r\nc\r', 'a\r\nb\nc\r']],
    ['', ['']],
  ])('of %j is %j', (text, expected) => {
    expect(all(text)).toEqual(expected);
  });

  it('has every line end made CRLF, and nothing else changed', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom('a', '\r', '\n'), maxLength: 40 }), (text) => {
        expect(all(text)[0]).toBe(text.replaceAll(/(?<!\r)\n/g, '\r\n'));
      }),
    );
  });

  it('is made in little memory, though every byte is a line', () => {
    const lines = Buffer.alloc(32 * 2 ** 20, '\n');
    const before = process.memoryUsage();
    const [canonical] = readings(lines);
    const after = process.memoryUsage();
    expect(canonical).toHaveLength(2 * lines.length);
    expect(after.heapUsed - before.heapUsed).toBeLessThan(32 * 2 ** 20);
  });

  it('begins after the header of a text part, where that was signed too', () => {
    const content = (text: string) => Buffer.from(withoutTextHeader(Buffer.from(text))).toString();
    expect(content('Content-Type: text/plain\r\n\r\n{}')).toBe('{}');
    expect(content('Content-Type: text/plain; charset=utf-8\r\nX: y\r\n\r\na\r\n\r\nb')).toBe('a\r\n\r\nb');
    expect(content('{}\r\n\r\nContent-Type: text/plain')).toBe('{}\r\n\r\nContent-Type: text/plain');
  });
});

describe('a clear-signed document', () => {
  const clear = (body: string, { head = 'Hash: SHA256\n', before = '', after = '' } = {}) =>
    Buffer.from(
      `${before}-----BEGIN PGP SIGNED MESSAGE-----\n${head}\n${body}\n-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----\n${after}`,
    );

  it('gives its text back as it was before it was escaped', () => {
    const texts = fc.string({
      unit: fc.constantFrom('a', '-', ' ', '\n', '\t', 'é', '-----BEGIN PGP SIGNATURE-----'),
      maxLength: 60,
    });
    fc.assert(
      fc.property(texts, (text) => {
        const escaped = text.replaceAll(/^-/gm, '- -');
        const covered = text.replaceAll(/[ \t]+$/gm, '');
        expect(splitClearsigned(clear(escaped)).text).toBe(covered);
        expect(splitClearsigned(Buffer.from(clear(escaped).toString().replaceAll('\n', '\r\n'))).text).toBe(covered);
      }),
    );
  });

  it.each<[string, Buffer]>([
    ['with text before it', clear('x', { before: 'y\n' })],
    ['with text after it', clear('x', { after: 'y' })],
    ['with a header that is none', clear('x', { head: 'Hash: SHA256\ny\n' })],
    ['with another header', clear('x', { head: 'Comment: y\n' })],
    ['without the blank line', Buffer.from('-----BEGIN PGP SIGNED MESSAGE-----\nx\n-----BEGIN PGP SIGNATURE-----\n')],
    ['with a dash that is not escaped', clear('-x')],
    ['with a second beginning in it', clear('-----BEGIN PGP SIGNED MESSAGE-----\n\nx')],
    ['that is no UTF-8', Buffer.concat([clear('x').subarray(0, 50), Buffer.from([0xff]), clear('x').subarray(50)])],
  ])('%s is refused', (_, document) => {
    expect(reasonOf(() => splitClearsigned(document))).toBe('SignatureInvalid');
  });

  it('of line ends only is refused before they are taken apart', () => {
    expect(reasonOf(() => splitClearsigned(Buffer.alloc(2 ** 20, '\n')))).toBe('TooLarge');
    // Minutes, were the work to grow with the square of the line.
    const spaces = `-----BEGIN PGP SIGNED MESSAGE-----\n\n${' '.repeat(2 ** 22)}x`;
    expect(reasonOf(() => splitClearsigned(Buffer.from(spaces)))).toBe('SignatureInvalid');
  });
});
