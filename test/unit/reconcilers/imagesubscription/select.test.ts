import { describe, expect, test } from 'vitest';
import type { Entry } from '../../../../src/catalogs/catalog.ts';
import { approvalOf, digestOf } from '../../../../src/reconcilers/imagesubscription/approval.ts';
import { byClaim } from '../../../../src/reconcilers/imagesubscription/claims.ts';
import { type Select, selectionOf } from '../../../../src/reconcilers/imagesubscription/select.ts';
import { entry, SHA512, subscription, UUID } from './entries.ts';
import { effortMs } from '../../../support/effort.ts';

const alice = { kind: 'x509', name: 'Alice', subject: '/DC=ch/CN=alice', fingerprint: 'ab' } as const;
const ubuntu = entry({ signer: alice, size: 1000, fields: { 'ad:vo': 'atlas', 'hv:size': '1000', empty: '' } });
const { title: _, ...untitled } = ubuntu;

describe('a selection', () => {
  test.each<[string, Select, Entry, boolean]>([
    ['nothing', {}, ubuntu, true],
    ['a value', { matchFields: [{ key: 'arch', operator: 'In', values: ['aarch64', 'x86_64'] }] }, ubuntu, true],
    ['a glob', { matchFields: [{ key: 'title', operator: 'In', values: ['Ubuntu *'] }] }, ubuntu, true],
    ['a glob over part of it', { matchFields: [{ key: 'title', operator: 'In', values: ['Ubuntu'] }] }, ubuntu, false],
    ['a number', { matchFields: [{ key: 'size', operator: 'In', values: ['1000'] }] }, ubuntu, true],
    ['a field of the list', { matchFields: [{ key: 'ad:vo', operator: 'In', values: ['at?as'] }] }, ubuntu, true],
    ['a nested field', { matchFields: [{ key: 'os.distro', operator: 'NotIn', values: ['ubuntu'] }] }, ubuntu, false],
    ['a checksum', { matchFields: [{ key: 'checksums.sha512', operator: 'In', values: [SHA512] }] }, ubuntu, true],
    ['the endorser', { matchFields: [{ key: 'endorser', operator: 'In', values: ['/DC=ch/*'] }] }, ubuntu, true],
    ['not what is not there', { matchFields: [{ key: 'title', operator: 'NotIn', values: ['x'] }] }, untitled, true],
    ['something that is there', { matchFields: [{ key: 'title', operator: 'Exists' }] }, untitled, false],
    ['something that is empty', { matchFields: [{ key: 'empty', operator: 'DoesNotExist' }] }, ubuntu, true],
    [
      'all of several',
      {
        matchFields: [
          { key: 'id', operator: 'Exists' },
          { key: 'nope', operator: 'Exists' },
        ],
      },
      ubuntu,
      false,
    ],
    ['a name of every object', { matchFields: [{ key: 'constructor', operator: 'Exists' }] }, ubuntu, false],
    ['a name of every object within', { matchFields: [{ key: 'os.toString', operator: 'Exists' }] }, ubuntu, false],
    ['an id on the white list', { include: { ids: [UUID] } }, ubuntu, true],
    ['no id on the white list', { include: { ids: ['other'] } }, ubuntu, false],
    ['a glob on the white list', { include: { ids: ['9394*'] } }, ubuntu, true],
    ['an endorser on the white list', { include: { ids: ['other'], endorsers: ['Ali*'] } }, ubuntu, true],
    ['a checksum on the black list', { exclude: { checksums: [SHA512.toUpperCase()] } }, ubuntu, false],
    ['both lists', { include: { ids: [UUID] }, exclude: { ids: [UUID] } }, ubuntu, false],
    ['a list and an expression', { include: { ids: [UUID] }, expression: 'entry.arch == "aarch64"' }, ubuntu, false],
  ])('by %s', (_, select, each, expected) => {
    expect(selectionOf(select)(each)).toBe(expected);
  });
});

