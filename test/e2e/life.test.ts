import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { ImageSite, VMImage } from '../../src/api/types.ts';
import { eventually } from '../support/apiserver.ts';
import { ext4 } from '../support/disks.ts';
import { type OpenStack, openstackAvailable, startOpenStack } from '../support/openstack.ts';
import { type Origin, startOrigin } from '../support/origin.ts';
import { ADDRESS, apply, get, killContainer, kubectl } from './cluster.ts';
import { Release } from './release.ts';
import { inGlance, openstackSecret, openstackSpec, vmimage } from './sites.ts';

const NAMESPACE = 'e2e-life';
const MiB = 2 ** 20;

/** Prints the bytes of the unfinished download that the cache's journal names, read from a copy: its own file is locked. */
const JOURNALLED = `
  const { cpSync, mkdtempSync, rmSync } = require('node:fs');
  const { DatabaseSync } = require('node:sqlite');
  const copy = mkdtempSync(require('node:os').tmpdir() + '/journal-');
  for (const file of ['cache.db', 'cache.db-wal']) cpSync('/var/lib/imageproxy/cache/' + file, copy + '/' + file);
  const database = new DatabaseSync(copy + '/cache.db');
  console.log(database.prepare('select max(watermark) as bytes from partials').get().bytes ?? 0);
  database.close();
  rmSync(copy, { recursive: true });
`;

