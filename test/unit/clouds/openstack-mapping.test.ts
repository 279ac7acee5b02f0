import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Registration } from '../../../src/clouds/cloud.ts';
import { changesOf, fieldOf, pointer } from '../../../src/clouds/openstack/changes.ts';
import { failureOf, retryAfter, shortText } from '../../../src/clouds/openstack/errors.ts';
import type { Image, PatchOperation } from '../../../src/clouds/openstack/glance.ts';
import {
  checkRegistration,
  desiredOf,
  digestsOf,
  formatsOf,
  isReserved,
  managedOf,
  managedText,
  MARK,
  recordOf,
} from '../../../src/clouds/openstack/mapping.ts';
import { FORMATS } from '../../../src/images/format.ts';

const plain: Image = {
  id: 'i',
  name: 'n',
  status: 'active',
  visibility: 'private',
  os_hidden: true,
  protected: false,
  owner: 'p',
  tags: [],
  size: 1,
  min_disk: 0,
  min_ram: 0,
  created_at: '2026-01-01T00:00:00Z',
};

/** What Glance does with a patch, for flat properties. */
function apply(image: Image, operations: readonly PatchOperation[]): Image {
  const copy: Record<string, unknown> = { ...image };
  for (const { op, path, value } of operations) {
    const name = path.slice(1).replaceAll('~1', '/').replaceAll('~0', '~');
    if (op !== 'add' && !Object.hasOwn(copy, name)) throw new Error(`409: ${op} of ${name}, which is not there`);
    if (op === 'remove') delete copy[name];
    else copy[name] = value;
  }
  return copy as Image;
}

const name = fc.stringMatching(/^[a-z~/]{1,6}$/).filter((text) => !isReserved(text));
const words = fc.uniqueArray(fc.stringMatching(/^[a-z]{1,3}$/), { maxLength: 4 });
const registration: fc.Arbitrary<Registration> = fc.record({
  name: fc.string(),
  visibility: fc.constantFrom('Private', 'Community', 'Public'),
  members: fc.constant([]),
  protected: fc.boolean(),
  hidden: fc.boolean(),
  tags: words,
  properties: fc.dictionary(name, fc.string({ maxLength: 3 }), { maxKeys: 4 }),
  minRamMiB: fc.nat(9),
});

function publish(image: Image, wanted: Registration): { image: Image; operations: PatchOperation[] } {
  const desired = desiredOf(wanted, 'Disk');
  const operations = changesOf(image, { ...desired, marks: { [MARK.managed]: managedText(desired) } });
  return { image: apply(image, operations), operations };
}

describe('changes', () => {
  test('one publication after another: only ours come and go, and the second of the same is none', () => {
    const theirs = fc.dictionary(fc.stringMatching(/^their_[a-z]{1,3}$/), fc.string(), { maxKeys: 3 });
    fc.assert(
      fc.property(
        theirs,
        fc.uniqueArray(fc.stringMatching(/^T[a-z]$/)),
        registration,
        registration,
        (others, tags, first, second) => {
          const start: Image = { ...plain, ...others, tags };
          const once = publish(start, first);
          expect(publish(once.image, first).operations).toEqual([]);
          const twice = publish(once.image, second).image;

          expect(twice).toMatchObject({ ...others, ...second.properties });
          const ours = Object.keys(twice).filter((key) => !Object.hasOwn(start, key) && key !== MARK.managed);
          expect(ours.sort()).toEqual(Object.keys(second.properties).sort());
          expect([...twice.tags].sort()).toEqual([...new Set([...tags, ...second.tags])].sort());
        },
      ),
    );
  });

  test('fields are told by the registration’s names', () => {
    const field = (path: string): string => fieldOf({ op: 'replace', path });
    expect(['/os_hidden', '/min_disk', pointer('a/b~c')].map(field)).toEqual([
      'hidden',
      'minDiskGiB',
      'properties.a/b~c',
    ]);
  });

  test('what others wrote into our memory makes us remove nothing but free properties', () => {
    const forged = JSON.stringify({
      properties: ['owner', 'imageproxy_guid', 'free', 'kernel_id'],
      tags: [],
      members: [],
    });
    expect(managedOf({ ...plain, [MARK.managed]: forged }).properties).toEqual(['free', 'kernel_id']);
    expect(managedOf({ ...plain, [MARK.managed]: '{"properties": 7' })).toMatchObject({ properties: [], tags: [] });
  });
});

