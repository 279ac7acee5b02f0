import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import type { CatalogFormat } from '../../../src/catalogs/catalog.ts';
import { recognise } from '../../../src/catalogs/index.ts';
import { below } from '../../../src/catalogs/below.ts';
import { parseJson } from '../../../src/catalogs/json.ts';
import { entryOf, metadata } from '../../support/marketplace.ts';
import { read, refusal, SHA256, SHA512 } from './reading.ts';

const HEPIX = JSON.stringify({
  'hv:imagelist': {
    'dc:identifier': 'list',
    'dc:date:created': '2026-01-01T00:00:00Z',
    'dc:date:expires': '2027-01-01T00:00:00Z',
    'hv:version': '1',
    'hv:endorser': { 'hv:x509': { 'hv:dn': '/CN=a', 'hv:ca': '/CN=b' } },
    'hv:images': ['a', 'b'].map((id) => ({
      'hv:image': {
        'dc:identifier': id,
        'hv:uri': 'http://h/x.vdi.gz',
        'hv:version': '1',
        'hv:size': '12',
        'sl:checksum:sha512': SHA512,
        'hv:ram_minimum': '512',
      },
    })),
  },
});
const PRODUCTS = JSON.stringify({
  format: 'products:1.0',
  content_id: 'x',
  products: {
    a: { arch: 'amd64', versions: { 1: { items: { 'disk1.img': { path: 'a/x.img', sha256: SHA256, size: 1 } } } } },
  },
});
const LIST = `apiVersion: imageproxy.dev/v1beta1
kind: ImageList
metadata: { id: a, version: "1", createdAt: 2026-01-01T00:00:00Z }
images:
  - id: a
    urls: [http://h/x]
    checksums: { sha256: ${SHA256} }
`;
const SUMS = `# x.img: 12 bytes\n${SHA256} *x.img\nSHA512 (y.img) = ${SHA512}\n`;

const GOOD: readonly (readonly [CatalogFormat, string])[] = [
  ['HEPiX', HEPIX],
  ['Marketplace', metadata(entryOf(), entryOf({ content: 'b' }))],
  ['Simplestreams', PRODUCTS],
  ['ImageProxy', LIST],
  ['ChecksumFile', SUMS],
];

/** Pieces that parsers stumble over. */
const nasty = fc.constantFrom(
  '"',
  '\\',
  '{',
  '}',
  '[',
  ']',
  ',',
  ':',
  '<',
  '>',
  '&',
  "'",
  '\u0000',
  '\uFEFF',
  '\uD800',
  '\u202E',
  '\n',
  '\r',
  '\t',
  ' ',
  '-',
  '- ',
  '*a',
  '&a ',
  '!!x ',
  '"__proto__":',
  '"constructor":',
  '__proto__',
  '<!--',
  ']]>',
  '<![CDATA[',
  '<?x ?>',
  '<!DOCTYPE x>',
  '&lt;',
  '&#0;',
  '&x;',
  '../',
  '%2e',
  '1e999',
  '-0',
  'null',
  'true',
  '[]',
  '{}',
);

/** A good document with some stretches replaced, doubled or cut out. */
const mutated = (good: string) =>
  fc
    .array(
      fc.record({
        at: fc.nat(good.length),
        length: fc.oneof(fc.nat(3), fc.nat(good.length)),
        by: fc.oneof(nasty, fc.string({ maxLength: 5 }), fc.constant(undefined)),
      }),
      { minLength: 1, maxLength: 4 },
    )
    .map((changes) =>
      changes.reduce((text, { at, length, by }) => {
        const piece = text.slice(at, at + length);
        return text.slice(0, at) + (by ?? piece + piece) + text.slice(at + length);
      }, good),
    );