/** One story, told in order: what a controller lives through. The site comes from the chart's values. */
describe.skipIf(!openstackAvailable())('the life of a release', () => {
  let release: Release;
  let origin: Origin;
  let cloud: OpenStack;
  const values = { sites: { nova: { spec: openstackSpec('nova') } } };
  const disk = ext4('big', 96);
  const goOn = Promise.withResolvers<void>();

  beforeAll(async () => {
    release = await Release.prepare(NAMESPACE);
    origin = await startOrigin({ address: ADDRESS });
    cloud = await startOpenStack({ address: ADDRESS });
    await apply(await openstackSecret('nova', NAMESPACE, cloud));
    await release.upgrade(values);
  });
  afterAll(async () => {
    goOn.resolve();
    await release?.remove();
    await origin?.close();
    await cloud?.stop();
  });
  beforeEach(() => release.watchTest());

  const image = () => get<VMImage>('vmimage', 'big');
  const row = async () => {
    const { status } = await image();
    const [only] = status.sites ?? [];
    if (only?.imageID === undefined) throw new Error(`no image id: ${JSON.stringify(status)}`);
    return { ...only, imageID: only.imageID };
  };
  const ready = (what: string) => kubectl(['wait', '--for=condition=Ready', what, '--timeout=180s']);
  const bodies = () => origin.requests.filter(({ method }) => method === 'GET').length;

  test('a site of the values is made, and becomes Ready', async () => {
    // A release that was uninstalled just before lost its rights before it could give back the Lease of who summarizes: 40 s.
    await kubectl(['wait', '--for=create', 'imagesite/nova', '--timeout=180s']);
    await ready('imagesite/nova');
  });

  test('killed in the middle of a download, it goes on from the bytes that it has', async () => {
    const half = 64 * MiB;
    origin.route('/big.raw', { body: disk.bytes, etag: '"one"', holdAfter: { bytes: half, until: goOn.promise } });
    await apply(vmimage('big', `${origin.url}/big.raw`, disk.sha256, ['nova']));
    await eventually('half of it is there', async () => {
      const { status } = await image();
      if ((status.progress?.bytes ?? 0) < half) throw new Error(JSON.stringify(status.progress));
    });
    await eventually('a crash cannot take it away', async () => {
      const script = ['--container=controller', `--namespace=${NAMESPACE}`, '--', 'node', '-e', JOURNALLED];
      expect(Number(await kubectl(['exec', 'deployment/imageproxy', ...script]))).toBeGreaterThan(half / 2);
    });
    const before = await release.pod();
    await killContainer(NAMESPACE, before.metadata.name, 'controller');
    await eventually('a new process runs', async () => {
      const { metadata } = await release.pod();
      const container = await release.container('controller');
      const isNew = metadata.uid !== before.metadata.uid || container.restartCount > 0;
      if (!isNew || !container.ready) throw new Error(JSON.stringify(container));
    });
    goOn.resolve();
    await ready('vmimg/big');
    const [first, second, ...more] = origin.requests.filter(({ method }) => method === 'GET');
    expect(more).toEqual([]);
    expect(first?.headers.range).toBeUndefined();
    const start = Number(/^bytes=(\d+)-$/.exec(second?.headers.range ?? '')?.[1]);
    expect(start).toBeGreaterThan(half / 2);
    expect((await inGlance(cloud, (await row()).imageID)).body).toMatchObject({
      status: 'active',
      os_hash_value: disk.sha512,
    });
  });

  test('an upgrade of the chart starts a new pod, and changes nothing in the cloud', async () => {
    const [before, id, fetched] = [await release.pod(), (await row()).imageID, bodies()];
    await release.upgrade({ ...values, log: { level: 'debug' } });
    expect((await release.pod()).metadata.uid).not.toBe(before.metadata.uid);
    await ready('vmimg/big');
    expect((await row()).imageID).toBe(id);
    expect((await inGlance(cloud)).body.images?.map((each) => each.id)).toEqual([id]);
    expect(bodies()).toBe(fetched);
  });

  test('helm test says that it works', async () => {
    expect(await release.helm.run('test', 'imageproxy', `--namespace=${NAMESPACE}`)).toMatch(/Phase:\s+Succeeded/);
  });

  test('in the pod, the command shows what kubectl shows', async () => {
    const inPod = ['exec', 'deployment/imageproxy', `--namespace=${NAMESPACE}`, '--', 'imageproxy'];
    expect(await kubectl([...inPod, 'get', 'vmimages', '--all-namespaces'])).toContain((await row()).imageID);
  });

  test('uninstalled, it leaves clouds, images and kinds alone, and nothing that waits for its end', async () => {
    const id = (await row()).imageID;
    const said = await release.helm.uninstall({ namespace: NAMESPACE });
    expect(said).toContain('vmimages.imageproxy.dev');
    expect((await inGlance(cloud, id)).body.status).toBe('active');
    const left = await get<{ items: { kind: string; metadata: { name: string; deletionTimestamp?: string } }[] }>(
      'vmimages,imagesites,persistentvolumeclaims,deployments,crds',
      '--all-namespaces',
    );
    expect(left.items.filter(({ metadata }) => metadata.deletionTimestamp !== undefined)).toEqual([]);
    const names = left.items.map(({ kind, metadata }) => `${kind} ${metadata.name}`);
    expect(names).toEqual(
      expect.arrayContaining(['VMImage big', 'ImageSite nova', 'PersistentVolumeClaim imageproxy']),
    );
    expect(names).not.toContain('Deployment imageproxy');
  });

  test('installed again, it knows its images: the same id, nothing fetched, nothing sent', async () => {
    const [id, fetched] = [(await row()).imageID, bodies()];
    const { created_at: made } = (await inGlance(cloud, id)).body;
    await release.upgrade(values);
    await kubectl(['annotate', 'vmimg', 'big', 'imageproxy.dev/requestedAt=after-the-second-install', '--overwrite']);
    await kubectl([
      'wait',
      '--for=jsonpath={.status.lastHandledReconcileAt}=after-the-second-install',
      'vmimg/big',
      '--timeout=180s',
    ]);
    await ready('vmimg/big');
    expect((await inGlance(cloud)).body.images?.map((each) => each.id)).toEqual([id]);
    expect((await inGlance(cloud, id)).body.created_at).toBe(made);
    expect(bodies()).toBe(fetched);
  });

  test('deleted, the image is gone from the cloud, and then the site may go', async () => {
    const id = (await row()).imageID;
    await kubectl(['delete', 'vmimg', 'big', '--timeout=180s']);
    expect((await inGlance(cloud, id)).status).toBe(404);
    const site = await get<ImageSite>('imagesite', 'nova');
    expect(site.metadata.finalizers).not.toEqual([]);
    await release.upgrade();
    await kubectl(['delete', 'imagesite', 'nova', '--timeout=180s']);
  });
});
