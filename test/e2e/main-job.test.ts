import { execFile } from 'node:child_process';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { VMImage } from '../../src/api/types.ts';
import { asQcow2, ext4, gzipped, qcow2 } from '../support/disks.ts';
import { expectKstatus } from '../support/kstatus.ts';
import { type OpenStack, openstackAvailable, startOpenStack } from '../support/openstack.ts';
import { type Origin, startOrigin } from '../support/origin.ts';
import { eventually } from '../support/apiserver.ts';
import { ADDRESS, apply, get, killContainer, kubectl, KUBECONFIG } from './cluster.ts';
import { Release } from './release.ts';
import { inGlance, openstackSite, vmimage } from './sites.ts';

const NAMESPACE = 'e2e-main-job';
const SITES = ['east', 'west'] as const;

/** One story, told in order: an admin installs, a user asks for images at two clouds that know nothing of each other. */
describe.skipIf(!openstackAvailable())('the main job on a cluster', () => {
  let release: Release;
  let origin: Origin;
  let notes: string;
  const clouds = new Map<string, OpenStack>();
  const disk = qcow2('e2e', 64);

  beforeAll(async () => {
    release = await Release.prepare(NAMESPACE);
    origin = await startOrigin({ address: ADDRESS });
    origin.route('/noble.qcow2', { body: disk.bytes, bytesPerSecond: 2 ** 18 });
    for (const name of SITES) clouds.set(name, await startOpenStack({ address: ADDRESS }));
    // So that the log names the jobs of the tools.
    notes = await release.upgrade({ log: { level: 'debug' } });
  });
  afterAll(async () => {
    await release?.remove();
    await origin?.close();
    for (const cloud of clouds.values()) await cloud.stop();
  });
  beforeEach(() => release.watchTest());

  /** What each cloud says of the image whose id is in the status. */
  const inClouds = async (image: VMImage) => {
    expect(image.status.sites?.map(({ name }) => name).toSorted()).toEqual(SITES);
    const asked = (image.status.sites ?? []).map(async ({ name, imageID }) => {
      const cloud = clouds.get(name);
      if (cloud === undefined || imageID === undefined) throw new Error(`no id at ${name}`);
      return inGlance(cloud, imageID);
    });
    return Promise.all(asked);
  };

  test('helm install gives a site its controller: one pod, ready, and notes that say the next command', async () => {
    expect(notes).toContain(`kubectl -n ${NAMESPACE} rollout status deployment/imageproxy`);
    const { status } = await release.pod();
    expect(status.containerStatuses).toMatchObject([
      { name: 'controller', ready: true, restartCount: 0 },
      { name: 'tools', ready: true, restartCount: 0 },
    ]);
  });

  test('sites become Ready when their Secrets and their clouds are good', async () => {
    for (const [name, cloud] of clouds) await apply(...(await openstackSite(name, NAMESPACE, cloud)));
    await kubectl(['wait', '--for=condition=Ready', 'imagesite/east', 'imagesite/west', '--timeout=180s']);
  });

  test('explain teaches', async () => {
    expect(await kubectl(['explain', 'vmimage.spec.source.http.urls'])).toMatch(/DESCRIPTION:\s+\S+/);
  });

  test('apply, watch and wait tell the whole story, and both clouds have the same bytes', async () => {
    const watch = execFile('kubectl', ['get', 'vmimg', '--watch'], { env: { ...process.env, KUBECONFIG } });
    const shown: string[] = [];
    const fetching = Promise.withResolvers<void>();
    origin.route('/noble.qcow2', { body: disk.bytes, holdAfter: { bytes: 2 ** 18, until: fetching.promise } });
    watch.stdout?.on('data', (text: string) => shown.push(text));
    try {
      await apply(vmimage('noble', `${origin.url}/noble.qcow2`, disk.sha256, SITES));
      const told = (phase: string) =>
        eventually(`kubectl get --watch has shown ${phase}`, async () =>
          expect(shown.join('')).toContain(` ${phase} `),
        );
      await told('Fetching');
      fetching.resolve();
      await kubectl(['wait', '--for=condition=Ready', 'vmimg/noble', '--timeout=180s']);
      await told('Ready');
    } finally {
      fetching.resolve();
      watch.kill();
    }
    const lines = shown.join('').trimEnd().split('\n');
    expect(lines[0]).toMatch(/^NAME +READY +PHASE +PROGRESS +IMAGE ID +SITES/);
    const phases = lines.slice(1).map((line) => line.split(/ {2,}/)[2]);
    expect(phases, lines.join('\n')).toEqual(expect.arrayContaining(['Fetching', 'Ready']));

    const image = await get<VMImage>('vmimage', 'noble');
    expectKstatus(image);
    expect(image.status.summary?.sites).toBe('2/2');
    const expected = { status: 'active', name: 'noble-by-user', os_hash_value: disk.sha512 };
    expect(await inClouds(image)).toMatchObject([{ body: expected }, { body: expected }]);
    expect(origin.requests.filter(({ method }) => method === 'GET')).toHaveLength(1);
  });

  test('describe names what was done, by events', async () => {
    // They are written after the status that they tell of.
    for (const site of SITES) {
      const told = expect.poll(() => kubectl(['describe', 'vmimg', 'noble']));
      await told.toMatch(new RegExp(`Events:\n(?:.*\n)*.*Registered.*${site}`));
    }
  });

  test('a wrong checksum is told in words, and is in no cloud', async () => {
    await apply(vmimage('wrong', `${origin.url}/noble.qcow2`, 'ab'.repeat(32), SITES));
    await kubectl(['wait', '--for=condition=Stalled', 'vmimg/wrong', '--timeout=180s']);
    const { status } = await get<VMImage>('vmimage', 'wrong');
    expect(status.sites?.map(({ imageID }) => imageID)).toEqual([undefined, undefined]);
    expect(await kubectl(['get', 'vmimg', 'wrong'])).toContain('sha256');
    await kubectl(['delete', 'vmimg', 'wrong', '--timeout=180s']);
    for (const cloud of clouds.values()) expect((await inGlance(cloud)).body.images).toHaveLength(1);
  });

  test('delete takes it from both clouds', async () => {
    const image = await get<VMImage>('vmimage', 'noble');
    await kubectl(['delete', 'vmimg', 'noble', '--timeout=180s']);
    expect((await inClouds(image)).map(({ status }) => status)).toEqual([404, 404]);
  });

  /** An image that has to be unpacked and converted for a site that takes raw disks only. */
  const askForRaw = async (name: string) => {
    const raw = ext4(name, 16);
    const packed = gzipped(asQcow2(raw));
    origin.route(`/${name}.qcow2.gz`, { body: packed.bytes });
    await kubectl(['patch', 'imagesite', 'east', '--type=merge', '--patch={"spec":{"acceptedFormats":["Raw"]}}']);
    await apply(vmimage(name, `${origin.url}/${name}.qcow2.gz`, packed.sha256, ['east']));
    return raw;
  };
  const isRawAtEast = async (name: string, sha512: string) => {
    await kubectl(['wait', '--for=condition=Ready', `vmimg/${name}`, '--timeout=180s']);
    const [row] = (await get<VMImage>('vmimage', name)).status.sites ?? [];
    const east = clouds.get('east');
    if (east === undefined || row?.imageID === undefined) throw new Error(JSON.stringify(row));
    expect((await inGlance(east, row.imageID)).body).toMatchObject({ status: 'active', os_hash_value: sha512 });
  };

  test('what a site cannot take as it is becomes what it takes, in the container of the tools', async () => {
    const { sha512 } = await askForRaw('packed');
    await isRawAtEast('packed', sha512);
    const log = await kubectl(['logs', 'deployment/imageproxy', '--container=tools', `--namespace=${NAMESPACE}`]);
    const jobs = log.split('\n').flatMap((line) => /"job":"(\w+)"/.exec(line)?.[1] ?? []);
    expect(jobs).toEqual(expect.arrayContaining(['unpack', 'info', 'convert']));
  });

  test('that container has no token and no image but those on loan, and cannot change or keep these', async () => {
    const script = [
      'cd /var/lib/imageproxy',
      'test -e /var/run/secrets/kubernetes.io && echo "a token"',
      'find . -type f',
      'find . -mindepth 1 -type d | sort',
      'touch tools/in/new 2>/dev/null && echo "in/ can be written to"',
      'touch tools/out/mine',
      // What a loan is: a second name. Across mounts the kernel gives it no third one, and nothing writes to it.
      'touch new 2>/dev/null && echo "the root can be written to"',
      'rm tools/out/mine',
    ];
    const run = (container: string, lines: readonly string[]) =>
      kubectl([
        'exec',
        'deployment/imageproxy',
        `--container=${container}`,
        `--namespace=${NAMESPACE}`,
        '--',
        'sh',
        '-c',
        lines.join('\n'),
      ]);
    expect((await run('tools', script)).trim().split('\n')).toEqual(['./tools', './tools/in', './tools/out']);
    const controllers = '/var/lib/imageproxy';
    const blob = (await run('controller', [`find ${controllers}/cache/blobs -type f | head -n 1`])).trim();
    const name = '00000000-0000-4000-8000-000000000000';
    await run('controller', [
      'test -e /var/run/secrets/kubernetes.io/serviceaccount/token',
      `ln ${blob} ${controllers}/tools/in/${name}`,
    ]);
    const attack = [
      `cd ${controllers}/tools`,
      `head -c 1 in/${name} >/dev/null && echo "it is read"`,
      `ln in/${name} out/${name} 2>/dev/null && echo "it is kept"`,
      `chmod 600 in/${name} 2>/dev/null && echo "its mode is changed"`,
      `(echo x >> in/${name}) 2>/dev/null && echo "it is changed"`,
      'true',
    ];
    try {
      expect((await run('tools', attack)).trim()).toBe('it is read');
    } finally {
      await run('controller', [`rm ${controllers}/tools/in/${name}`]);
    }
  });

  test('that container killed, the next image waits for the new one, and the controller goes on', async () => {
    const { metadata } = await release.pod();
    await killContainer(NAMESPACE, metadata.name, 'tools');
    const { sha512 } = await askForRaw('patient');
    await isRawAtEast('patient', sha512);
    await eventually('the container is a new one', async () => {
      const isNew = (await release.pod()).metadata.uid !== metadata.uid;
      if (!isNew && (await release.container('tools')).restartCount === 0) throw new Error('it is the old one');
    });
    expect((await release.container('controller')).restartCount).toBe(0);
  });
});
