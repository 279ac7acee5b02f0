import fc from 'fast-check';
import { describe, expect, it, test } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import type { CloudTraits, Registration } from '../../../src/clouds/cloud.ts';
import type { Role } from '../../../src/images/format.ts';
import {
  register,
  type Registered,
  type RegisterJob,
  type SitePart,
} from '../../../src/reconcilers/vmimage/register.ts';
import { registrationId } from '../../../src/reconcilers/vmimage/identity.ts';
import { Crash, hash, ScriptedBytes, ScriptedCloud } from './scripted-cloud.ts';

const REGISTRATION: Registration = {
  name: 'ubuntu',
  visibility: 'Private',
  members: [],
  protected: false,
  hidden: false,
  tags: [],
  properties: {},
};
const NEVER = new AbortController().signal;
const ROLES: readonly Role[] = ['Disk', 'Kernel', 'Ramdisk'];

/** A part whose id names role and attempt, so that tests can read it. */
function part(role: Role, text = role.toLowerCase(), attempt = 1): SitePart {
  return {
    role,
    id: `${role}-${text}-${attempt}`,
    sourceDigest: `sha256:${hash('sha256', text)}`,
    format: role === 'Disk' ? 'Qcow2' : 'Raw',
    bytes: new ScriptedBytes(text),
    transform: 'as-published',
  };
}

function job(cloud: ScriptedCloud, more: Partial<RegisterJob> = {}): RegisterJob {
  return {
    cloud,
    owner: 'owner',
    guid: 'guid',
    claim: 'uid',
    attempt: 1,
    registration: REGISTRATION,
    parts: [part('Disk')],
    known: new Set(),
    isAlive: () => false,
    onProgress: () => undefined,
    mayPublish: () => Promise.resolve(),
    ...more,
  };
}

/** As the reconciler does it: a burnt id counts the attempt up, which is written down; everything else is told. */
async function registered(
  cloud: ScriptedCloud,
  more: Partial<RegisterJob> = {},
  row: { attempt: number } = { attempt: 1 },
): Promise<Registered> {
  for (;;) {
    const { attempt } = row;
    const parts = (more.parts ?? [part('Disk')]).map((each) => ({
      ...each,
      id: each.id.replace(/\d+$/, String(attempt)),
    }));
    try {
      return await register(job(cloud, { ...more, attempt, parts }), NEVER);
    } catch (error) {
      if (!(error instanceof Failure) || error.reason !== 'IdTaken' || attempt > 16) throw error;
      row.attempt++;
    }
  }
}

const failureOf = (promise: Promise<unknown>) =>
  promise.then(
    () => 'no failure',
    (error: unknown) => (error instanceof Failure ? error.reason : String(error)),
  );

describe('an image that is nowhere yet', () => {
  it('is staged, proven and only then published', async () => {
    const cloud = new ScriptedCloud();
    const result = await register(job(cloud), NEVER);
    expect(cloud.calls).toEqual([
      'find',
      'stage Disk Disk-disk-1',
      'upload Disk-disk-1',
      'finish Disk-disk-1',
      'mark Disk-disk-1',
      'publish Disk-disk-1',
    ]);
    expect(result.adopted).toBe(false);
    expect(result.parts).toEqual([
      {
        id: 'Disk-disk-1',
        role: 'Disk',
        digest: `sha256:${hash('sha256', 'disk')}`,
        sentDigest: `sha256:${hash('sha256', 'disk')}`,
        cloudDigest: `sha512:${hash('sha512', 'disk')}`,
        format: 'Qcow2',
        size: 4,
      },
    ]);
    expect(cloud.visible).toEqual(['Disk-disk-1=disk']);
  });

  it('has its kernel and ramdisk there before the disk that names them, whatever the order they are named in', async () => {
    for (const roles of [ROLES, ROLES.toReversed()]) {
      const cloud = new ScriptedCloud();
      const result = await register(job(cloud, { parts: roles.map((role) => part(role)) }), NEVER);
      expect(cloud.calls.filter((call) => /^(stage|publish)/.test(call))).toEqual([
        'stage Kernel Kernel-kernel-1',
        'stage Ramdisk Ramdisk-ramdisk-1',
        'stage Disk Disk-disk-1',
        'publish Kernel-kernel-1',
        'publish Ramdisk-ramdisk-1',
        'publish Disk-disk-1',
      ]);
      expect(result.parts.map((each) => each.role)).toEqual(['Kernel', 'Ramdisk', 'Disk']);
    }
  });

  it('is asked for its proof once more at the very end, after the uploads', async () => {
    const cloud = new ScriptedCloud();
    const disk = part('Disk');
    const bytes = disk.bytes as ScriptedBytes;
    const kernel = part('Kernel');
    // The image is suspended while its kernel is there already and the disk still comes.
    cloud.add({ id: 'k', role: 'Kernel', text: 'kernel', published: false });
    (kernel.bytes as ScriptedBytes).proven = false;
    expect(await failureOf(register(job(cloud, { parts: [disk, kernel] }), NEVER))).toBe('DigestMismatch');
    expect(bytes.asked).toBeGreaterThan(1);
    expect(cloud.visible).toEqual([]);
  });

  it('is never visible when its bytes turn out to be others, and nothing of it is left', async () => {
    const cloud = new ScriptedCloud();
    const disk = part('Disk');
    (disk.bytes as ScriptedBytes).proven = false;
    expect(await failureOf(register(job(cloud, { parts: [disk] }), NEVER))).toBe('DigestMismatch');
    expect(cloud.records.size).toBe(0);
  });

  it('tells the progress of its uploads', async () => {
    const cloud = new ScriptedCloud();
    const told: [number, number][] = [];
    const stage = cloud.stage.bind(cloud);
    cloud.stage = async (staged) => {
      staged.onProgress?.(2, 4);
      return stage(staged);
    };
    await register(job(cloud, { onProgress: (...numbers) => void told.push(numbers) }), NEVER);
    expect(told).toEqual([[2, 4]]);
  });
});

