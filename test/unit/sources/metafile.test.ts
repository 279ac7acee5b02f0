import fc from 'fast-check';
import { describe, expect, it, test } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import { MAX_METAFILE_BYTES, parseMetafile } from '../../../src/sources/metafile/parse.ts';

const SHA1 = { disk: '1'.repeat(40), kernel: '2'.repeat(40), ramdisk: 'a'.repeat(40), other: 'b'.repeat(40) };

const image = (type: string, signature: string, url: string) =>
  `<image><type>${type}</type><signature>${signature}</signature><url>${url}</url></image>`;
const images = (...each: string[]) => `<images>${each.join('\n')}</images>`;
const DISK = image('FILESYSTEM', SHA1.disk, 'http://host/fs.img');
const KERNEL = image('KERNEL', SHA1.kernel, 'http://host/vmlinuz');
const RAMDISK = image('RAMDISK', SHA1.ramdisk, 'http://host/initrd');

const parse = (xml: string | Uint8Array) =>
  parseMetafile(typeof xml === 'string' ? new TextEncoder().encode(xml) : xml, 'http://host/image.xml');

function refusal(xml: string | Uint8Array): string {
  try {
    return `accepted: ${JSON.stringify(parse(xml))}`;
  } catch (error) {
    expect(error).toBeInstanceOf(Failure);
    expect((error as Failure).reason).toBe('InvalidMetafile');
    return (error as Failure).message;
  }
}

