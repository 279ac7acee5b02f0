import { describe, expect, it } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import type { RegisteredArtifact, SiteRow } from '../../../src/api/types.ts';
import type { Look } from '../../../src/clouds/cloud.ts';
import type { Role } from '../../../src/images/format.ts';
import { guidOf, ownerOf } from '../../../src/reconcilers/vmimage/identity.ts';
import { withdraw } from '../../../src/reconcilers/vmimage/leave.ts';
import { registrationHashOf } from '../../../src/reconcilers/vmimage/operations.ts';
import { serve } from '../../../src/reconcilers/vmimage/serve.ts';
import type { Wanted } from '../../../src/reconcilers/vmimage/served.ts';
import { registrationOf } from '../../../src/reconcilers/vmimage/targets.ts';
import { servingRow, vmimage, wantedAs } from './objects.ts';
import { hash, ScriptedCloud } from './scripted-cloud.ts';
import { Workbench } from './workbench.ts';

const STARTED = '2026-11-21T12:00:00Z';
const digestOf = (text: string) => `sha256:${hash('sha256', text)}`;

/** A part whose bytes are `text`, as a row names it. */
function part(role: Role, id: string, text: string): RegisteredArtifact {
  const cloudDigest = `sha512:${hash('sha512', text)}`;
  return {
    role,
    id,
    digest: digestOf(text),
    sentDigest: digestOf(text),
    cloudDigest,
    format: 'Raw',
    size: text.length,
  };
}

/** The disk with these bytes is asked for; nobody may ask for the bytes themselves. */
function disk(text: string): Wanted {
  const wanted = wantedAs(servingRow());
  const [only] = wanted.plan.parts;
  if (only === undefined) throw new Error('no part');
  return {
    ...wanted,
    plan: { ...wanted.plan, parts: [{ ...only, declared: { sha256: hash('sha256', text) } }] },
    digest: digestOf(text),
  };
}

/** The program came back after a kill: `one` serves, and what the row says was under way. */
function interrupted(more: Partial<SiteRow>) {
  const bench = new Workbench();
  const cloud = new ScriptedCloud();
  bench.site('nova', cloud);
  cloud.look = async () => {
    cloud.calls.push('look');
    return { gone: [], changed: [] };
  };
  const spec = vmimage();
  const owned = { owner: ownerOf('test', 'default'), guid: guidOf(spec, 'test'), claim: spec.metadata.uid };
  const add = (role: Role, id: string, text: string, published: boolean) =>
    cloud.add({ ...owned, id, role, text, published });
  add('Disk', 'd1', 'one', true);
  const row = servingRow('nova', {
    imageID: 'd1',
    digest: digestOf('one'),
    artifacts: [part('Disk', 'd1', 'one')],
    registrationHash: registrationHashOf(registrationOf(spec, undefined)),
    lastCheckedTime: STARTED,
    ...more,
  });
  let now = bench.add(vmimage({}, { sites: [row] }));
  /** A round; `wanted` undefined: `spec.state: Deactivated`. */
  const round = async (wanted: Wanted | undefined): Promise<SiteRow | undefined> => {
    const begun = bench.round(now);
    const work = bench.work(begun);
    const { row, site, registration } = work;
    if (wanted !== undefined) await serve(work, wanted);
    else withdraw(begun, { name: 'nova', optional: false, registration, site }, row, 'Deactivated', 'inputs');
    now = await bench.conclude(begun);
    return now.status.sites?.[0];
  };
  /** Rounds until nothing happens any more. */
  const rounds = async (wanted: Wanted | undefined): Promise<SiteRow> => {
    for (let n = 0; n < 6; n++) await round(wanted);
    const [is] = now.status.sites ?? [];
    if (is === undefined) throw new Error('no row');
    return is;
  };
  const edit = (name: string) => {
    const { metadata, spec } = now;
    const generation = (metadata.generation ?? 0) + 1;
    const registration = { ...spec.registration, name };
    now = bench.add({ ...now, metadata: { ...metadata, generation }, spec: { ...spec, registration } });
  };
  return { bench, cloud, add, edit, round, rounds };
}

