import fc from 'fast-check';
import { describe, expect, it, test } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import type { ImageSite, LabelSelector, VMImage } from '../../../src/api/types.ts';
import {
  admits,
  bytesOf,
  checkLimits,
  durationMs,
  matchesSelector,
  registrationOf,
  targetsOf,
} from '../../../src/reconcilers/vmimage/targets.ts';
import { imagesite, vmimage } from './objects.ts';

const site = (name: string, labels: Record<string, string> = {}, more: Partial<ImageSite['spec']> = {}) =>
  imagesite({ metadata: { name, uid: `uid-${name}`, labels }, spec: more });

function storeOf(...sites: ImageSite[]) {
  return {
    list: () => sites,
    get: (_: string, { name }: { name: string }) => sites.find((each) => each.metadata.name === name),
  } as unknown as Parameters<typeof targetsOf>[1];
}

describe('the sites of an image', () => {
  it('are those that it lists, there or not, with its own word on each', () => {
    const nova = site('nova');
    const image = vmimage({
      spec: {
        sites: [
          { name: 'nova', optional: false, registration: { name: 'other' } },
          { name: 'not-there', optional: true },
        ],
      },
    });
    const targets = targetsOf(image, storeOf(nova, site('unasked')));
    expect(targets.map(({ name, optional, site: found }) => [name, optional, found])).toEqual([
      ['nova', false, nova],
      ['not-there', true, undefined],
    ]);
    expect(targets.map((target) => target.registration.name)).toEqual(['other', 'ubuntu']);
  });

  it('may be none', () => {
    expect(targetsOf(vmimage({ spec: { sites: [] } }), storeOf(site('nova')))).toEqual([]);
  });

  it('with a selector are those that it matches, that admit the namespace and that are not going away', () => {
    const { sites: _, ...spec } = vmimage().spec;
    const going = site('going', { region: 'eu' });
    going.metadata.deletionTimestamp = '2026-11-21T12:00:00Z';
    const store = storeOf(
      site('eu-1', { region: 'eu' }),
      site('eu-2', { region: 'eu' }, { allowedNamespaces: ['team-*'] }),
      site('us-1', { region: 'us' }),
      going,
    );
    const named = (siteSelector: LabelSelector, namespace = 'default') => {
      const image: VMImage = { ...vmimage({ metadata: { namespace } }), spec: { ...spec, siteSelector } };
      return targetsOf(image, store).map((target) => target.name);
    };
    expect(named({ matchLabels: { region: 'eu' } })).toEqual(['eu-1']);
    expect(named({ matchLabels: { region: 'eu' } }, 'team-a')).toEqual(['eu-1', 'eu-2']);
    expect(named({})).toEqual(['eu-1', 'us-1']);
  });
});

describe("a selector is Kubernetes' own", () => {
  const labels = { region: 'eu', tier: '', 'example.org/kind': 'prod' };
  test.each<[LabelSelector, boolean]>([
    [{}, true],
    [{ matchLabels: {} }, true],
    [{ matchLabels: { region: 'eu' } }, true],
    [{ matchLabels: { region: 'us' } }, false],
    [{ matchLabels: { region: 'eu', missing: '' } }, false],
    [{ matchLabels: { tier: '' } }, true],
    [{ matchExpressions: [{ key: 'region', operator: 'In', values: ['us', 'eu'] }] }, true],
    [{ matchExpressions: [{ key: 'region', operator: 'In', values: ['us'] }] }, false],
    [{ matchExpressions: [{ key: 'missing', operator: 'In', values: ['us'] }] }, false],
    [{ matchExpressions: [{ key: 'region', operator: 'NotIn', values: ['us'] }] }, true],
    [{ matchExpressions: [{ key: 'region', operator: 'NotIn', values: ['eu'] }] }, false],
    // As in Kubernetes, what has not the label is not in the set.
    [{ matchExpressions: [{ key: 'missing', operator: 'NotIn', values: ['eu'] }] }, true],
    [{ matchExpressions: [{ key: 'tier', operator: 'Exists' }] }, true],
    [{ matchExpressions: [{ key: 'missing', operator: 'Exists' }] }, false],
    [{ matchExpressions: [{ key: 'missing', operator: 'DoesNotExist' }] }, true],
    [{ matchExpressions: [{ key: 'tier', operator: 'DoesNotExist' }] }, false],
    // What every object of the language has is no label.
    [{ matchExpressions: [{ key: 'constructor', operator: 'Exists' }] }, false],
    [{ matchExpressions: [{ key: 'constructor', operator: 'DoesNotExist' }] }, true],
    [
      {
        matchLabels: { region: 'eu' },
        matchExpressions: [
          { key: 'example.org/kind', operator: 'In', values: ['prod'] },
          { key: 'gpu', operator: 'DoesNotExist' },
        ],
      },
      true,
    ],
    [{ matchLabels: { region: 'eu' }, matchExpressions: [{ key: 'gpu', operator: 'Exists' }] }, false],
  ])('%j matches: %s', (selector, expected) => {
    expect(matchesSelector(labels, selector)).toBe(expected);
  });

  it('is narrowed by each further requirement, and NotIn is the opposite of In', () => {
    const key = fc.constantFrom('a', 'b', 'toString', '__proto__');
    const value = fc.constantFrom('', 'x', 'y');
    const requirement = fc.oneof(
      fc.record({
        key,
        operator: fc.constantFrom('In' as const, 'NotIn' as const),
        values: fc.array(value, { minLength: 1, maxLength: 2 }),
      }),
      fc.record({ key, operator: fc.constantFrom('Exists' as const, 'DoesNotExist' as const) }),
    );
    const opposite = { In: 'NotIn', NotIn: 'In', Exists: 'DoesNotExist', DoesNotExist: 'Exists' } as const;
    const anyLabels = fc.dictionary(key, value, { maxKeys: 3 });
    fc.assert(
      fc.property(anyLabels, fc.array(requirement, { maxLength: 3 }), requirement, (given, some, more) => {
        const alone = matchesSelector(given, { matchExpressions: [more] });
        expect(matchesSelector(given, { matchExpressions: [...some, more] })).toBe(
          matchesSelector(given, { matchExpressions: some }) && alone,
        );
        expect(matchesSelector(given, { matchExpressions: [{ ...more, operator: opposite[more.operator] }] })).toBe(
          !alone,
        );
      }),
    );
  });
});