describe('an image that is there already', () => {
  it('is found again without a byte being sent', async () => {
    const cloud = new ScriptedCloud();
    const parts = ROLES.map((role) => part(role));
    const first = await register(job(cloud, { parts }), NEVER);
    cloud.calls.length = 0;
    const again = await register(job(cloud, { parts: ROLES.map((role) => part(role, undefined, 7)) }), NEVER);
    expect(again).toEqual({ ...first, adopted: true });
    expect(cloud.calls.filter((call) => /stage|upload|remove/.test(call))).toEqual([]);
  });

  it('is taken over from an image of the same guid that is no more', async () => {
    const cloud = new ScriptedCloud();
    cloud.add({ id: 'd', claim: 'dead' });
    const result = await register(job(cloud), NEVER);
    expect(result.parts[0]?.id).toBe('d');
    expect(result.adopted).toBe(true);
    expect(cloud.records.get('d')?.claim).toBe('uid');
    expect(cloud.calls).toEqual(['find', 'claim d', 'publish d']);
  });

  it('comes back into service where it was retired', async () => {
    const cloud = new ScriptedCloud();
    cloud.add({ id: 'd', state: 'Deactivated', published: false });
    const result = await register(job(cloud, { known: new Set(['d']) }), NEVER);
    expect(result.parts[0]?.id).toBe('d');
    expect(cloud.calls).toEqual(['find', 'reactivate d', 'publish d']);
    expect(cloud.visible).toEqual(['d=disk']);
  });

  it('is the one in service rather than a retired or an unpublished twin', async () => {
    const cloud = new ScriptedCloud();
    cloud.add({ id: 'retired', state: 'Deactivated', published: false });
    cloud.add({ id: 'unpublished', published: false });
    cloud.add({ id: 'serving' });
    expect((await register(job(cloud), NEVER)).parts[0]?.id).toBe('serving');
  });

  it('is known by its bytes where the cloud computes no hash', async () => {
    const cloud = new ScriptedCloud({ digest: undefined });
    cloud.add({ id: 'd' });
    const result = await register(job(cloud), NEVER);
    expect(result.adopted).toBe(true);
    expect(result.parts[0]?.cloudDigest).toBeUndefined();
  });

  it.each(['sha512', 'sha256'] as const)('is known by whichever strong hash the cloud tells: %s', async (told) => {
    const cloud = new ScriptedCloud();
    cloud.add({ id: 'd', claim: 'dead', cloudDigests: { [told]: hash(told, 'disk') } });
    const result = await register(job(cloud), NEVER);
    expect(result.parts).toMatchObject([{ id: 'd', cloudDigest: `${told}:${hash(told, 'disk')}` }]);
    expect(result.adopted).toBe(true);
  });

  it('is known by the hash that the cloud tells when it is asked for this one record', async () => {
    const cloud = new ScriptedCloud({ digest: 'sha256' });
    cloud.add({ id: 'd', claim: 'dead' });
    const find = cloud.find.bind(cloud);
    cloud.find = async (ownership) => (await find(ownership)).map((record) => ({ ...record, cloudDigests: {} }));
    expect((await register(job(cloud), NEVER)).parts[0]?.id).toBe('d');
  });

  it('that belongs to another living VMImage is refused by name, and nothing is changed', async () => {
    const cloud = new ScriptedCloud();
    cloud.add({ id: 'd', claim: 'uid-other' });
    const promise = register(job(cloud, { isAlive: (uid) => uid === 'uid-other' }), NEVER);
    await expect(promise).rejects.toThrow(
      'the registration d with guid guid belongs to another VMImage (uid uid-other)',
    );
    expect(await failureOf(promise)).toBe('ClaimedByOther');
    expect(cloud.calls).toEqual(['find']);
  });

  test.each<[string, Partial<Parameters<ScriptedCloud['add']>[0]>, Partial<CloudTraits>]>([
    ['holds other bytes under the same digest', { text: 'evil', sourceDigest: `sha256:${hash('sha256', 'disk')}` }, {}],
    ['claims to hold our bytes, and the cloud hashes others', { text: 'evil', sentSha256: hash('sha256', 'disk') }, {}],
    ['has no hash of the cloud', { cloudDigests: {} }, {}],
    ['has a weak hash of the cloud alone', { cloudDigests: { md5: hash('md5', 'disk') } }, {}],
    ['is a kernel', { role: 'Kernel' }, {}],
    ['was sent as other bytes to a cloud without a hash', { sentSha256: hash('sha256', 'x') }, { digest: undefined }],
  ])('is not taken for ours when it %s', async (_, record, traits) => {
    const cloud = new ScriptedCloud(traits);
    cloud.add({ id: 'look-alike', ...record });
    const result = await register(job(cloud), NEVER);
    expect(result.parts[0]?.id).toBe('Disk-disk-1');
    expect(result.adopted).toBe(false);
    // It is complete and may be in use: retired like any former registration, not removed.
    expect(cloud.records.has('look-alike')).toBe(true);
    expect(result.forgotten.map((each) => each.id)).toEqual(['look-alike']);
  });

  it('of another instance, another namespace or another guid is not seen at all', async () => {
    const cloud = new ScriptedCloud();
    cloud.add({ id: 'theirs', owner: 'other' });
    cloud.add({ id: 'other-guid', guid: 'other' });
    const before = structuredClone([...cloud.records]);
    const result = await register(job(cloud), NEVER);
    expect(result.forgotten).toEqual([]);
    expect([...cloud.records].slice(0, 2)).toEqual(before);
  });
});

