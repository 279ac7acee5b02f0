import { describe, expect, it } from 'vitest';
import { loadSchemas } from '../../../src/api/schema.ts';
import type { VMImage, VMImageSpec } from '../../../src/api/types.ts';
import { EXIT } from '../../../src/cli/exit.ts';
import { draftOf, type ImageAsked, imageNameOf, objectNameOf } from '../../../src/cli/register-image.ts';

const sha256 = 'ab'.repeat(32);
const sha512 = 'cd'.repeat(64);
const sha1 = 'ef'.repeat(20);
const url = 'https://example.org/images/noble-server.qcow2';
const asked: ImageAsked = { url, sha256, metafile: false, namespace: 'default', sites: ['east'] };

/** The object as the store would have it after the draft was applied. */
function stored(draft: object | undefined): VMImage {
  const { object, errors } = loadSchemas().validate('VMImage', draft);
  expect(errors).toEqual([]);
  return object as unknown as VMImage;
}

const specOf = (draft: { spec?: unknown } | undefined) => draft?.spec as VMImageSpec;

describe('the name of a registered image', () => {
  it.each([
    [{ sha256, metafile: false }, `sha256-${'ab'.repeat(16)}`],
    [{ sha512, metafile: false }, `sha512-${'cd'.repeat(16)}`],
    [{ sha256, sha512, metafile: false }, `sha256-${'ab'.repeat(16)}`],
    [{ sha1, metafile: true }, `metafile-sha1-${'ef'.repeat(16)}`],
  ])('comes from its digest: %j', (given, name) => {
    expect(objectNameOf(given)).toBe(name);
  });

  it('cannot be without a digest', () => {
    expect(() => objectNameOf({ metafile: false })).toThrow(expect.objectContaining({ exitCode: EXIT.usage }));
  });

  it.each([
    [url, 'noble-server'],
    ['https://example.org/a.raw.gz', 'a'],
    ['https://example.org/Debian%2012.img.xz?x=1', 'Debian 12'],
    ['https://example.org/b1%zz.img', 'b1%zz'],
    ['https://example.org/b1%.img.xz', 'b1%'],
    ['https://example.org/%ff.img', '%ff'],
    ['https://example.org/', 'otherwise'],
    ['https://example.org/%07.img', 'otherwise'],
  ])('in the cloud is the file name of %s: %s', (from, name) => {
    expect(imageNameOf(from, 'otherwise')).toBe(name);
  });
});

describe('asking for an image', () => {
  it('twice changes nothing', () => {
    const first = draftOf(asked, undefined);
    expect(draftOf(asked, stored(first))).toBeUndefined();
  });

  it('with another address of the same bytes adds a mirror, and keeps the name', () => {
    const again = draftOf({ ...asked, url: 'https://mirror.example.org/other.img' }, stored(draftOf(asked, undefined)));
    expect(specOf(again).source.http?.urls).toEqual([url, 'https://mirror.example.org/other.img']);
    expect(specOf(again).registration.name).toBe('noble-server');
  });

  it('for another site adds it to those it has', () => {
    const again = draftOf({ ...asked, sites: ['west'] }, stored(draftOf(asked, undefined)));
    expect(specOf(again).sites?.map(({ name }) => name)).toEqual(['east', 'west']);
  });

  it('with further properties keeps those that it has', () => {
    const first = stored(draftOf({ ...asked, properties: { a: '1', b: '1' } }, undefined));
    expect(specOf(draftOf({ ...asked, properties: { b: '2' } }, first)).registration.properties).toEqual({
      a: '1',
      b: '2',
    });
  });

  it('by a metafile accepts that ORCA knew no stronger hash than sha1', () => {
    const draft = draftOf(
      { url: 'http://orca.example.org/a.xml', sha1, metafile: true, namespace: 'default', sites: ['east'] },
      undefined,
    );
    expect(specOf(draft)).toMatchObject({ source: { metafile: { sha1 } }, verification: { allowWeak: true } });
    stored(draft);
  });

  it('says what the schema says of what cannot be', () => {
    expect(() => draftOf({ ...asked, url: 'https://user:pw@example.org/a.img' }, undefined)).toThrow(
      /user name or password/,
    );
  });
});
