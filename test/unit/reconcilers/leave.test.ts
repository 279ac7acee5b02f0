import { describe, expect, it, test } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import type { ImageSite, SiteRow, VMImage } from '../../../src/api/types.ts';
import { inherit } from '../../../src/reconcilers/vmimage/heirs.ts';
import { finish, holdupOf, leaveUnwanted, withdraw } from '../../../src/reconcilers/vmimage/leave.ts';
import { serve } from '../../../src/reconcilers/vmimage/serve.ts';
import { settle } from '../../../src/reconcilers/vmimage/settle.ts';
import { targetsOf } from '../../../src/reconcilers/vmimage/targets.ts';
import { settled } from '../../support/clock.ts';
import { CREATED, imagesite, servingRow, vmimage, wantedAs } from './objects.ts';
import { ScriptedCloud } from './scripted-cloud.ts';
import { Workbench } from './workbench.ts';

const UPLOADING: Partial<SiteRow> = {
  name: 'nova',
  phase: 'Registering',
  siteIdentity: 'nova',
  operation: { kind: 'Register', id: 'half', attempt: 1, startedAt: '2026-11-21T12:00:00Z' },
};

class Scene {
  readonly bench = new Workbench();
  readonly cloud = new ScriptedCloud();
  image: VMImage;

  constructor(spec: Partial<VMImage['spec']>, ...rows: SiteRow[]) {
    this.bench.site('nova', this.cloud);
    this.image = this.bench.add(vmimage({ spec }, { sites: rows }));
    this.cloud.add({ id: 'id-nova', owner: this.bench.round(this.image).owner, guid: this.guid, claim: 'uid-ubuntu' });
  }

  get guid(): string {
    return this.bench.round(this.image).guid;
  }

  get rows(): SiteRow[] {
    return this.image.status.sites ?? [];
  }

  get row(): SiteRow | undefined {
    return this.rows[0];
  }

  get site(): ImageSite {
    return this.bench.sites.get('nova') ?? imagesite();
  }

  /** What the row's message asks for. */
  get word(): string {
    return /imageproxy\.dev\/confirm-removal: (\S+) /.exec(this.row?.message ?? '')?.[1] ?? '';
  }

  /** A person annotates the image with these words. */
  say(words: string): void {
    const annotations = { 'imageproxy.dev/confirm-removal': words };
    this.image = this.bench.add({ ...this.image, metadata: { ...this.image.metadata, annotations } });
  }

  half(claim = 'uid-ubuntu'): void {
    const { owner, guid } = this.bench.round(this.image);
    this.cloud.add({ id: 'half', owner, guid, claim, state: 'Uploading', published: false });
  }

  /** An upload of the image runs; it stops when the returned function is called, not before. */
  uploading(): { aborted(): boolean; stop(): Promise<void> } {
    const { promise, resolve } = Promise.withResolvers<never>();
    let signal: AbortSignal | undefined;
    this.bench.jobs.start('site/uid-ubuntu/nova', 'default/ubuntu', { view: { kind: 'Register' } }, (handle) => {
      signal = handle.signal;
      return promise;
    });
    return {
      aborted: () => signal?.aborted === true,
      stop: async () => {
        resolve(undefined as never);
        this.bench.woken.length = 0;
        await settled();
      },
    };
  }

  /** A younger image of the same guid. */
  heir(spec: Partial<VMImage['spec']> = {}): VMImage {
    const metadata = { name: 'heir', uid: 'uid-heir', creationTimestamp: '2026-11-21T11:30:00Z' };
    this.image = this.bench.add({ ...this.image, metadata: { ...this.image.metadata, deletionTimestamp: CREATED } });
    return this.bench.add(vmimage({ metadata, spec: { guid: this.guid, ...spec } }));
  }

  /** A round of the heir's. */
  async inherits(heir: VMImage): Promise<VMImage['status']> {
    const round = this.bench.round(heir);
    inherit(round, targetsOf(heir, this.bench.deps.store));
    return (await this.bench.conclude(round)).status;
  }