describe('what an earlier run left', () => {
  test.each(['Empty', 'Uploading', 'Broken'] as const)('%s is removed, once the image is there', async (state) => {
    const cloud = new ScriptedCloud();
    cloud.add({ id: 'old-1', text: 'old', state, published: false, cloudDigests: {} });
    const result = await register(job(cloud), NEVER);
    expect(result.forgotten).toEqual([]);
    expect([...cloud.records.keys()]).toEqual(['Disk-disk-1']);
  });

  it('is not removed when the row knows it', async () => {
    const cloud = new ScriptedCloud();
    cloud.add({ id: 'known', text: 'old', state: 'Broken', published: false });
    await register(job(cloud, { known: new Set(['known']) }), NEVER);
    expect(cloud.records.has('known')).toBe(true);
  });

  it('is gone on with where it was only made', async () => {
    const cloud = new ScriptedCloud();
    cloud.add({ id: 'Disk-disk-1', text: '', state: 'Empty', published: false, sentSha256: '', cloudDigests: {} });
    const result = await register(job(cloud), NEVER);
    expect(result.parts[0]?.id).toBe('Disk-disk-1');
    expect(cloud.calls).not.toContain('stage Disk Disk-disk-1');
  });

  it('with the very ids, by an image of this guid that is no more, is in nobody’s way', async () => {
    for (const state of ['Empty', 'Uploading'] as const) {
      const cloud = new ScriptedCloud();
      cloud.add({ id: 'Disk-disk-1', claim: 'dead', text: '', state, published: false, cloudDigests: {} });
      const result = await registered(cloud);
      expect(cloud.visible).toEqual([`${result.parts[0]?.id}=disk`]);
      expect(cloud.records.size).toBe(1);
    }
  });

  it('complete, with the very id and other bytes, by an image of this guid that is no more, is told, to be retired', async () => {
    const cloud = new ScriptedCloud();
    cloud.add({ id: 'Disk-disk-1', claim: 'dead', text: 'converted otherwise' });
    const row = { attempt: 1 };
    const result = await registered(cloud, {}, row);
    expect(row.attempt).toBe(2);
    expect(result.parts[0]?.id).toBe('Disk-disk-2');
    expect(result.forgotten.map((each) => each.id)).toEqual(['Disk-disk-1']);
    expect(cloud.records.has('Disk-disk-1')).toBe(true);
  });

  it('of other bytes that are complete is told, to be retired', async () => {
    const cloud = new ScriptedCloud();
    cloud.add({ id: 'former', text: 'old' });
    cloud.add({ id: 'known', text: 'older', state: 'Deactivated', published: false });
    const result = await register(job(cloud, { known: new Set(['known']) }), NEVER);
    expect(result.forgotten.map((each) => each.id)).toEqual(['former']);
    expect(cloud.records.size).toBe(3);
  });
});