describe('an interrupted upload that is taken back', () => {
  const operation = { kind: 'Register', id: 'd2', digest: digestOf('two'), attempt: 1, startedAt: STARTED };

  it('leaves nothing that is complete and was seen by nobody', async () => {
    const { cloud, add, rounds } = interrupted({ operation });
    add('Kernel', 'k2', 'kernel', false);
    add('Disk', 'd2', 'two', false);
    const row = await rounds(disk('one'));
    expect([...cloud.records.keys()]).toEqual(['d1']);
    expect(row).toMatchObject({ phase: 'Ready', imageID: 'd1' });
    expect(row).not.toHaveProperty('operation');
    expect(row).not.toHaveProperty('previous');
  });

  it('and was published is a former version, out of service', async () => {
    const { cloud, add, rounds } = interrupted({ operation });
    add('Disk', 'd2', 'two', true);
    const row = await rounds(disk('one'));
    expect(cloud.visible).toEqual(['d1=one']);
    expect(row).toMatchObject({ phase: 'Ready', previous: [{ imageID: 'd2', retiredAt: expect.any(String) }] });
    expect(row).not.toHaveProperty('operation');
  });

  it('for a version of before leaves nothing in service beside it', async () => {
    const former = { imageID: 'd0', digest: digestOf('zero'), retiredAt: STARTED };
    const previous = [{ ...former, artifacts: [part('Disk', 'd0', 'zero')] }];
    const { cloud, add, rounds } = interrupted({ operation, previous });
    add('Disk', 'd2', 'two', true);
    add('Disk', 'd0', 'zero', false);
    await rounds(disk('zero'));
    expect(cloud.visible).toEqual(['d0=zero']);
  });

  it('does not touch a version that is out of service and that the row has forgotten', async () => {
    const { cloud, add, rounds } = interrupted({ operation });
    add('Disk', 'old', 'old', false);
    Object.assign(cloud.records.get('old') ?? {}, { state: 'Deactivated' });
    await rounds(disk('one'));
    expect([...cloud.records.keys()]).toEqual(['d1', 'old']);
  });
});

describe('an upload whose last step was refused, and which the cloud does not let be removed', () => {
  const zero = { imageID: 'd0', digest: digestOf('zero'), artifacts: [part('Disk', 'd0', 'zero')], retiredAt: STARTED };

  function refused() {
    const operation = { kind: 'Register', id: 'd2', digest: digestOf('two'), attempt: 1, startedAt: STARTED };
    const is = { phase: 'Failed', reason: 'Forbidden', inputsHash: 'before' };
    const scene = interrupted({ operation, ...is, previous: [zero] });
    scene.add('Disk', 'd2', 'two', false);
    scene.add('Disk', 'd0', 'zero', false);
    Object.assign(scene.cloud.records.get('d0') ?? {}, { state: 'Deactivated' });
    scene.cloud.remove = async (parts) => {
      if (parts.length > 0) throw new Failure('Forbidden', 'delete_image');
    };
    return scene;
  }

  it('keeps nothing in service that is to be out of it', async () => {
    const { cloud, add, rounds } = refused();
    add('Disk', 'd3', 'three', true);
    expect(await rounds(undefined)).toMatchObject({ phase: 'Deactivated', retired: true });
    expect(cloud.visible).toEqual([]);
  });

  it('nor where it is half-made, which is told', async () => {
    const { cloud, add, rounds } = refused();
    add('Disk', 'd3', 'three', true);
    Object.assign(cloud.records.get('d2') ?? {}, { state: 'Uploading' });
    expect(await rounds(undefined)).toMatchObject({ phase: 'Failed', reason: 'Forbidden' });
    expect(cloud.visible).toEqual([]);
  });

  it('keeps nothing from going on where it is taken back, and is told', async () => {
    const { bench, rounds } = refused();
    const row = await rounds(disk('one'));
    expect(row).toMatchObject({ phase: 'Ready', imageID: 'd1' });
    expect(row).not.toHaveProperty('operation');
    expect(row).not.toHaveProperty('inputsHash');
    expect(bench.told.filter(({ reason }) => reason === 'Forbidden')).toHaveLength(1);
  });

  it('does not keep a version of before from coming back', async () => {
    const { cloud, rounds } = refused();
    expect(await rounds(disk('zero'))).toMatchObject({ phase: 'Ready', imageID: 'd0' });
    expect(cloud.visible).toEqual(['d0=zero']);
  });

  it('and was published is out of service where a deactivation that was cut is taken back', async () => {
    const { cloud, round, rounds } = refused();
    Object.assign(cloud.records.get('d2') ?? {}, { published: true });
    const retire = cloud.retire.bind(cloud);
    cloud.retire = async () => {
      throw new Failure('Aborted', 'killed');
    };
    await round(undefined);
    cloud.retire = retire;
    expect(await rounds(disk('one'))).toMatchObject({ phase: 'Ready', imageID: 'd1' });
    expect(cloud.visible).toEqual(['d1=one']);
  });
});

