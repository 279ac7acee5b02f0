import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ANNOTATIONS, type VMImage } from '../../../../src/api/types.ts';
import type { Entry } from '../../../../src/catalogs/catalog.ts';
import { draftOf, existingDraft, isAsDrafted } from '../../../../src/reconcilers/imagesubscription/draft.ts';
import { entries, entry, list, SHA512, stored, subscription, UUID } from './entries.ts';

const making = (spec: Record<string, unknown> = {}, facts: Parameters<typeof list>[0] = {}) => ({
  subscription: subscription(spec),
  instance: 'test',
  list: list(facts),
});
const specOf = (entryOf: Entry, spec?: Record<string, unknown>, facts?: Parameters<typeof list>[0]) =>
  draftOf(entryOf, undefined, making(spec, facts)).spec as VMImage['spec'];
const template = (registration: Record<string, unknown>) => ({
  template: { spec: { sites: [{ name: 'nova' }], registration } },
});

describe('the draft of an entry', () => {
  test('is a VMImage that the store takes, whatever a list may say', () => {
    fc.assert(
      fc.property(entries, (made) => {
        const named = template({ name: '{title} {version} {id} {digest12}' });
        const image = stored(draftOf(made, undefined, making(named)));
        expect(image.spec.source.http?.urls).toEqual(made.urls);
      }),
      { numRuns: 60 },
    );
  });

  test('is as it was drafted once it is stored, so that nothing is written twice', () => {
    fc.assert(
      fc.property(entries, (made) => {
        const first = draftOf(made, undefined, making());
        const image = stored(first);
        expect(isAsDrafted(image, draftOf(made, image, making({}, { version: '2' })))).toBe(true);
      }),
      { numRuns: 40 },
    );
  });

  test.each<[string, (image: VMImage) => VMImage]>([
    [
      'another URL',
      (image) => ({ ...image, spec: { ...image.spec, source: { http: { urls: ['https://evil.example/x'] } } } }),
    ],
    ['a label less', (image) => ({ ...image, metadata: { ...image.metadata, labels: {} } })],
    [
      'another maker',
      (image) => {
        const annotations = { ...image.metadata.annotations, [ANNOTATIONS.subscriptionUid]: 'other' };
        return { ...image, metadata: { ...image.metadata, annotations } };
      },
    ],
    [
      'an owner with whom it would be deleted',
      (image) => {
        const owner = { apiVersion: 'imageproxy.dev/v1beta1', kind: 'ImageSubscription', name: 'egi', uid: 'uid-egi' };
        return { ...image, metadata: { ...image.metadata, ownerReferences: [owner] } };
      },
    ],
  ])('is seen to be changed by somebody else: %s', (_, change) => {
    const draft = draftOf(entry(), undefined, making());
    expect(isAsDrafted(stored(draft), draft)).toBe(true);
    expect(isAsDrafted(change(stored(draft)), draft)).toBe(false);
  });

  test('that says less than before is written again', () => {
    const image = stored(draftOf(entry(), undefined, making(template({ tags: ['a'] }))));
    expect(isAsDrafted(image, draftOf(entry(), image, making()))).toBe(false);
  });

  test('leaves what others add to the image', () => {
    const draft = draftOf(entry(), undefined, making());
    const image = stored(draft);
    const labels = { ...image.metadata.labels, theirs: 'x' };
    expect(isAsDrafted({ ...image, metadata: { ...image.metadata, labels } }, draft)).toBe(true);
  });

  test('keeps the guid that the image has, and the switches of a person', () => {
    const image = stored(draftOf(entry(), undefined, making()));
    const switched: VMImage = {
      ...image,
      spec: { ...image.spec, guid: 'before', state: 'Deactivated', suspend: true },
    };
    expect(draftOf(entry(), switched, making()).spec).toMatchObject({
      guid: 'before',
      state: 'Deactivated',
      suspend: true,
    });
  });

  test('brings back what was retired with its entry, and not what a person has deactivated', () => {
    const image = stored(draftOf(entry(), undefined, making()));
    const retired = stored(existingDraft(image, subscription(), { retired: 'Removed', owned: true }));
    expect(retired.spec.state).toBe('Deactivated');
    expect(retired.metadata.annotations).toMatchObject({ [ANNOTATIONS.retired]: 'Removed', [ANNOTATIONS.entry]: UUID });
    const again = draftOf(entry(), retired, making());
    expect(isAsDrafted(retired, again)).toBe(false);
    expect(again.spec).not.toHaveProperty('state');
    expect(again.metadata.annotations).not.toHaveProperty(ANNOTATIONS.retired);
  });

  test.each(['Retain', 'Delete'])(
    'of an image that is let go has no owner, and all that the image was: %s',
    (policy) => {
      const image = stored(draftOf(entry(), undefined, making({ deletionPolicy: policy })));
      const released = existingDraft(image, subscription({ deletionPolicy: policy }), { owned: false });
      expect(released.metadata).not.toHaveProperty('ownerReferences');
      expect(released.spec).toEqual(image.spec);
      const { [ANNOTATIONS.subscriptionUid]: maker, ...annotations } = image.metadata.annotations ?? {};
      expect(maker).toBe('uid-egi');
      expect(released.metadata.annotations).toEqual(annotations);
    },
  );

  test('has an owner only where that takes its images with it: the garbage collector asks nobody', () => {
    const kept = stored(draftOf(entry(), undefined, making({ deletionPolicy: 'Retain' })));
    expect(kept.metadata).not.toHaveProperty('ownerReferences');
    const going = draftOf(entry(), kept, making({ deletionPolicy: 'Delete' }));
    expect(going.metadata.ownerReferences).toMatchObject([{ kind: 'ImageSubscription', uid: 'uid-egi' }]);
    expect(isAsDrafted(kept, going)).toBe(false);
    expect(isAsDrafted(stored(going), draftOf(entry(), kept, making({ deletionPolicy: 'Retain' })))).toBe(false);
    const retired = existingDraft(kept, subscription(), { retired: 'Removed', owned: true });
    expect(retired.metadata).not.toHaveProperty('ownerReferences');
    expect(retired.metadata.annotations).toMatchObject({ [ANNOTATIONS.subscriptionUid]: 'uid-egi' });
  });
});

