import { describe, expect, it } from 'vitest';
import { read, refusal, SHA256, SHA512 } from './reading.ts';

const HEAD =
  '"dc:identifier":"x","dc:date:created":"2026-01-01T00:00:00Z","dc:date:expires":"2027-01-01T00:00:00Z","hv:version":"1"';
const hepix = (images: string) => `{"hv:imagelist":{${HEAD},"hv:images":[${images}]}}`;
const each = (count: number, one: (index: number) => string, between: string) =>
  Array.from({ length: count }, (_, index) => one(index)).join(between);

/** Wide: a machine that is busy with other tests takes ten times as long. What takes the square of the length takes hours. */
const PATIENCE_MS = 300_000;

describe('long lists', { timeout: PATIENCE_MS }, () => {
  it.each([
    [
      'HEPiX',
      20_000,
      (count: number) =>
        hepix(
          each(
            count,
            (index) =>
              `{"hv:image":{"dc:identifier":"i${index}","hv:uri":"http://h/${index}.qcow2","hv:version":"1","hv:size":"1","sl:checksum:sha512":"${SHA512}"}}`,
            ',',
          ),
        ),
    ],
    [
      'Simplestreams',
      20_000,
      (count: number) =>
        `{"format":"products:1.0","products":{${each(count, (index) => `"p${index}":{"versions":{"1":{"items":{"disk1.img":{"path":"${index}","sha256":"${SHA256}"}}}}}`, ',')}}}`,
    ],
    ['ChecksumFile', 50_000, (count: number) => each(count, (index) => `${SHA256} *${index}.img`, '\n')],
    [
      'ImageProxy',
      5000,
      (count: number) =>
        `apiVersion: imageproxy.dev/v1beta1\nkind: ImageList\nmetadata: { id: a, version: "1", createdAt: 2026-01-01T00:00:00Z }\nimages:\n${each(count, (index) => `  - id: i${index}\n    urls: [http://h/x]\n    checksums: { sha256: ${SHA256} }`, '\n')}`,
    ],
  ] as const)('%s with %d images are read', async (format, count, make) => {
    expect((await read(format, make(count))).entries).toHaveLength(count);
  });

  it('are refused beyond the bounds', async () => {
    expect(await refusal(read('HEPiX', hepix(each(100_001, () => '{}', ','))))).toBe(
      'InvalidList: the list cannot be read: it has more than 100000 images',
    );
    expect(
      await refusal(
        read(
          'ChecksumFile',
          each(100_002, (index) => `${SHA256} ${index}.txt`, '\n'),
        ),
      ),
    ).toBe('InvalidList: the list cannot be read: it names more than 100000 files');
    expect(await refusal(read('ImageProxy', `a: ${'x'.repeat(4 * 2 ** 20)}`))).toContain(
      'publish a list of this size as JSON',
    );
    expect(await refusal(read('HEPiX', new Uint8Array(32 * 2 ** 20 + 1)))).toMatch(/^TooLarge: /);
    expect(
      await refusal(
        read(
          'Marketplace',
          `<metadata>${'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/>'.repeat(100_001)}</metadata>`,
        ),
      ),
    ).toBe('InvalidList: the list cannot be read: it has more than 100000 entries');
  });

  it('with everything twice are told so without delay', async () => {
    const image = `{"hv:image":{"dc:identifier":"i","hv:uri":"http://h/x","hv:version":"1","hv:size":"1","sl:checksum:sha512":"${SHA512}"}}`;
    const { entries, skipped } = await read('HEPiX', hepix(each(20_000, () => image, ',')));
    expect(entries).toEqual([]);
    expect(skipped).toHaveLength(1);
    const keys = each(50_000, () => '"a":1', ',');
    expect(await refusal(read('HEPiX', `{${keys}}`))).toContain('InvalidList');
  });
});