async function judge(format: CatalogFormat, document: string | Uint8Array): Promise<string> {
  try {
    const { entries, skipped, list } = await read(format, document);
    for (const entry of entries) {
      expect(entry.urls.every((url) => /^https?:\/\//.test(url) && URL.canParse(url))).toBe(true);
      expect(Object.keys(entry.checksums).length + Object.keys(entry.contentChecksums).length).toBeGreaterThan(0);
      expect(JSON.stringify(entry)).not.toMatch(/\\u00[01]/);
    }
    expect(new Set(entries.map(({ id }) => id)).size).toBe(entries.length);
    expect(JSON.stringify([skipped, list]).isWellFormed()).toBe(true);
    return 'read';
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    expect(error.reason, `${error.message}\n${String((error.cause as Error | undefined)?.stack)}`).not.toBe(
      'InternalError',
    );
    expect(error.message).not.toMatch(/[\p{Cc}\p{Cs}]/u);
    return error.reason;
  }
}

describe('whatever a server sends', () => {
  test.each(GOOD)('a good %s is read', async (format, good) => {
    expect(await judge(format, good)).toBe('read');
  });

  test.each(GOOD)('a mutated %s is read, or refused with a reason', async (format, good) => {
    const seen = new Set<string>();
    await fc.assert(
      fc.asyncProperty(mutated(good), async (document) => {
        seen.add(await judge(format, document));
      }),
      { numRuns: 400 },
    );
    expect(seen).toContain('read');
    expect(seen.size).toBeGreaterThan(1);
  });

  test.each(GOOD)('any bytes as %s are refused with a reason', async (format) => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async (bytes) => {
        await judge(format, bytes);
        recognise(bytes);
      }),
    );
  });

  test.each(GOOD.filter(([format]) => format !== 'Marketplace' && format !== 'ChecksumFile'))(
    'any JSON in any place of %s is read, or refused with a reason',
    async (format, good) => {
      const places = good.match(/"[^"]*"(?=[,}\]])|\b\d+\b(?=[,}\]])/g) ?? [];
      await fc.assert(
        fc.asyncProperty(fc.nat(Math.max(places.length - 1, 0)), fc.json(), async (place, json) => {
          await judge(
            format,
            good.replace(places[place] ?? '"a"', () => json),
          );
        }),
        { numRuns: 200 },
      );
    },
  );
});

describe('JSON', () => {
  test('is read as JSON.parse reads it, with nothing repeated', () => {
    fc.assert(
      fc.property(fc.json({ maxDepth: 5 }), (text) => {
        const { value, repeated } = parseJson(text);
        expect(value).toEqual(JSON.parse(text));
        expect(repeated).toEqual([]);
      }),
    );
  });

  test('tells every key that an object has twice, and where', () => {
    const key = fc.string({ maxLength: 3 });
    fc.assert(
      fc.property(fc.array(fc.tuple(key, fc.json({ maxDepth: 1 })), { maxLength: 6 }), key, (members, outer) => {
        const text = `{${JSON.stringify(outer)}:[0,{${members.map(([name, value]) => `${JSON.stringify(name)}:${value}`).join(', ')}}]}`;
        const names = members.map(([name]) => name);
        const twice = names.filter((name, index) => names.indexOf(name) !== index);
        expect(parseJson(text).repeated).toEqual(twice.map((name) => ({ path: [outer, 1], key: name })));
      }),
    );
  });
});

describe('a path below a folder', () => {
  test('never leaves it', () => {
    const path = fc.string({
      unit: fc.oneof(
        fc.constantFrom('.', '/', '\\', '%2e', '%2F', ':', '?', '#', '@', 'a', 'http:', ' '),
        fc.string({ maxLength: 1 }),
      ),
      maxLength: 12,
    });
    fc.assert(
      fc.property(path, (text) => {
        const place = below('https://h/a/b/', text);
        if ('problem' in place) return;
        const url = new URL(place.url);
        expect(url.href).toMatch(/^https:\/\/h\/a\/b\/[^?#]+$/);
        expect(url.pathname.split('/')).not.toContain('..');
      }),
      { numRuns: 2000 },
    );
  });
});

test.each(GOOD)(
  '%s: a good document in an archive, or in ten of them, is not unpacked, and so is no list',
  async (format, good) => {
    const archives = Array.from({ length: 10 }).reduce<Buffer[]>(
      (made) => [...made, gzipSync(made.at(-1) ?? good)],
      [],
    );
    expect(await refusal(read(format, good))).toMatch(/^accepted: /);
    for (const archive of archives) expect(await refusal(read(format, archive))).toMatch(/^InvalidList: /);
  },
);