  /** One round; `act` is the reconciler's step. */
  async step(act: 'finish' | 'withdraw' | 'leave' | 'leave, others not ready'): Promise<boolean | undefined> {
    const round = this.bench.round(this.image);
    const targets = targetsOf(round.image, this.bench.deps.store);
    let result: boolean | undefined;
    if (act === 'finish') result = finish(round);
    else if (act === 'withdraw') {
      const [target] = targets;
      const [row] = round.status.sites;
      if (target !== undefined && row !== undefined) withdraw(round, target, row, 'Deactivated', 'inputs');
    } else leaveUnwanted(round, targets, act === 'leave');
    this.image = await this.bench.conclude(round);
    return result;
  }

  /** Rounds until nothing changes any more. */
  async rest(act: Parameters<Scene['step']>[0]): Promise<boolean | undefined> {
    for (let turn = 0; turn < 10; turn++) {
      const before = JSON.stringify([this.rows, this.cloud.calls, this.bench.jobs.running]);
      const result = await this.step(act);
      if (result === true) return true;
      if (JSON.stringify([this.rows, this.cloud.calls, this.bench.jobs.running]) === before) return result;
    }
    throw new Error(`no rest: ${JSON.stringify(this.rows)}`);
  }
}

describe('an image that is taken out of service', () => {
  it('is retired at the site, kept there, and the row says so', async () => {
    const scene = new Scene({ state: 'Deactivated' }, servingRow());
    await scene.rest('withdraw');
    expect(scene.cloud.records.get('id-nova')).toMatchObject({ state: 'Deactivated', published: false });
    expect(scene.row).toMatchObject({ phase: 'Deactivated', imageID: 'id-nova', retired: true });
    expect(scene.row?.operation).toBeUndefined();
  });

  it('is retired though it seemed to be: it was just on its way back, and may be in service already', async () => {
    const operation = { kind: 'Reactivate', id: 'id-nova', startedAt: '2026-11-21T12:00:00Z' };
    const scene = new Scene(
      { state: 'Deactivated' },
      servingRow('nova', { phase: 'Registering', retired: true, operation }),
    );
    await scene.rest('withdraw');
    expect(scene.cloud.visible).toEqual([]);
    expect(scene.row).toMatchObject({ phase: 'Deactivated', retired: true });
  });

  it('where nothing of it is known, is so once the cloud was asked, which is once', async () => {
    const scene = new Scene({ state: 'Deactivated' }, { name: 'nova', phase: 'Fetching' });
    scene.cloud.records.clear();
    await scene.rest('withdraw');
    expect(scene.row).toMatchObject({ phase: 'Deactivated', message: 'nothing is registered here' });
    expect(scene.cloud.calls).toEqual(['find']);
    // A site that cannot be asked now has been asked.
    scene.bench.connections.delete('nova');
    await scene.rest('withdraw');
    expect(scene.row?.phase).toBe('Deactivated');
  });

  it('where nothing of it is known and nobody can be asked, is not said to be so, unless the cloud is gone for good', async () => {
    const scene = new Scene({ state: 'Deactivated' }, { name: 'nova' });
    scene.bench.connections.delete('nova');
    await scene.rest('withdraw');
    expect(scene.row).toMatchObject({ phase: 'Pending', reason: 'SiteNotReady' });
    const site = scene.bench.sites.get('nova');
    if (site !== undefined) site.spec.abandoned = true;
    await scene.rest('withdraw');
    expect(scene.row?.phase).toBe('Deactivated');
  });

  it('is asked about at the place that the site is now, where nothing is known at the one it was', async () => {
    const scene = new Scene({ state: 'Deactivated' }, { name: 'nova', phase: 'Pending', siteIdentity: 'elsewhere' });
    await scene.rest('withdraw');
    expect(scene.row).toMatchObject({ phase: 'Deactivated', siteIdentity: 'nova' });
    expect(scene.cloud.visible).toEqual([]);
  });

  it('takes with it what it replaced and was not retired yet', async () => {
    const former = { imageID: 'old', artifacts: [{ role: 'Disk', id: 'old' }] };
    const scene = new Scene({ state: 'Deactivated' }, servingRow('nova', { previous: [former] }));
    scene.cloud.add({ id: 'old', owner: scene.bench.round(scene.image).owner, guid: scene.guid, claim: 'uid-ubuntu' });
    await scene.rest('withdraw');
    expect(scene.cloud.visible).toEqual([]);
    expect(scene.row).toMatchObject({ phase: 'Deactivated', retired: true, previous: [{ imageID: 'old' }] });
    expect(scene.row?.previous?.[0]?.retiredAt).toBeDefined();
  });

  it('takes with it what a lost state has forgotten, and leaves what is another living image’s', async () => {
    const scene = new Scene({ state: 'Deactivated' }, { name: 'nova', phase: 'Pending' });
    const { owner } = scene.bench.round(scene.image);
    scene.bench.add(
      vmimage({ metadata: { name: 'other', uid: 'uid-other', creationTimestamp: '2026-11-21T11:30:00Z' } }),
    );
    scene.cloud.add({ id: 'of-the-dead', owner, guid: scene.guid, claim: 'uid-dead' });
    scene.cloud.add({ id: 'of-the-living', owner, guid: scene.guid, claim: 'uid-other' });
    scene.half('uid-dead');
    await scene.rest('withdraw');
    expect(scene.cloud.visible).toEqual(['of-the-living=disk']);
    expect(scene.cloud.records.has('half')).toBe(false);
    expect(scene.row).toMatchObject({ phase: 'Deactivated', message: 'out of service here: id-nova, of-the-dead' });
    // They are known from now on: deleting the image removes them.
    await scene.rest('finish');
    expect([...scene.cloud.records.keys()]).toEqual(['of-the-living']);
  });

  it('while it is being sent has the upload cut, waits for that to end, and leaves nothing half-made', async () => {
    const scene = new Scene({ state: 'Deactivated' }, servingRow('nova', UPLOADING));
    scene.half();
    const upload = scene.uploading();
    await scene.step('withdraw');
    expect(upload.aborted()).toBe(true);
    await scene.step('withdraw');
    expect(scene.cloud.calls).toEqual([]);
    await upload.stop();
    // However long the upload took to end: the image is told, or it would stay as it is for ever.
    expect(scene.bench.woken).toEqual(['default/ubuntu']);
    await scene.rest('withdraw');
    expect([...scene.cloud.records.keys()]).toEqual(['id-nova']);
    expect(scene.row).toMatchObject({ phase: 'Deactivated', retired: true });
  });
});