describe('mapping', () => {
  test('each format there and back', () => {
    for (const format of FORMATS) {
      const { disk, container } = formatsOf('Disk', format);
      expect(recordOf({ ...plain, disk_format: disk, container_format: container }).format).toBe(format);
    }
  });

  test('a typed field goes before a free property of its name; a kernel has none of the disk’s', () => {
    const wanted: Registration = {
      name: 'n',
      visibility: 'Private',
      members: [],
      protected: false,
      hidden: false,
      tags: [],
      properties: { os_distro: 'free', hw: '1' },
      os: { distro: 'Debian' },
      minDiskGiB: 4,
    };
    expect(desiredOf(wanted, 'Disk', { kernel: 'k' })).toMatchObject({
      properties: { os_distro: 'debian', hw: '1', kernel_id: 'k' },
      minDisk: 4,
    });
    expect(desiredOf(wanted, 'Kernel')).toMatchObject({ name: 'n-kernel', properties: {}, minDisk: 0 });
    const shared = { ...wanted, members: ['p'] };
    expect(() => checkRegistration(shared)).toThrow(/visibility: Shared/);
  });

  test('md5 is told only where there is nothing better', () => {
    expect(digestsOf({ ...plain, checksum: 'AB', os_hash_algo: 'sha512', os_hash_value: 'CD' })).toEqual({
      sha512: 'cd',
    });
    expect(digestsOf({ ...plain, checksum: 'AB', os_hash_algo: 'sha3', os_hash_value: 'CD' })).toEqual({ md5: 'ab' });
    expect(digestsOf(plain)).toEqual({});
  });
});

describe('errors', () => {
  test.each([
    [
      '<html><head><title>409 Conflict</title></head><body><h1>409 Conflict</h1> It &quot;is&quot; there.<br /></body></html>',
      'It "is" there.',
    ],
    ['{"error": {"code": 401, "message": "The request\\n needs auth."}}', 'The request needs auth.'],
    ['', ''],
    ['plain', 'plain'],
  ])('%j is read as %j', (body, text) => expect(shortText(body)).toBe(text));

  test('any body is one short line, soon', () => {
    fc.assert(
      fc.property(
        fc.string({ maxLength: 5000, unit: fc.constantFrom('<', '>', '&', 'h1', '/', ' ', '\n', '{', 'a') }),
        (body) => {
          const text = shortText(body);
          expect(text.length).toBeLessThanOrEqual(300);
          expect(text).not.toContain('\n');
        },
      ),
    );
  });

  test('Retry-After in seconds and as a date', () => {
    const now = Date.parse('2026-01-01T00:00:00Z');
    expect(retryAfter('7', now)).toBe(7000);
    expect(retryAfter('Thu, 01 Jan 2026 00:00:09 GMT', now)).toBe(9000);
    expect(retryAfter('Thu, 01 Jan 2015 00:00:09 GMT', now)).toBe(0);
    expect(retryAfter('99999999', now)).toBe(86_400_000);
    expect(retryAfter('soon', now)).toBeUndefined();
  });

  test.each([
    ['Image exceeds the storage quota: 8 MB', 'QuotaExceeded'],
    ['The body of your request was too large. Image exceeds the storage quota', 'QuotaExceeded'],
    ['The incoming image is too large: The provided image is too large.', 'TooLarge'],
  ])('413 with "%s" is %s', (body, reason) => {
    expect(failureOf('Glance', { status: 413, headers: {}, body }, 0).reason).toBe(reason);
  });
});