describe('a registration that is killed', () => {
  /** What must hold at every moment and at the end. */
  function expectOne(cloud: ScriptedCloud, roles: readonly Role[], result: Registered): void {
    const ours = [...cloud.records.values()];
    expect(ours.map((each) => each.role).sort()).toEqual([...roles].sort());
    expect(new Set(result.parts.map((each) => each.id))).toEqual(new Set(cloud.records.keys()));
    for (const each of ours) {
      expect(each).toMatchObject({ state: 'Active', published: true, claim: 'uid', text: each.role.toLowerCase() });
    }
  }

  it('at any step, any number of times, ends in exactly one registration when it is called again', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.subarray(['Kernel', 'Ramdisk'] as const),
        fc.array(fc.nat(30), { maxLength: 6 }),
        fc.record({
          digest: fc.constantFrom(undefined, 'sha512' as const, 'sha256' as const),
          former: fc.constantFrom('None', 'Same', 'Retired', 'HalfMade', 'Dead'),
        }),
        async (more, deaths, { digest, former }) => {
          const roles: Role[] = ['Disk', ...more];
          const cloud = new ScriptedCloud({ digest });
          if (former === 'Same') cloud.add({ id: 'former' });
          if (former === 'Retired') cloud.add({ id: 'former', state: 'Deactivated', published: false });
          if (former === 'HalfMade') cloud.add({ id: 'former', state: 'Uploading', published: false });
          if (former === 'Dead') cloud.add({ id: 'Disk-disk-1', claim: 'dead', state: 'Empty', published: false });
          const parts = () => roles.map((role) => part(role));
          const row = { attempt: 1 };
          for (const death of deaths) {
            cloud.die(death);
            try {
              await registered(cloud, { parts: parts() }, row);
            } catch (error) {
              if (!(error instanceof Crash)) throw error;
            }
            // At no time anything is visible that is not wholly and provenly there.
            for (const each of cloud.visible) expect(each).toMatch(/=(disk|kernel|ramdisk)$/);
            expect(new Set(cloud.visible.map((each) => each.split('=')[1])).size).toBe(cloud.visible.length);
          }
          cloud.die(undefined);
          expectOne(cloud, roles, await registered(cloud, { parts: parts() }, row));
        },
      ),
      { numRuns: 400 },
    );
  });

  it('at each of its steps in turn, ends in exactly one registration', async () => {
    for (let death = 0; death < 40; death++) {
      const cloud = new ScriptedCloud();
      cloud.die(death);
      const row = { attempt: 1 };
      const parts = () => ROLES.map((role) => part(role));
      const died = await failureOf(registered(cloud, { parts: parts() }, row));
      cloud.die(undefined);
      expectOne(cloud, ROLES, await registered(cloud, { parts: parts() }, row));
      if (died === 'no failure') {
        expect(death).toBeGreaterThan(20);
        return;
      }
    }
    throw new Error('it has more steps than this test looks at');
  });
});

describe('the id of a registration', () => {
  it('is the same after a crash, and another for each attempt', () => {
    const identity = {
      instance: 'i',
      namespace: 'default',
      guid: 'guid',
      role: 'Disk',
      digest: 'sha256:00',
      transform: 'as-published',
      site: 'nova',
      attempt: 1,
    };
    expect(registrationId(identity)).toBe(registrationId({ ...identity }));
    const ids = [1, 2, 3].map((attempt) => registrationId({ ...identity, attempt }));
    expect(new Set(ids).size).toBe(3);
  });
});
