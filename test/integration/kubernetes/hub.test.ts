import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { request } from 'undici';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ImageSite, SiteRow, VMImage } from '../../../src/api/types.ts';
import { API_SERVER_PATIENCE_MS, type ApiServer, eventually, startApiServer } from '../../support/apiserver.ts';
import { ext4 } from '../../support/disks.ts';
import { condition, type Manifest, vmimage } from '../../support/house.ts';
import { expectKstatus } from '../../support/kstatus.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';
import { Program } from '../cli/program.ts';
import { Cluster, runPod } from './cluster.ts';

const REGIONS = ['east', 'west', 'north'] as const;
type Region = (typeof REGIONS)[number];

/** The shortest that there is. */
const SHORT_LEASE = ['--lease-duration', '30s'];
/** Until the Lease of a killed process is another's: its duration, and a look or two. */
const TAKE_OVER_MS = 90_000;

/** Several controllers, each a real process with its own cache, on one API server. */
describe('a hub: controllers that share an API server', () => {
  let server: ApiServer;
  let origin: Origin;
  let cluster: Cluster;
  let root: string;
  const programs = new Map<Region, Program>();

  beforeAll(async () => {
    root = mkdtempSync(join(tmpdir(), 'imageproxy-hub-'));
    [server, origin] = await Promise.all([startApiServer(), startOrigin()]);
    for (const name of ['default', 'imageproxy']) await server.namespace(name);
    cluster = new Cluster(server);
    for (const region of REGIONS) {
      mkdirSync(shelf(region));
      await cluster.apply({
        kind: 'ImageSite',
        metadata: { name: region, labels: { region } },
        spec: { directory: { path: shelf(region) } },
      });
    }
  }, API_SERVER_PATIENCE_MS);
  afterAll(async () => {
    await Program.killAll();
    await cluster?.close();
    await Promise.all([server?.stop(), origin?.close()]);
    rmSync(root, { recursive: true, force: true });
  });

  const shelf = (region: Region) => join(root, `shelf-${region}`);
  const TELEMETRY = ['--telemetry', '127.0.0.1:0'];
  const pod = (name: string, selector: string): Program => {
    const own = ['--site-selector', selector, '--lease-name', name, ...SHORT_LEASE, ...TELEMETRY];
    return runPod(root, name, server.kubeconfig, ...own);
  };
  const launch = (region: Region): Program => {
    const program = pod(region, `region=${region}`);
    programs.set(region, program);
    return program;
  };
  const start = async (region: Region): Promise<Program> => {
    const program = launch(region);
    await program.says(/imageproxy runs/);
    return program;
  };
  /** One that serves every site. */
  const launchAlone = (name: string): Program =>
    runPod(root, name, server.kubeconfig, '--lease-name', name, ...SHORT_LEASE);
  const readiness = async (program: Program) => {
    const url = (await program.says(/"telemetry":"(http[^"]+)"/))[1] ?? '';
    const { statusCode, body } = await request(`${url}/readyz`);
    return [statusCode, await body.text()];
  };
  const holder = async (): Promise<Region> =>
    eventually('somebody summarizes', async () => {
      const { spec } = await server.request<{ spec: { holderIdentity: string } }>({
        method: 'GET',
        path: '/apis/coordination.k8s.io/v1/namespaces/default/leases/imageproxy-summary',
      });
      const [region] = spec.holderIdentity.split('_');
      if (region === undefined || region === '') throw new Error('nobody');
      return region as Region;
    });
  const image = (name: string, sha256: string): Manifest =>
    vmimage(name, {
      source: { http: { urls: [`${origin.url}/${name}`] } },
      checksums: { sha256 },
      sites: REGIONS.map((region) => ({ name: region })),
    });
  const row = ({ status }: VMImage, region: Region): SiteRow | undefined =>
    status.sites?.find(({ name }) => name === region);
  const message = (object: VMImage) => condition(object, 'Ready')?.message ?? '';
  /** Waits longer than the others: a Lease must run out. */
  const eventuallyIs = async (name: string, what: string, wanted: (image: VMImage) => boolean): Promise<VMImage> => {
    const end = Date.now() + TAKE_OVER_MS;
    for (;;) {
      try {
        return await cluster.until(name, wanted, what);
      } catch (error) {
        if (Date.now() > end) throw error;
      }
    }
  };
  const registered = (region: Region): string[] =>
    (JSON.parse(readFileSync(join(shelf(region), 'index.json'), 'utf8')) as { images: { name: string }[] }).images.map(
      ({ name }) => name,
    );

  test('each serves its own sites; one that nobody serves is named, and is touched by nobody', async () => {
    const disk = ext4('first');
    origin.route('/first', { body: disk.bytes });
    await start('east');
    await start('west');
    await cluster.apply(image('first', disk.sha256));
    const seen = await cluster.until('first', ({ status }) => status.summary?.sites === '2/3', 'on two of three');
    expectKstatus(seen);
    expect(condition(seen, 'Ready')).toMatchObject({ status: 'False', reason: 'NoControllerForSite' });
    expect(message(seen)).toMatch(/^north: no controller .*--site-selector matches the labels of ImageSite north/);
    expect(seen.status.sites?.map(({ name }) => name).toSorted()).toEqual(['east', 'west']);
    const { metadata, status } = await cluster.site('north');
    expect(metadata.finalizers).toBeUndefined();
    expect(status).toEqual({ observedGeneration: -1 });
    // Who owns what: the rows their controllers, all else the one that summarizes.
    expect(ownersOf(seen, /"k:\{\\"name\\":\\"east\\"\}"/)).toEqual(['imageproxy/imageproxy/east']);
    expect(ownersOf(seen, /"k:\{\\"name\\":\\"west\\"\}"/)).toEqual(['imageproxy/imageproxy/west']);
    expect(ownersOf(seen, /"f:phase":\{\},"f:summary"/)).toEqual(['imageproxy-summary']);
  });

  /** A word that changes nothing wakes everybody. */
  const wake = (name: string) =>
    server.request({
      method: 'PATCH',
      path: `/apis/imageproxy.dev/v1beta1/namespaces/default/vmimages/${name}`,
      contentType: 'application/merge-patch+json',
      body: { metadata: { labels: { seen: 'yes' } } },
    });

  test('at rest nobody writes', async () => {
    const before = await cluster.image('first');
    const sites = await Promise.all(REGIONS.map((region) => cluster.site(region)));
    await wake('first');
    const labelled = await cluster.image('first');
    const marker = ext4('marker');
    origin.route('/marker', { body: marker.bytes });
    await cluster.apply(image('marker', marker.sha256));
    await cluster.until('marker', ({ status }) => status.summary?.sites === '2/3', 'on two of three');
    expect((await cluster.image('first')).metadata.resourceVersion).toBe(labelled.metadata.resourceVersion);
    expect(before.status).toEqual(labelled.status);
    const again = await Promise.all(REGIONS.map((region) => cluster.site(region)));
    expect(again.map(withoutCounts)).toEqual(sites.map(withoutCounts));
  });

  test('the one that summarizes is killed at work: the other takes over, goes on with its own, and leaves the rest', async () => {
    const disk = ext4('second', 16);
    const held = Promise.withResolvers<void>();
    origin.route('/second', { body: disk.bytes, holdAfter: { bytes: 4 * 2 ** 20, until: held.promise } });
    await cluster.apply(image('second', disk.sha256));
    await cluster.until(
      'second',
      (each) => row(each, 'east')?.phase === 'Fetching' && row(each, 'west')?.phase === 'Fetching',
      'being fetched by both',
    );
    const dead = await holder();
    const heir: Region = dead === 'east' ? 'west' : 'east';
    await programs.get(dead)?.signal('SIGKILL');
    held.resolve();
    // Its own row it finishes at once: that needs nobody's Lease but its own.
    await cluster.until('second', (each) => row(each, heir)?.phase === 'Ready', `ready in ${heir}`);
    const seen = await eventuallyIs(
      'second',
      'summarized by the heir',
      ({ status }) => status.summary?.sites === '1/3',
    );
    expect(await holder()).toBe(heir);
    expectKstatus(seen);
    expect(row(seen, dead)).toMatchObject({ phase: 'Fetching' });
    expect(row(seen, dead)?.imageID).toBeUndefined();
    // The dead one comes back: under its own Lease, with its own cache.
    await start(dead);
    await eventuallyIs('second', 'on two of three', ({ status }) => status.summary?.sites === '2/3');
    for (const region of [dead, heir]) {
      expect(registered(region).toSorted()).toEqual(['first', 'marker', 'second']);
    }
  });

  test('one that watches other namespaces than the one that summarizes says so, is not ready, and does nothing', async () => {
    const own = ['--site-selector', 'region=nowhere', '--lease-name', 'odd', '--watch-namespaces', 'imageproxy'];
    const odd = runPod(root, 'odd', server.kubeconfig, ...own, '--instance', 'odd', ...TELEMETRY);
    await eventually('it is not ready', async () =>
      expect(await readiness(odd)).toEqual([
        503,
        expect.stringMatching(
          /default\/imageproxy-summary is held by (east|west)_\w+, which watches the namespaces \* and not imageproxy: .*same --watch-namespaces/,
        ),
      ]),
    );
    const { code, err } = await odd.signal('SIGTERM');
    expect(code).toBe(0);
    expect(err).not.toContain('imageproxy runs');
  });

  test('a controller that comes later finds its work, and then all is Ready', async () => {
    await start('north');
    const ready = await cluster.ready('first');
    expectKstatus(ready);
    expect(ready.status.summary).toMatchObject({ sites: '3/3' });
    for (const name of ['marker', 'second']) await cluster.ready(name);
    expect(registered('north').toSorted()).toEqual(['first', 'marker', 'second']);
  });

  test('what is asked for while a controller is away is handled when that has come back and has looked', async () => {
    const at = new Date().toISOString();
    await programs.get('north')?.signal('SIGTERM');
    await server.request({
      method: 'PATCH',
      path: '/apis/imageproxy.dev/v1beta1/namespaces/default/vmimages/first',
      contentType: 'application/merge-patch+json',
      body: { metadata: { annotations: { 'imageproxy.dev/requestedAt': at } } },
    });
    const done = (each: VMImage) =>
      REGIONS.filter((region) => row(each, region)?.lastHandledReconcileAt === at).toSorted();
    const seen = await eventuallyIs('first', 'looked at by two', (each) => done(each).length === 2);
    expect(done(seen)).toEqual(['east', 'west']);
    expect(seen.status.lastHandledReconcileAt).not.toBe(at);
    await start('north');
    const handled = await eventuallyIs('first', 'handled', ({ status }) => status.lastHandledReconcileAt === at);
    expect(done(handled)).toEqual(['east', 'north', 'west']);
  });

  test('a deletion waits for the controller of each site that holds something, and says for which', async () => {
    await programs.get('north')?.signal('SIGTERM');
    await cluster.delete('VMImage', { namespace: 'default', name: 'first' });
    const held = await cluster.until(
      'first',
      // Rows are written before what is said of all of them.
      (each) => each.status.sites?.length === 1 && condition(each, 'Ready')?.reason === 'DeletionHeld',
      'held by one',
    );
    expect(message(held)).toMatch(/north/);
    expect(message(held)).toContain(row(held, 'north')?.imageID);
    expect(held.metadata.finalizers).toEqual(['imageproxy.dev/registrations']);
    expect(registered('east')).not.toContain('first');
    await start('north');
    await cluster.gone('VMImage', { namespace: 'default', name: 'first' });
    expect(registered('north').toSorted()).toEqual(['marker', 'second']);
  });

  test('of two whose selectors overlap the one that came later serves the site; the other steps back, and says so', async () => {
    const east = programs.get('east') as Program;
    const rival = pod('rival', 'region in (east,nowhere)');
    await rival.says(/imageproxy runs/);
    const words =
      /the selectors of the controllers imageproxy\/east and imageproxy\/rival both match it; imageproxy\/rival came later/;
    await eventually('the one that was first is not ready', async () =>
      expect(await readiness(east)).toEqual([503, expect.stringMatching(words)]),
    );
    const disk = ext4('overlap');
    origin.route('/overlap', { body: disk.bytes });
    await cluster.apply(image('overlap', disk.sha256));
    const served = await eventuallyIs('overlap', 'on all three', ({ status }) => status.summary?.sites === '3/3');
    expect(ownersOf(served, /"k:\{\\"name\\":\\"east\\"\}"/)).toEqual(['imageproxy/imageproxy/rival']);
    expect(registered('east').filter((name) => name === 'overlap')).toHaveLength(1);
    await eventually('an event of the site tells it', async () => {
      const { items } = await server.request<{ items: SeenEvent[] }>({
        method: 'GET',
        path: '/apis/events.k8s.io/v1/namespaces/default/events',
      });
      expect(items.filter(({ reason }) => reason === 'SelectorsOverlap')).toMatchObject([
        { regarding: { name: 'east' }, note: expect.stringMatching(words) },
      ]);
    });
    // And they do not write in turns.
    await wake('overlap');
    const before = await cluster.image('overlap');
    const later = ext4('later');
    origin.route('/later', { body: later.bytes });
    await cluster.apply(image('later', later.sha256));
    await cluster.ready('later');
    expect((await cluster.image('overlap')).metadata.resourceVersion).toBe(before.metadata.resourceVersion);
    expect((await cluster.site('east')).status.controller).toBe('imageproxy/rival');

    // Put right: the first goes on by itself.
    await rival.signal('SIGTERM');
    const mended = pod('rival', 'region=nowhere');
    await mended.says(/imageproxy runs/);
    await eventually('the first serves it again', async () => {
      expect((await cluster.site('east')).status.controller).toBe('imageproxy/east');
      expect(await readiness(east)).toMatchObject([200, expect.any(String)]);
    });
    await mended.signal('SIGTERM');
    for (const name of ['overlap', 'later']) {
      await cluster.delete('VMImage', { namespace: 'default', name });
      await cluster.gone('VMImage', { namespace: 'default', name });
    }
  });

  test('one that serves every site does nothing beside a hub, also while one of the hub is started anew', async () => {
    const beside = launchAlone('beside');
    await beside.says(/"holder":"(east|west|north)_[^\n]*another holds the lease: waiting for it/);
    const anew = await holder();
    await programs.get(anew)?.signal('SIGTERM');
    await start(anew);
    const disk = ext4('undisturbed');
    origin.route('/undisturbed', { body: disk.bytes });
    await cluster.apply(image('undisturbed', disk.sha256));
    await cluster.ready('undisturbed');
    const { code, err } = await beside.signal('SIGTERM');
    expect(code).toBe(0);
    expect(err).not.toContain('imageproxy runs');
    await cluster.delete('VMImage', { namespace: 'default', name: 'undisturbed' });
    await cluster.gone('VMImage', { namespace: 'default', name: 'undisturbed' });
  });

  test('a hub becomes one controller, and a hub again: rows are taken over with all that others wrote into them', async () => {
    const rows = async (name: string) =>
      (await cluster.image(name)).status.sites?.map((each) => [each.name, each.phase]).toSorted();
    const { checksums, source } = (await cluster.image('second')).spec;
    const narrow = (...regions: Region[]) =>
      cluster.apply(vmimage('second', { source, checksums, sites: regions.map((region) => ({ name: region })) }));
    const before = (await cluster.ready('second')).status.sites;
    for (const region of REGIONS) await programs.get(region)?.signal('SIGTERM');

    // It gives a hub of which nobody is there the time to come back, and itself that to be seen by all.
    const alone = launchAlone('alone');
    await alone.says(/imageproxy runs/);
    await narrow('east', 'west');
    await cluster.until('second', ({ status }) => status.summary?.sites === '2/2', 'on two of two');
    await eventually('the third row has gone', async () =>
      expect(await rows('second')).toEqual([
        ['east', 'Ready'],
        ['west', 'Ready'],
      ]),
    );
    expect(registered('north')).toEqual(['marker']);

    const east = launch('east');
    await eventually('one of a hub beside it is not ready', async () =>
      expect(await readiness(east)).toEqual([
        503,
        expect.stringMatching(
          /default\/imageproxy-summary is held by alone_\w+, which serves every site: .*give it a --site-selector/,
        ),
      ]),
    );
    const disk = ext4('one-only');
    origin.route('/one-only', { body: disk.bytes });
    await cluster.apply(image('one-only', disk.sha256));
    const only = await cluster.ready('one-only');
    expect(origin.requests.filter(({ path, method }) => path === '/one-only' && method === 'GET')).toHaveLength(1);
    expect(managersOf(only).map(({ manager }) => manager)).not.toContain('imageproxy/imageproxy/east');
    await cluster.delete('VMImage', { namespace: 'default', name: 'one-only' });
    await cluster.gone('VMImage', { namespace: 'default', name: 'one-only' });
    await alone.signal('SIGTERM');
    await east.says(/imageproxy runs/);
    await start('west');
    await narrow('east');
    await eventually('the second row has gone', async () => expect(await rows('second')).toEqual([['east', 'Ready']]));
    const ready = await cluster.ready('second');
    expectKstatus(ready);
    expect(registered('west')).toEqual(['marker']);
    expect(row(ready, 'east')?.imageID).toBe(before?.find(({ name }) => name === 'east')?.imageID);
  });
});

interface ManagedFields {
  manager: string;
  fieldsV1: Record<string, object>;
}

interface SeenEvent {
  reason: string;
  note: string;
  regarding: { name: string };
}

function managersOf({ metadata }: VMImage): ManagedFields[] {
  return (metadata as unknown as { managedFields: ManagedFields[] }).managedFields;
}

/** Who has applied what of the status looks like this. */
function ownersOf(image: VMImage, pattern: RegExp): string[] {
  return managersOf(image)
    .filter(({ fieldsV1 }) => pattern.test(JSON.stringify(fieldsV1['f:status'])))
    .map(({ manager }) => manager);
}

function withoutCounts({ metadata, status }: ImageSite) {
  const { counts: _counts, ...rest } = status;
  return { name: metadata.name, finalizers: metadata.finalizers, status: rest };
}