describe('the namespaces that a site admits', () => {
  const admitted = (patterns: string[], namespace: string) =>
    admits(site('nova', {}, { allowedNamespaces: patterns }), vmimage({ metadata: { namespace } }));

  test.each<[string[], string, boolean]>([
    [['*'], 'anything', true],
    [['team-a'], 'team-a', true],
    [['team-a'], 'team-ab', false],
    [['team-*'], 'team-', true],
    [['team-*'], 'steam-a', false],
    [['*-prod', 'team-?'], 'team-b', true],
    [['*-prod', 'team-?'], 'team-bb', false],
    [['a*a'], 'a', false],
    [['a*a'], 'aa', true],
    [['*a*b*c*'], 'xaxbxc', true],
    [['*a*b*c*'], 'xaxcxb', false],
    [['.*'], 'anything', false],
    [[], 'anything', false],
  ])('%j admits %s: %s', (patterns, namespace, expected) => {
    expect(admitted(patterns, namespace)).toBe(expected);
  });

  it('are what the regular expression of the same meaning says', () => {
    const text = fc.string({ unit: fc.constantFrom('a', 'b', '-'), maxLength: 10 });
    const pattern = fc.string({ unit: fc.constantFrom('a', 'b', '-', '*', '*', '?'), maxLength: 8 });
    fc.assert(
      fc.property(pattern, text, (glob, namespace) => {
        const reference = new RegExp(`^${glob.replaceAll('*', '.*').replaceAll('?', '.')}$`);
        expect(admitted([glob], namespace)).toBe(reference.test(namespace));
      }),
      { numRuns: 2000 },
    );
  });

  it('are told in no time, even by a pattern that was made to take long', () => {
    expect(admitted([`${'*a'.repeat(30)}b`], 'a'.repeat(63))).toBe(false);
  });
});

describe('the registration of an image at a site', () => {
  it('has every default filled in', () => {
    const image = vmimage();
    expect(registrationOf(image, undefined)).toEqual({
      name: 'ubuntu',
      visibility: 'Private',
      members: [],
      protected: false,
      hidden: false,
      tags: [],
      properties: {},
    });
  });

  it("is the image's, with the site's own laid over it; properties are merged key by key, the rest is replaced", () => {
    const image = vmimage({
      spec: {
        registration: {
          name: 'Ubuntu',
          visibility: 'Shared',
          members: ['p1'],
          protected: true,
          hidden: true,
          tags: ['lts'],
          properties: { hw_disk_bus: 'virtio', os_type: 'linux' },
          architecture: 'x86_64',
          os: { distro: 'ubuntu', version: '24.04' },
          minDiskGiB: 10,
          minRamMiB: 512,
          firmware: 'Uefi',
        },
      },
    });
    const override = {
      name: 'Ubuntu 24.04',
      members: ['p2'],
      protected: false,
      tags: [],
      properties: { hw_disk_bus: 'scsi', extra: 'yes' },
      os: { distro: 'debian' },
      minDiskGiB: 20,
    };
    expect(registrationOf(image, override)).toEqual({
      name: 'Ubuntu 24.04',
      visibility: 'Shared',
      members: ['p2'],
      protected: false,
      hidden: true,
      tags: [],
      properties: { hw_disk_bus: 'scsi', os_type: 'linux', extra: 'yes' },
      architecture: 'x86_64',
      os: { distro: 'debian' },
      minDiskGiB: 20,
      minRamMiB: 512,
      firmware: 'Uefi',
    });
  });

  it('that a site makes private is shared with nobody there', () => {
    const image = vmimage({
      spec: { registration: { visibility: 'Shared', members: ['p1'], protected: false, hidden: false } },
    });
    expect(registrationOf(image, { visibility: 'Private' }).members).toEqual([]);
    expect(registrationOf(image, undefined).members).toEqual(['p1']);
  });
});