describe('the registration', () => {
  test('knows what the list knows, and the template goes before it', () => {
    const known = entry({ minRamMiB: 512, minDiskGiB: 10 });
    expect(specOf(known).registration).toMatchObject({
      architecture: 'x86_64',
      os: { distro: 'ubuntu', version: '24.04' },
      minRamMiB: 512,
      minDiskGiB: 10,
    });
    const own = template({ minRamMiB: 1024, os: { distro: 'debian' } });
    expect(specOf(known, own).registration).toMatchObject({
      minRamMiB: 1024,
      os: { distro: 'debian' },
      minDiskGiB: 10,
    });
  });

  test.each([
    ['{title} ({version})', {}, 'Ubuntu 24.04 (1.2)'],
    ['{id}-{digest12}', {}, `${UUID}-${SHA512.slice(0, 12)}`],
    ['{title}', { title: undefined }, UUID],
    ['{title}', { title: '  two\n lines\u0000 ' }, 'two lines'],
    ['{unknown}', {}, '{unknown}'],
    ['{title}', { title: '{id}' }, '{id}'],
    ['{title}', { title: 'x'.repeat(300) }, 'x'.repeat(255)],
  ])('is named %s', (name, more, expected) => {
    const { title, ...rest } = entry(more as Partial<Entry>);
    const named = title === undefined ? rest : { ...rest, title };
    expect(specOf(named as Entry, template({ name })).registration.name).toBe(expected);
  });

  test('of a HEPiX list has the properties that EGI knows an image by; an empty one in the template leaves one out', () => {
    const { properties = {} } = specOf(entry()).registration;
    expect(properties).toMatchObject({
      vmcatcher_event_dc_identifier: UUID,
      vmcatcher_event_dc_description: 'Ubuntu 24.04',
      vmcatcher_event_ad_mpuri: 'https://appdb.example.org/1',
    });
    expect(JSON.parse(properties['APPLIANCE_ATTRIBUTES'] ?? '')).toEqual(entry().fields);
    const own = template({ properties: { APPLIANCE_ATTRIBUTES: '', hw_disk_bus: 'virtio' } });
    const left = specOf(entry(), own).registration.properties;
    expect(left).toMatchObject({ hw_disk_bus: 'virtio', vmcatcher_event_dc_identifier: UUID });
    expect(left).not.toHaveProperty('APPLIANCE_ATTRIBUTES');
    expect(specOf(entry(), {}, { format: 'ChecksumFile' }).registration).not.toHaveProperty('properties');
  });

  test('leaves out the longest of what a list says rather than cutting through it', () => {
    const fields = { short: 'kept', long: 'x'.repeat(4000), longer: 'y'.repeat(4090) };
    const { properties = {} } = specOf(entry({ fields })).registration;
    expect(JSON.parse(properties['APPLIANCE_ATTRIBUTES'] ?? '')).toEqual({ short: 'kept', long: fields.long });
  });
});

describe('access', () => {
  const access = { secretRef: { name: 'token' }, caRef: { kind: 'ConfigMap', name: 'ca' } };

  test('to a list is access to the images on its own server', () => {
    const own = entry({ urls: ['https://lists.example.org/a', 'https://lists.example.org:443/b'] });
    expect(specOf(own, access).source.http).toMatchObject({ secretRef: { name: 'token' }, caRef: { name: 'ca' } });
  });

  test.each(['https://evil.example.org/b', 'http://lists.example.org/b', 'https://lists.example.org:8443/b'])(
    'is not given where one of the locations is %s',
    (url) => {
      const mixed = entry({ urls: ['https://lists.example.org/a', url] });
      expect(specOf(mixed, access).source.http).toEqual({ urls: mixed.urls });
    },
  );
});