describe('an interrupted upload whose left-over the cloud cannot remove', () => {
  const operation = { kind: 'Register', id: 'd2', digest: digestOf('two'), attempt: 1, startedAt: STARTED };

  it('is tried again twice, and then holds up nothing: what was published beside it goes out of service', async () => {
    const { bench, cloud, add, rounds } = interrupted({ operation });
    add('Disk', 'd2', 'two', false);
    add('Disk', 'd3', 'three', true);
    const remove = cloud.remove.bind(cloud);
    cloud.remove = async (parts) => {
      if (parts.some(({ id }) => id === 'd2')) throw new Failure('Conflict', 'd2 is in use');
      await remove(parts);
    };
    for (let attempts = 1; attempts <= 2; attempts++) {
      expect(await rounds(disk('one'))).toMatchObject({ reason: 'Conflict', imageID: 'd1', attempts });
      bench.clock.advance(3_600_000);
    }
    const row = await rounds(disk('one'));
    expect(row).toMatchObject({
      phase: 'Ready',
      imageID: 'd1',
      previous: [{ imageID: 'd3', retiredAt: expect.any(String) }],
    });
    expect(row).not.toHaveProperty('operation');
    expect(row).not.toHaveProperty('attempts');
    expect(cloud.visible).toEqual(['d1=one']);
  });
});

describe('an interrupted return to a former version that is taken back', () => {
  const former = {
    imageID: 'd0',
    digest: digestOf('zero'),
    artifacts: [part('Disk', 'd0', 'zero')],
    retiredAt: STARTED,
  };

  /** The reactivation was carried out, and killed before that was written. */
  async function cut() {
    const { bench, cloud, add, rounds, round } = interrupted({ previous: [former] });
    add('Disk', 'd0', 'zero', false);
    Object.assign(cloud.records.get('d0') ?? {}, { state: 'Deactivated' });
    const publish = cloud.publish.bind(cloud);
    cloud.publish = async (image) => {
      await publish(image);
      throw new Failure('Aborted', 'killed');
    };
    await round(disk('zero'));
    expect(cloud.visible).toEqual(['d1=one', 'd0=zero']);
    cloud.publish = publish;
    return { bench, cloud, rounds };
  }

  it('leaves it out of service', async () => {
    const { cloud, rounds } = await cut();
    const row = await rounds(disk('one'));
    expect(cloud.visible).toEqual(['d1=one']);
    expect(row).toMatchObject({ imageID: 'd1', phase: 'Ready', previous: [{ retiredAt: expect.any(String) }] });
    expect(row).not.toHaveProperty('operation');
  });

  it('by a deactivation leaves neither in service', async () => {
    const { cloud, rounds } = await cut();
    expect(await rounds(undefined)).toMatchObject({ phase: 'Deactivated' });
    expect(cloud.visible).toEqual([]);
  });

  it('not, is gone on with without the bytes', async () => {
    const { cloud, rounds } = await cut();
    expect(await rounds(disk('zero'))).toMatchObject({ imageID: 'd0', phase: 'Ready' });
    expect(cloud.visible).toEqual(['d0=zero']);
  });

  it('because its bytes are others now, leaves it out of service', async () => {
    const { cloud, rounds, bench } = await cut();
    Object.assign(cloud.records.get('d0') ?? {}, { text: 'altered' });
    const other: Wanted = {
      ...disk('zero'),
      content: async () => ({ step: 'Fetching', blobs: new Map(), views: new Map() }),
    };
    await rounds(other);
    expect(bench.told.map(({ reason }) => reason)).toContain('CloudDigestMismatch');
    await rounds(disk('one'));
    expect(cloud.visible).toEqual(['d1=one']);
  });
});