/** An image whose sites are chosen by a label, which nova does not have. */
function selecting(...rows: SiteRow[]): Scene {
  const scene = new Scene({}, ...rows);
  const { sites: _, ...spec } = scene.image.spec;
  const siteSelector = { matchLabels: { region: 'eu' } };
  scene.image = scene.bench.add({ ...scene.image, spec: { ...spec, siteSelector } });
  return scene;
}

describe('a site that is no longer asked for', () => {
  const elsewhere = { sites: [{ name: 'east', optional: false }] };

  it('loses the image once the others are ready, not before', async () => {
    const scene = new Scene(elsewhere, servingRow());
    await scene.rest('leave, others not ready');
    expect(scene.row).toMatchObject({ reason: 'WaitsForOthers', imageID: 'id-nova' });
    expect(scene.cloud.visible).toHaveLength(1);
    await scene.rest('leave');
    expect(scene.rows).toEqual([]);
    expect(scene.cloud.records.size).toBe(0);
  });

  test.each<[SiteRow, 'forgotten' | 'kept']>([
    [{ name: 'nova' }, 'forgotten'],
    [{ name: 'nova', phase: 'Failed', reason: 'NotFound' }, 'forgotten'],
    [{ name: 'nova', previous: [] }, 'forgotten'],
    [{ name: 'nova', imageID: 'x' }, 'kept'],
    [{ name: 'nova', operation: { kind: 'Register', startedAt: '2026-11-21T12:00:00Z' } }, 'kept'],
    [{ name: 'nova', previous: [{ imageID: 'x' }] }, 'kept'],
  ])('is forgotten at once where nothing can be there: %j is %s', async (row, verdict) => {
    const scene = new Scene(elsewhere, row);
    await scene.step('leave, others not ready');
    expect(scene.rows).toHaveLength(verdict === 'kept' ? 1 : 0);
  });

  it('because labels changed keeps the image until a person confirms: a label is no order to delete', async () => {
    const scene = selecting(servingRow());
    await scene.rest('leave');
    expect(scene.row).toMatchObject({ reason: 'ConfirmationRequired', imageID: 'id-nova', phase: 'Ready' });
    expect(scene.row?.message).toMatch(
      /^spec\.siteSelector does not match ImageSite nova any more; id-nova stays until/,
    );
    scene.say(scene.word);
    await scene.rest('leave');
    expect(scene.rows).toEqual([]);
    expect(scene.cloud.records.size).toBe(0);
  });

  test.each<[string, string, Partial<SiteRow>]>([
    ['for the site alone', 'nova', {}],
    ['for an earlier occasion', 'nova@2026-11-20T12:00:00Z', {}],
    // As an earlier version has left the row: it did not write down since when.
    ['before the program was upgraded', 'nova', { reason: 'ConfirmationRequired' }],
    [
      'while its removal was begun by an earlier version',
      'nova',
      { operation: { kind: 'Delete', startedAt: CREATED } },
    ],
  ])('keeps it though there is a word that was given %s', async (_, word, row) => {
    const scene = selecting(servingRow('nova', row));
    scene.say(word);
    await scene.rest('leave');
    expect(scene.row).toMatchObject({ reason: 'ConfirmationRequired', imageID: 'id-nova' });
    expect(scene.cloud.visible).toHaveLength(1);
  });

  test.each<[string, (scene: Scene) => void, string, RegExp]>([
    [
      'does not admit the namespace',
      (scene) => Object.assign(scene.site.spec, { allowedNamespaces: ['other', 'prod-*'] }),
      'NamespaceNotAllowed',
      /^ImageSite nova takes no images of namespace default \(its allowedNamespaces: other, prod-\*\); id-nova stays until/,
    ],
    [
      'is being deleted',
      (scene) => Object.assign(scene.site.metadata, { deletionTimestamp: CREATED }),
      'ConfirmationRequired',
      /^ImageSite nova is being deleted; id-nova stays until/,
    ],
    [
      'is gone',
      (scene) => scene.bench.sites.clear(),
      'ConfirmationRequired',
      /^there is no ImageSite nova any more; id-nova stays until/,
    ],
  ])('because it %s says so, not that its labels are others', async (_, change, reason, message) => {
    const scene = selecting(servingRow());
    scene.site.metadata.labels = { region: 'eu' };
    change(scene);
    await scene.step('leave');
    expect(scene.row).toMatchObject({ reason, message: expect.stringMatching(message) });
    expect(scene.word).toBe('nova@2026-11-21T12:00:00.000Z');
  });

  it('waits for the others whatever was confirmed before, and goes at once when that is confirmed', async () => {
    const scene = new Scene(elsewhere, servingRow());
    scene.say('nova');
    await scene.rest('leave, others not ready');
    expect(scene.row).toMatchObject({ reason: 'WaitsForOthers', imageID: 'id-nova' });
    scene.say(scene.word);
    await scene.rest('leave, others not ready');
    expect(scene.rows).toEqual([]);
    expect(scene.cloud.records.size).toBe(0);
  });

  it('keeps the image, and is forgotten, with deletionPolicy Retain', async () => {
    const scene = new Scene({ ...elsewhere, deletionPolicy: 'Retain' }, servingRow());
    await scene.rest('leave');
    expect(scene.rows).toEqual([]);
    expect(scene.cloud.visible).toHaveLength(1);
  });

  it('keeps nothing half-made with deletionPolicy Retain: the upload is cut and its record removed first', async () => {
    const scene = new Scene({ ...elsewhere, deletionPolicy: 'Retain' }, servingRow('nova', UPLOADING));
    scene.half();
    const upload = scene.uploading();
    await scene.step('leave');
    expect(upload.aborted()).toBe(true);
    expect(scene.rows).toHaveLength(1);
    await upload.stop();
    await scene.rest('leave');
    expect(scene.rows).toEqual([]);
    expect([...scene.cloud.records.keys()]).toEqual(['id-nova']);
  });
});