describe('an expression', () => {
  const of = (expression: string, each = ubuntu) => selectionOf({ expression })(each);

  test.each([
    ['entry.arch == "x86_64" && entry.os.distro == "ubuntu"', true],
    ['entry.size > 999 && entry.size / 2 == 500', true],
    ['entry.title.startsWith("Ubuntu")', true],
    ['entry.endorser == "/DC=ch/CN=alice"', true],
    ['"ad:vo" in entry.fields && entry.fields["ad:vo"] == "atlas"', true],
    ['entry.urls.exists(url, url.matches("^https://images"))', true],
    ['entry.checksums.sha512.size() == 128', true],
    ['entry.deprecated == "" && entry.minRamMiB == 0 && entry.os.name == ""', true],
    [`entry.arch in [${'"x",'.repeat(200)}"x86_64"]`, true],
    ['entry.fields.exists(key, entry.urls.exists(url, url == key))', false],
  ])('%s', (expression, expected) => {
    expect(of(expression)).toBe(expected);
  });

  test.each([
    ['entry.fields["none"] == "x"', /none/],
    ['entry.size', /neither true nor false/],
    ['entry.nonsense', /nonsense/],
    [`entry.title.matches("(${'x'.repeat(4000)}")`, /^error parsing regexp: .{0,990}$/],
  ])('that cannot be told of an entry says why: %s', (expression, fault) => {
    expect(of(expression)).toEqual({ fault: expect.stringMatching(fault) as string });
  });

  test.each([
    ['entry.(', /expecting/],
    ['entry.urls.all(a, entry.urls.all(b, entry.urls.all(c, true)))', /2 deep at most/],
    [`[${'1,'.repeat(128)}1].all(a, entry.urls.all(b, true))`, /128 elements/],
    [`[entry.title].exists(a, [${'a+'.repeat(17)}a].exists(b, b == ""))`, /"\+" .* may stand 16 times/],
    [`{${Array.from({ length: 129 }, (_, i) => `${i}: 1`).join(',')}}.all(a, true)`, /128 elements/],
  ])('that is none is refused before an entry is looked at: %s', (expression, words) => {
    expect(() => selectionOf({ expression })).toThrow(
      expect.objectContaining({ reason: 'InvalidSpec', message: expect.stringMatching(words) as string }),
    );
  });

  test('backtracks nowhere', async () => {
    const took = await effortMs(() => {
      expect(of('entry.title.matches("(a+)+$")', entry({ title: `${'a'.repeat(60)}!` }))).toBe(false);
    });
    expect(took).toBeLessThan(5_000);
  });
});

describe('approval', () => {
  const isApproved = (approved: object[], each = ubuntu) =>
    approvalOf(subscription({ approval: 'Manual', approved }).spec)(each);

  test.each([
    [[], false],
    [[{ id: 'other' }], false],
    [[{ id: UUID }], true],
    [[{ id: UUID, digest: `sha512:${SHA512}` }], true],
    [[{ id: UUID, digest: `sha512:${'0'.repeat(128)}` }], false],
  ])('by %j', (approved, expected) => {
    expect(isApproved(approved)).toBe(expected);
  });

  test('by any of the digests that the list gives, and of the uncompressed bytes where there are no others', () => {
    const both = entry({ checksums: { sha512: SHA512, md5: 'c'.repeat(32) } });
    expect(isApproved([{ id: UUID, digest: `md5:${'c'.repeat(32)}` }], both)).toBe(true);
    const content = entry({ checksums: {}, contentChecksums: { sha1: 'd'.repeat(40) } });
    expect(digestOf(content)).toBe(`sha1:${'d'.repeat(40)}`);
    expect(isApproved([{ id: UUID, digest: digestOf(content) }], content)).toBe(true);
  });

  test('is not asked for where it is automatic', () => {
    expect(approvalOf(subscription().spec)(ubuntu)).toBe(true);
  });
});

describe('of two subscriptions that offer one image', () => {
  const signed = { trust: { minisign: { publicKeys: [`RW${'A'.repeat(54)}`] } } };
  const [early, late] = ['2026-01-01T00:00:00Z', '2026-02-01T00:00:00Z'];

  test.each([
    [
      'the signed one',
      subscription(signed, { creationTimestamp: late }),
      subscription({}, { creationTimestamp: early }),
    ],
    ['the older one', subscription({}, { creationTimestamp: early }), subscription({}, { creationTimestamp: late })],
    ['the lower uid', subscription({}, { uid: 'a' }), subscription({}, { uid: 'b' })],
  ])('%s goes first', (_, first, second) => {
    expect(byClaim(first, second)).toBe(-1);
    expect(byClaim(second, first)).toBe(1);
  });
});