describe('an upload that found a former version by its bytes, published it, and is taken back', () => {
  /** The row names the former version without its digests, and takes it for retired. */
  function found() {
    const operation = { kind: 'Register', id: 'd2', digest: digestOf('zero'), attempt: 1, startedAt: STARTED };
    const artifacts = [{ role: 'Disk', id: 'd0', digest: digestOf('zero') }];
    const scene = interrupted({ operation, previous: [{ imageID: 'd0', artifacts, retiredAt: STARTED }] });
    scene.add('Disk', 'd0', 'zero', true);
    return scene;
  }

  it('leaves it out of service', async () => {
    const { cloud, rounds } = found();
    const row = await rounds(disk('one'));
    expect(cloud.visible).toEqual(['d1=one']);
    expect(row).toMatchObject({ phase: 'Ready', previous: [{ imageID: 'd0', retiredAt: expect.any(String) }] });
    expect(row).not.toHaveProperty('operation');
    expect(cloud.calls.filter((call) => call.startsWith('retire'))).toEqual(['retire d0']);
  });

  it('by a deactivation leaves neither in service', async () => {
    const { cloud, rounds } = found();
    expect(await rounds(undefined)).toMatchObject({ phase: 'Deactivated' });
    expect(cloud.visible).toEqual([]);
  });

  it('by a deactivation that is cut and taken back too, leaves it out of service', async () => {
    const { cloud, round, rounds } = found();
    const retire = cloud.retire.bind(cloud);
    cloud.retire = async () => {
      throw new Failure('Aborted', 'killed');
    };
    await round(undefined);
    cloud.retire = retire;
    await rounds(disk('one'));
    expect(cloud.visible).toEqual(['d1=one']);
  });
});

it('an interrupted edit that is taken back is looked for at the cloud', async () => {
  const { cloud, rounds, round, edit } = interrupted({});
  let name = 'ubuntu';
  cloud.publish = async ({ registration }) => {
    ({ name } = registration);
    throw new Failure('Aborted', 'killed');
  };
  edit('other');
  await round(disk('one'));
  expect(name).toBe('other');
  cloud.look = async ({ registration }) => ({ gone: [], changed: registration.name === name ? [] : ['name'] });
  cloud.publish = async ({ registration }) => void ({ name } = registration);
  edit('ubuntu');
  expect(await rounds(disk('one'))).toMatchObject({ phase: 'Ready' });
  expect(name).toBe('ubuntu');
});

describe('an image that comes back into service', () => {
  it.each<[string, Partial<Look>, string]>([
    ['Held', { held: 'Hidden' }, 'HeldByCloud'],
    ['Tampered', { tampered: 'another hash' }, 'Tampered'],
  ])('is not Ready before a look where the last had found it %s', async (lookFound, found, reason) => {
    const { bench, cloud, round, rounds } = interrupted({ retired: true, phase: 'Deactivated', lookFound });
    Object.assign(cloud.records.get('d1') ?? {}, { state: 'Deactivated' });
    let look = found;
    cloud.look = async () => ({ gone: [], changed: [], ...look });
    for (let n = 0; n < 4; n++) expect((await round(disk('one')))?.phase).not.toBe('Ready');
    expect(await rounds(disk('one'))).toMatchObject({ imageID: 'd1', reason, lookFound });
    look = {};
    bench.clock.advance(3_600_000);
    const well = await rounds(disk('one'));
    expect(well).toMatchObject({ imageID: 'd1', phase: 'Ready' });
    expect(well).not.toHaveProperty('lookFound');
  });
});