describe('an image that is deleted', () => {
  it('has its registrations removed, former and half-made ones too, and lets go of its blobs', async () => {
    const scene = new Scene(
      {},
      servingRow('nova', { previous: [{ imageID: 'old', artifacts: [{ role: 'Disk', id: 'old' }] }] }),
    );
    scene.half();
    scene.cloud.add({ id: 'old', owner: 'o', state: 'Deactivated' });
    expect(await scene.rest('finish')).toBe(true);
    expect(scene.cloud.records.size).toBe(0);
    expect(scene.rows).toEqual([]);
    expect(scene.bench.unpinned).toContain('uid-ubuntu');
  });

  it('while it is being sent has the upload cut first, however long that takes', async () => {
    const scene = new Scene({}, servingRow('nova', UPLOADING));
    scene.half();
    const upload = scene.uploading();
    for (let round = 0; round < 3; round++) {
      expect(await scene.step('finish')).toBe(false);
      scene.bench.clock.advance(1000);
    }
    expect(upload.aborted()).toBe(true);
    expect(scene.cloud.calls).toEqual([]);
    await upload.stop();
    expect(scene.bench.woken).toEqual(['default/ubuntu']);
    expect(await scene.rest('finish')).toBe(true);
    expect(scene.cloud.records.size).toBe(0);
  });

  it('leaves what it registered with deletionPolicy Retain, and nothing half-made', async () => {
    const scene = new Scene({ deletionPolicy: 'Retain' }, servingRow('nova', UPLOADING));
    scene.half();
    const upload = scene.uploading();
    expect(await scene.step('finish')).toBe(false);
    await upload.stop();
    expect(await scene.rest('finish')).toBe(true);
    expect([...scene.cloud.records.keys()]).toEqual(['id-nova']);
  });

  it('is not held by a site that cannot be reached with deletionPolicy Retain, which is a way out of that', async () => {
    const scene = new Scene({ deletionPolicy: 'Retain' }, servingRow('nova', UPLOADING));
    scene.bench.connections.delete('nova');
    expect(await scene.rest('finish')).toBe(true);
    expect(scene.rows).toEqual([]);
  });

  it('is not held with deletionPolicy Retain by a record that the site will not remove', async () => {
    const scene = new Scene({ deletionPolicy: 'Retain' }, servingRow('nova', UPLOADING));
    scene.half();
    scene.cloud.remove = async () => {
      throw new Failure('ServerError', 'no');
    };
    expect(await scene.rest('finish')).toBe(true);
  });

  it('whose publishing was refused has what was sent removed, though no id of it was ever told', async () => {
    const scene = new Scene({}, { ...UPLOADING, name: 'nova' });
    scene.cloud.records.clear();
    scene.half();
    Object.assign(scene.cloud.records.get('half') ?? {}, { state: 'Active' });
    const round = scene.bench.round(scene.image);
    const work = scene.bench.work(round);
    settle(work, { ok: false, error: new Failure('Forbidden', 'HTTP 403') }, { kind: 'Register' });
    scene.image = await scene.bench.conclude(round);
    expect(scene.row).toMatchObject({ phase: 'Failed', reason: 'Forbidden', operation: { kind: 'Register' } });
    expect(scene.row).not.toHaveProperty('nextAttemptTime');
    // It is not tried again by itself for all that.
    const next = scene.bench.work(scene.bench.round(scene.image));
    await serve(next, wantedAs(servingRow()));
    expect([next.round.starts, next.round.lookAgainAt]).toEqual([[], undefined]);
    expect(next.row).toEqual(scene.row);
    expect(await scene.rest('finish')).toBe(true);
    expect(scene.cloud.records.size).toBe(0);
  });

  it('is held, and says so, while the site refuses to remove what an upload left', async () => {
    const scene = new Scene({}, { ...UPLOADING, name: 'nova' });
    const remove = scene.cloud.remove.bind(scene.cloud);
    let refusals = 0;
    scene.cloud.remove = async () => {
      refusals++;
      throw new Failure('Forbidden', 'HTTP 403');
    };
    expect(await scene.rest('finish')).toBe(false);
    expect(scene.row).toMatchObject({ phase: 'Failed', reason: 'Forbidden', operation: { kind: 'Delete' } });
    expect(holdupOf(scene.image, scene.rows)).toContain('deletion waits for nova: HTTP 403');
    expect(refusals).toBe(1);
    scene.cloud.remove = remove;
    scene.site.metadata.generation = 2;
    expect(await scene.rest('finish')).toBe(true);
    expect(scene.cloud.records.size).toBe(0);
  });

  it('is held by a site that is not ready, with the three ways out; an abandoned one holds nothing', async () => {
    const scene = new Scene({}, servingRow());
    scene.bench.connections.delete('nova');
    const site = scene.bench.sites.get('nova');
    Object.assign(site?.status.conditions?.[0] ?? {}, { status: 'False', message: 'nobody answers' });
    expect(await scene.rest('finish')).toBe(false);
    expect(scene.row).toMatchObject({ reason: 'SiteNotReady', imageID: 'id-nova' });
    const holdup = holdupOf(scene.image, scene.rows);
    for (const words of [
      'repair the site',
      'deletionPolicy: Retain on ubuntu',
      'spec.abandoned: true on ImageSite nova',
    ])
      expect(holdup).toContain(words);
    if (site !== undefined) site.spec.abandoned = true;
    expect(await scene.rest('finish')).toBe(true);
  });

  it('hands over to a living image of the same guid instead of deleting', async () => {
    const scene = new Scene({}, servingRow());
    const heir = scene.heir();
    expect(await scene.rest('finish')).toBe(false);
    await scene.inherits(heir);
    expect(await scene.rest('finish')).toBe(true);
    expect(scene.cloud.visible).toHaveLength(1);
    expect(scene.cloud.calls).toEqual([]);
  });

  test.each<[string, SiteRow, Partial<SiteRow>]>([
    [
      'what serves and what it replaced',
      servingRow('nova', {
        previous: [{ imageID: 'old', retiredAt: CREATED, artifacts: [{ role: 'Disk', id: 'old' }] }],
      }),
      { previous: [expect.objectContaining({ imageID: 'id-nova' }), expect.objectContaining({ imageID: 'old' })] },
    ],
    ['what was begun', UPLOADING as SiteRow, { operation: expect.objectContaining({ kind: 'Withdraw' }) }],
  ])('hands over %s so that it goes with an heir that never gets its bytes', async (_, row, inherited) => {
    const scene = new Scene({}, row);
    const { owner } = scene.bench.round(scene.image);
    for (const id of ['half', 'old']) scene.cloud.add({ id, owner, guid: scene.guid, claim: 'uid-ubuntu' });
    const heir = scene.heir();
    await scene.inherits(heir);
    expect(scene.row).toEqual(row);
    // Once, however often it looks.
    const { sites } = await scene.inherits(heir);
    expect(sites).toMatchObject([{ name: 'nova', siteIdentity: 'nova', ...inherited }]);
    expect(await scene.rest('finish')).toBe(true);
    scene.bench.images.delete('uid-ubuntu');
    scene.bench.siblings.note({ type: 'Deleted', object: scene.image });
    scene.image = scene.bench.images.get('uid-heir') as VMImage;
    expect(await scene.rest('finish')).toBe(true);
    expect(scene.cloud.records.size).toBe(0);
  });

  it('removes what the heir does not ask for, and hands the rest over last', async () => {
    const scene = new Scene({}, servingRow(), servingRow('east'));
    const east = new ScriptedCloud();
    scene.bench.site('east', east);
    east.add({ id: 'id-east', owner: scene.bench.round(scene.image).owner, guid: scene.guid, claim: 'uid-ubuntu' });
    const removed = Promise.withResolvers<void>();
    const remove = east.remove.bind(east);
    east.remove = async (parts) => {
      await removed.promise;
      await remove(parts);
    };
    const heir = scene.heir({ sites: [{ name: 'nova', optional: false }] });
    await scene.inherits(heir);
    await scene.rest('finish');
    // The heir may still go before it has taken over: until then nothing is forgotten.
    expect(scene.rows.map(({ name }) => name)).toEqual(['nova', 'east']);
    removed.resolve();
    expect(await scene.rest('finish')).toBe(true);
    expect(east.records.size).toBe(0);
    expect(scene.cloud.visible).toHaveLength(1);
    expect(scene.cloud.calls).toEqual([]);
  });

  it('does not hand over to an image that is going too', async () => {
    const scene = new Scene({}, servingRow());
    scene.bench.add(
      vmimage({
        metadata: { name: 'heir', uid: 'uid-heir', deletionTimestamp: '2026-11-21T11:30:00Z' },
        spec: { guid: scene.guid },
      }),
    );
    expect(await scene.rest('finish')).toBe(true);
    expect(scene.cloud.records.size).toBe(0);
  });
});
