import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import { Memories } from '../../../src/reconcilers/vmimage/memory.ts';

const wrong = new Failure('DigestMismatch', 'wrong bytes');

describe('what is known of the way to a part', () => {
  it('is remembered exactly while somebody asks for the part, whoever comes and goes', () => {
    const name = fc.constantFrom('a', 'b', 'c');
    const keys = fc.uniqueArray(fc.constantFrom<string>('p', 'q', 'r'));
    const step = fc.oneof(
      fc.record({ do: fc.constant('ask' as const), asker: name, keys }),
      fc.record({ do: fc.constant('leave' as const), asker: name, keys }),
      fc.record({ do: fc.constant('learn' as const), asker: name, keys }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const memories = new Memories();
        const wanted = new Map<string, Set<string>>();
        const known = new Set<string>();
        for (const { do: what, asker, keys: named } of steps) {
          if (what === 'ask') {
            memories.ask(asker, named);
            wanted.set(asker, new Set([...(wanted.get(asker) ?? []), ...named]));
          } else if (what === 'leave') {
            memories.leave(asker, named);
            wanted.set(asker, new Set([...(wanted.get(asker) ?? [])].filter((key) => named.includes(key))));
          } else {
            for (const key of named) memories.of(key).condemned.set('mirror', wrong);
            for (const key of named) known.add(key);
          }
          const asked = new Set([...wanted.values()].flatMap((each) => [...each]));
          for (const key of known) if (!asked.has(key)) known.delete(key);
          for (const key of ['p', 'q', 'r']) expect(memories.of(key).condemned.has('mirror')).toBe(known.has(key));
        }
      }),
    );
  });

  it('is over when the part has come, and is learnt anew by those who ask again', () => {
    const memories = new Memories();
    memories.ask('a', ['p']);
    memories.of('p').condemned.set('mirror', wrong);
    memories.clear('p');
    expect(memories.of('p').condemned.size).toBe(0);
    memories.of('p').condemned.set('mirror', wrong);
    expect(memories.of('p').condemned.size).toBe(1);
  });
});