describe("ORCA's metafile", () => {
  it('names a disk, a kernel and a ramdisk, in this order whatever the order in the file', () => {
    const parts = [
      { role: 'Disk', url: 'http://host/fs.img', sha1: SHA1.disk, packed: false },
      { role: 'Kernel', url: 'http://host/vmlinuz', sha1: SHA1.kernel, packed: false },
      { role: 'Ramdisk', url: 'http://host/initrd', sha1: SHA1.ramdisk, packed: false },
    ];
    expect(parse(images(DISK, KERNEL, RAMDISK))).toEqual(parts);
    expect(parse(images(RAMDISK, KERNEL, DISK))).toEqual(parts);
  });

  it('needs neither kernel nor ramdisk', () => {
    expect(parse(images(DISK))).toHaveLength(1);
    expect(parse(images(DISK, RAMDISK)).map((part) => part.role)).toEqual(['Disk', 'Ramdisk']);
  });

  it('is read as the tools wrote it: any root, a declaration, comments, white space, CDATA, children in any order, others beside them', () => {
    const file = `\uFEFF<?xml version="1.0" encoding="UTF-8"?>
      <!-- made by imgcapture.sh -->
      <whatever name="x">
        <note>Ubuntu <b>14.04</b></note>
        <group><image>
          <url>
             <![CDATA[http://host/fs.tgz?a=1&b=2]]>
          </url>
          <description>a system <type>not this</type></description>
          <signature>  ${SHA1.disk.toUpperCase()}
          </signature>
          <type><![CDATA[ZFILE]]>SYSTEM</type>
        </image></group>
      </whatever>`;
    expect(parse(file)).toEqual([{ role: 'Disk', url: 'http://host/fs.tgz?a=1&b=2', sha1: SHA1.disk, packed: true }]);
  });

  it('writes an ampersand of a URL as XML does', () => {
    expect(parse(images(image('QCOW2', SHA1.disk, 'https://host/a?x=1&amp;y=2')))[0]?.url).toBe(
      'https://host/a?x=1&y=2',
    );
  });

  it('may have its digests in upper case, which the old service compared in vain', () => {
    expect(parse(images(image('QCOW2', 'ABCDEF0123'.repeat(4), 'http://host/a')))[0]?.sha1).toBe(
      'abcdef0123'.repeat(4),
    );
  });

  test.each([
    [['FILESYSTEM', 'ZFILESYSTEM'], 'FILESYSTEM'],
    [['ZFILESYSTEM', 'FILESYSTEM'], 'FILESYSTEM'],
    [['QCOW2', 'FILESYSTEM'], 'FILESYSTEM'],
    [['QCOW2', 'ZFILESYSTEM'], 'QCOW2'],
    [['ZFILESYSTEM', 'QCOW2'], 'QCOW2'],
    [['ZFILESYSTEM', 'QCOW2', 'FILESYSTEM'], 'FILESYSTEM'],
    [['ZFILESYSTEM'], 'ZFILESYSTEM'],
  ])('with the disks %j means %s', (types, chosen) => {
    const parts = parse(images(...types.map((type) => image(type, SHA1.disk, `http://host/${type}`))));
    expect(parts).toEqual([
      { role: 'Disk', url: `http://host/${chosen}`, sha1: SHA1.disk, packed: chosen === 'ZFILESYSTEM' },
    ]);
  });

  test.each([
    ['an unknown type', images(DISK, image('VMDK', SHA1.other, 'http://host/x')), 'image 2 has the type "VMDK"'],
    [
      'a type in lower case',
      images(image('filesystem', SHA1.disk, 'http://host/x')),
      'one of FILESYSTEM, QCOW2, ZFILESYSTEM, KERNEL, RAMDISK is needed (upper case)',
    ],
    [
      'a type that every object has',
      images(DISK, image('constructor', SHA1.other, 'http://host/x')),
      'the type "constructor"',
    ],
    ['no type', images('<image><signature>x</signature><url>http://h/</url></image>'), 'image 1 has no <type>'],
    ['no signature', images('<image><type>QCOW2</type><url>http://h/</url></image>'), 'image 1 has no <signature>'],
    ['no url', images(`<image><type>QCOW2</type><signature>${SHA1.disk}</signature></image>`), 'image 1 has no <url>'],
    ['an empty type', images(DISK, image(' ', SHA1.other, 'http://host/x')), 'image 2 has an empty <type>'],
    ['an empty signature', images(image('QCOW2', '', 'http://host/x')), 'image 1 has an empty <signature>'],
    ['an empty url', images(image('QCOW2', SHA1.disk, '\n ')), 'image 1 has an empty <url>'],
    ['a url element that closes itself', images('<image><type>QCOW2</type><signature>1</signature><url/></image>'), ''],
    ['a short signature', images(image('QCOW2', 'abc', 'http://host/x')), 'is not a SHA-1 of 40 hex digits: "abc"'],
    ['a sha256', images(image('QCOW2', 'a'.repeat(64), 'http://host/x')), 'is not a SHA-1 of 40 hex digits'],
    ['two parts of one type', images(DISK, DISK), 'two parts of type FILESYSTEM: keep one'],
    ['two kernels', images(DISK, KERNEL, KERNEL), 'two parts of type KERNEL'],
    ['no disk', images(KERNEL, RAMDISK), 'it names no disk'],
    ['no image', '<images/>', 'it holds no <image>'],
    [
      'two urls in one image',
      images(DISK.replace('<type>', '<url>http://evil/</url><type>')),
      'image 1 has two <url>: keep one',
    ],
    [
      'a url in a url',
      images(DISK.replace('http://host/fs.img', 'http://a/<url>http://b/</url>')),
      'the <url> of image 1 holds the element <url>',
    ],
    [
      'an element in a url',
      images(DISK.replace('http://host', 'http://<b/>host')),
      'the <url> of image 1 holds the element <b>',
    ],
    ['an image in an image', images(DISK.replace('<type>', `${KERNEL}<type>`)), 'image 1 holds another <image>'],
    ['a url that only a deeper element has', images(DISK.replace(/<url>.*<\/url>/, '<mirror>$&</mirror>')), 'no <url>'],
    ['a url of another scheme', images(image('QCOW2', SHA1.disk, 'ftp://host/x')), 'not an http or https URL'],
    ['a path', images(image('QCOW2', SHA1.disk, '/etc/passwd')), 'not an http or https URL'],
    ['two urls in one', images(image('QCOW2', SHA1.disk, 'http://a/ http://b/')), 'not an http or https URL'],
    ['a url with a password', images(image('QCOW2', SHA1.disk, 'http://u:geheim@host/x')), 'secretRef'],
    ['a torrent', images(image('QCOW2', SHA1.disk, 'http://host/x.torrent?a=b')), 'is a torrent'],
    ['a torrent in upper case', images(image('QCOW2', SHA1.disk, 'http://host/X.TORRENT')), 'is a torrent'],
    ['a DOCTYPE', `<!DOCTYPE images>${images(DISK)}`, 'it has a DOCTYPE'],
    [
      'a bomb of entities',
      `<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>${images(image('QCOW2', SHA1.disk, '&b;'))}`,
      'it has a DOCTYPE',
    ],
    [
      'an external entity',
      `<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]>${images(image('QCOW2', SHA1.disk, '&f;'))}`,
      'it has a DOCTYPE',
    ],
    ['an entity that nothing declares', images(image('QCOW2', SHA1.disk, '&nbsp;')), 'not well-formed XML'],
    ['a page of HTML', '<html><body><p>Not found<br></body></html>', 'not well-formed XML'],
    ['JSON', '{"images": []}', 'not well-formed XML'],
    ['nothing', '', 'not well-formed XML'],
    ['half of it', images(DISK, KERNEL).slice(0, -20), 'not well-formed XML'],
    ['something after its end', `${images(DISK)}<more/>`, 'not well-formed XML'],
    ['Latin-1', Buffer.from(images(DISK).replace('fs.img', 'm\u00fcller.img'), 'latin1'), 'it is not UTF-8 text'],
    ['UTF-16', Buffer.from(`\uFEFF${images(DISK)}`, 'utf16le'), 'it is not UTF-8 text'],
    ['gzip', Buffer.from('1f8b0800000000000003edc1010d000000c2a0f74f6d0e37a0', 'hex'), 'it is not UTF-8 text'],
    ['elements nested too deep', `${'<a>'.repeat(17)}${DISK}${'</a>'.repeat(17)}`, 'nested more than 16 deep'],
    ['too many images', images(...Array.from({ length: 17 }, () => KERNEL)), 'it holds more than 16 images'],
    [
      'more bytes than any metafile has',
      images(DISK, ' '.repeat(MAX_METAFILE_BYTES)),
      `a metafile has at most ${MAX_METAFILE_BYTES}`,
    ],
  ])('with %s is refused, and the message says what is wrong', (_, file, words) => {
    const message = refusal(file);
    expect(message).toMatch(/^the metafile http:\/\/host\/image\.xml cannot be used: /);
    expect(message).toContain(words);
    expect(message.length).toBeLessThan(400);
  });

  it('never gives away the password that somebody wrote into a URL', () => {
    expect(refusal(images(image('QCOW2', SHA1.disk, 'http://u:geheim@host/x')))).not.toContain('geheim');
  });

  it('ends in parts or in InvalidMetafile, whatever the bytes', () => {
    const whole = Buffer.from(images(DISK, KERNEL, RAMDISK));
    const judge = (bytes: Uint8Array) => {
      try {
        for (const part of parse(bytes)) {
          expect(part.sha1).toMatch(/^[0-9a-f]{40}$/);
          expect(URL.parse(part.url)?.protocol).toMatch(/^https?:$/);
        }
      } catch (error) {
        expect(error).toBeInstanceOf(Failure);
        expect((error as Failure).reason).toBe('InvalidMetafile');
      }
    };
    fc.assert(fc.property(fc.uint8Array({ maxLength: 400 }), judge), { numRuns: 300 });
    const cut = fc.record({
      at: fc.nat(whole.length),
      drop: fc.nat(30),
      put: fc.string({ unit: 'binary', maxLength: 8 }),
    });
    const markup = fc.constantFrom(
      '<',
      '</',
      '>',
      '/>',
      '<![CDATA[',
      ']]>',
      '<!--',
      '<?',
      '&',
      '&#x0;',
      '<image>',
      '</image>',
      '<url>',
    );
    const spliced = fc.record({ at: fc.nat(whole.length), drop: fc.nat(30), put: markup });
    fc.assert(
      fc.property(fc.array(fc.oneof(cut, spliced), { minLength: 1, maxLength: 4 }), (edits) => {
        let bytes = whole;
        for (const { at, drop, put } of edits) {
          bytes = Buffer.concat([bytes.subarray(0, at), Buffer.from(put), bytes.subarray(at + drop)]);
        }
        judge(bytes);
      }),
      { numRuns: 1000 },
    );
  });

  it('of nearly the greatest size is read like any other', () => {
    expect(parse(images(DISK, `<x>${'&#65;'.repeat(50_000)}</x>`))).toHaveLength(1);
  });
});
