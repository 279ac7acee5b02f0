import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { VMImage } from '../../../src/api/types.ts';
import { defaultGuid } from '../../../src/reconcilers/vmimage/identity.ts';
import { byAge, Siblings } from '../../../src/reconcilers/vmimage/siblings.ts';
import { vmimage } from './objects.ts';

function siblingsOf(...images: VMImage[]): Siblings {
  const siblings = new Siblings('i');
  for (const object of images) siblings.note({ type: 'Applied', object });
  return siblings;
}

const image = (name: string, guid: string | undefined, metadata: Partial<VMImage['metadata']> = {}) =>
  vmimage({ metadata: { name, uid: `uid-${name}`, ...metadata }, spec: guid === undefined ? {} : { guid } });

describe('images with one guid', () => {
  it('are those of the namespace with the same one, the oldest first, and not the image itself', () => {
    const mine = image('mine', 'g', { creationTimestamp: '2026-01-02T00:00:00Z' });
    const siblings = siblingsOf(
      mine,
      image('younger', 'g', { creationTimestamp: '2026-01-03T00:00:00Z' }),
      image('older', 'g', { creationTimestamp: '2026-01-01T00:00:00Z' }),
      image('other', 'h'),
      image('elsewhere', 'g', { namespace: 'team' }),
    );
    expect(siblings.of(mine).map((each) => each.metadata.name)).toEqual(['older', 'younger']);
  });

  it('are known before anybody has looked at them, also where one takes the other’s default for its own', () => {
    const plain = image('plain', undefined);
    const thief = image('thief', defaultGuid('i', 'default', 'plain'));
    const siblings = siblingsOf(plain, thief);
    expect(siblings.of(thief)).toEqual([plain]);
    expect(siblings.of(plain)).toEqual([thief]);
  });

  it('stand in one order for everyone who looks, also where two were made in one second', () => {
    const time = fc.constantFrom('2026-01-01T00:00:00Z', '2026-01-02T00:00:00Z');
    const images = fc
      .uniqueArray(fc.tuple(fc.uuid(), time), { selector: ([uid]) => uid, minLength: 2, maxLength: 6 })
      .map((all) => all.map(([uid, creationTimestamp]) => image(uid, 'g', { uid, creationTimestamp })));
    fc.assert(
      fc.property(images, (all) => {
        const uids = (list: VMImage[]) => list.map((each) => each.metadata.uid);
        const sorted = uids(all.toSorted(byAge));
        expect(uids(all.toReversed().toSorted(byAge))).toEqual(sorted);
        // Exactly one serves: it has no older one; all others have.
        const first = all.filter((each) =>
          siblingsOf(...all)
            .of(each)
            .every((other) => byAge(other, each) > 0),
        );
        expect(uids(first)).toEqual(sorted.slice(0, 1));
      }),
    );
  });
});

describe('of two images that were made in the same second', () => {
  it('the one that has something registered is the older, whatever their uids', () => {
    const [a, b] = [image('a', 'g'), image('b', 'g')];
    expect(byAge(a, b)).toBe(-1);
    const registered = { ...b, status: { ...b.status, sites: [{ name: 'nova', imageID: 'id' }] } };
    expect(byAge(a, registered)).toBe(1);
    expect(byAge(registered, a)).toBe(-1);
    // Who goes hands over: the other waits for it, whatever that has by now.
    const going = { ...a, metadata: { ...a.metadata, deletionTimestamp: '2026-11-21T12:00:00Z' } };
    expect(byAge(going, registered)).toBe(-1);
    expect(byAge(registered, going)).toBe(1);
    // Another second goes before all of that.
    const older = image('z', 'g', { creationTimestamp: '2025-01-01T00:00:00Z' });
    expect(byAge(older, registered)).toBe(-1);
  });
});

describe('what is known of guids', () => {
  it('is the same whatever came and went before', () => {
    const change = fc.record({
      type: fc.constantFrom('Applied' as const, 'Applied' as const, 'Deleted' as const),
      name: fc.constantFrom('a', 'b', 'c', 'd'),
      guid: fc.constantFrom('g', 'h', undefined),
    });
    fc.assert(
      fc.property(fc.array(change, { maxLength: 30 }), (changes) => {
        const siblings = new Siblings('i');
        const there = new Map<string, VMImage>();
        for (const { type, name, guid } of changes) {
          const object = image(name, guid);
          siblings.note({ type, object });
          if (type === 'Deleted') there.delete(name);
          else there.set(name, object);
        }
        for (const each of ['a', 'b', 'c', 'd'].map((name) => image(name, 'g')))
          expect(siblings.of(each)).toEqual(siblingsOf(...there.values()).of(each));
      }),
    );
  });
});

describe('the holder of a claim', () => {
  it('lives while it is there and not on its way out', () => {
    const going = image('going', 'g', { deletionTimestamp: '2026-01-01T00:00:00Z' });
    const siblings = siblingsOf(image('there', 'g'), going);
    expect(siblings.isLiving('default', 'uid-there')).toBe(true);
    expect(siblings.isLiving('default', 'uid-going')).toBe(false);
    expect(siblings.isLiving('default', 'uid-gone')).toBe(false);
    expect(siblings.isLiving('team', 'uid-there')).toBe(false);
  });
});
