import { describe, expect, it } from 'vitest';
import { recognise } from '../../../src/catalogs/index.ts';

const kind = (text: string) => recognise(Buffer.from(text));
const HEPIX = '{"hv:imagelist": {"hv:images": []}}';
const opaque = (text: string) =>
  (
    Buffer.from(text)
      .toString('base64')
      .match(/.{1,64}/g) ?? []
  ).join('\n');

describe('a document is recognised by what only such lists say', () => {
  it.each([
    ['HEPiX, bare', HEPIX, 'HEPiX'],
    ['HEPiX, without wrapper', '{"hv:images": []}', 'HEPiX'],
    ['HEPiX, signed', `MIME-Version: 1.0\nContent-Type: multipart/signed\n\n----x\n${HEPIX}\r\n----x`, 'HEPiX'],
    ['HEPiX, opaque', `-----BEGIN CMS-----\n${opaque(`${' '.repeat(60)}${HEPIX}`)}\n-----END CMS-----\n`, 'HEPiX'],
    ['Marketplace', '<metadata><rdf:RDF xmlns:slreq="http://mp.stratuslab.eu/slreq#"/></metadata>', 'Marketplace'],
    ['simplestreams, an index', '{"index": {}, "format": "index:1.0"}', 'Simplestreams'],
    [
      'simplestreams, products, clear-signed',
      '-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{"format":"products:1.0"}',
      'Simplestreams',
    ],
    ['our own list', 'apiVersion: imageproxy.dev/v1beta1\nkind: ImageList\n', 'ImageProxy'],
    ['a checksum file, GNU', `# x\n${'a'.repeat(64)} *x.img\n`, 'ChecksumFile'],
    [
      'a checksum file, BSD, clear-signed',
      `-----BEGIN PGP SIGNED MESSAGE-----\n\nSHA256 (x.img) = ${'a'.repeat(64)}\r\n`,
      'ChecksumFile',
    ],
    ['a page', '<html>hello</html>', undefined],
    ['other JSON', '{"a": 1}', undefined],
    ['a VMImage', 'apiVersion: imageproxy.dev/v1beta1\nkind: VMImage\n', undefined],
    ['nothing', '', undefined],
  ])('%s', (_, text, expected) => {
    expect(kind(text)).toBe(expected);
  });
});