describe('what the owner of a site does not allow', () => {
  const registration = { visibility: 'Private', protected: false, hidden: false } as const;
  const check = (image: VMImage, more: Partial<ImageSite['spec']>) => {
    const nova = site('nova', {}, more);
    const [target] = targetsOf(image, storeOf(nova));
    if (target === undefined) throw new Error('no target');
    try {
      checkLimits(image, target.registration, nova);
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      return `${error.reason}: ${error.message}`;
    }
    return 'allowed';
  };
  const strict = { allowWeak: false, allowUnverified: false };
  const weak = { allowWeak: true, insecureSkipVerify: false };
  const unproven = { allowWeak: false, insecureSkipVerify: true };

  test.each<[string, Partial<VMImage['spec']>, Partial<ImageSite['spec']>, string]>([
    ['nothing', { registration: { ...registration, visibility: 'Public' } }, {}, 'allowed'],
    ['nothing', {}, { limits: {} }, 'allowed'],
    ['nothing of it', { registration }, { limits: { visibilities: ['Private'] } }, 'allowed'],
    [
      'its visibility',
      { registration: { ...registration, visibility: 'Public' } },
      { limits: { visibilities: ['Private', 'Shared'] } },
      'LimitExceeded: spec.registration.visibility: nova allows Private, Shared, not Public; ask the owner of ImageSite nova, or change it for this site',
    ],
    [
      'nothing, since it is asked for as this site allows',
      {
        registration: { ...registration, visibility: 'Public' },
        sites: [{ name: 'nova', optional: false, registration: { visibility: 'Private' } }],
      },
      { limits: { visibilities: ['Private'] } },
      'allowed',
    ],
    [
      'a property',
      { registration: { ...registration, properties: { hw_disk_bus: 'scsi', trait: 'x' } } },
      { limits: { propertyKeys: ['hw_*', 'os_type'] } },
      'LimitExceeded: spec.registration.properties: nova does not allow the property "trait"; ask the owner of ImageSite nova, or change it for this site',
    ],
    ['no property', { registration }, { limits: { propertyKeys: [] } }, 'allowed'],
    [
      'a member',
      { registration: { ...registration, visibility: 'Shared', members: ['p1', 'p2'] } },
      { limits: { members: ['p1'] } },
      'LimitExceeded: spec.registration.members: nova does not allow sharing with p2; ask the owner of ImageSite nova, or change it for this site',
    ],
    [
      'weak checksums',
      { verification: weak },
      { verification: strict },
      'WeakChecksum: ImageSite nova takes no image that is proven by sha1 or md5 alone: add sha256 or sha512, and drop spec.verification.allowWeak',
    ],
    [
      'no checksum',
      { verification: unproven },
      { verification: strict },
      'ChecksumRequired: ImageSite nova takes no unproven image: add spec.checksums, and drop spec.verification.insecureSkipVerify',
    ],
    ['neither, where nobody asks for it', {}, { verification: strict }, 'allowed'],
  ])('is %s', (_, spec, more, expected) => {
    expect(check(vmimage({ spec }), more)).toBe(expected);
  });
});

describe('quantities and durations', () => {
  test.each<[string | number | undefined, number | undefined]>([
    ['1', 1],
    ['1048576', 2 ** 20],
    [1024, 1024],
    ['500Mi', 500 * 2 ** 20],
    ['10Gi', 10 * 2 ** 30],
    ['8Ki', 8192],
    ['2Ti', 2 ** 41],
    [undefined, undefined],
    ['', undefined],
    ['10G', undefined],
    ['1.5Gi', undefined],
    ['-1', undefined],
    ['1 Gi', undefined],
  ])('%s is so many bytes: %s', (quantity, bytes) => {
    expect(bytesOf(quantity)).toBe(bytes);
  });

  test.each<[string | undefined, number]>([
    ['30m', 1_800_000],
    ['1h30m', 5_400_000],
    ['90s', 90_000],
    ['1.5h', 5_400_000],
    ['720h', 720 * 3_600_000],
    ['500ms', 500],
    ['1h0.5m', 3_630_000],
    [undefined, 42],
    ['', 42],
    ['soon', 42],
  ])('%s is so many milliseconds: %s', (text, ms) => {
    expect(durationMs(text, 42)).toBe(ms);
  });
});
