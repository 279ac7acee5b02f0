import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { VMImage } from '../../../src/api/types.ts';
import { type Disk, qcow2 } from '../../support/disks.ts';
import { directorySite, isTrue, openstackSite, vmimage } from '../../support/house.ts';
import { type OpenStack, openstackAvailable, startOpenStack } from '../../support/openstack.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';
import { type FaultProxy, startFaultProxy } from '../../support/proxy.ts';
import { closeSubjects, Subject } from '../../support/subject.ts';

/** What comes after the registration (replaced, out of service, back, removed), killed with SIGKILL at each step and started again. */

const PAST = '2020-01-01T00:00:00Z';
let origin: Origin;
let disks: Record<'one' | 'two', Disk>;

beforeAll(async () => {
  origin = await startOrigin();
  disks = { one: qcow2('life-one'), two: qcow2('life-two') };
  for (const [name, { bytes }] of Object.entries(disks))
    origin.route(`/${name}.qcow2`, { body: bytes, etag: `"${name}"` });
});
afterEach(closeSubjects);
afterAll(async () => await origin?.close());

const specOf = (version: 'one' | 'two', site: string, more: Record<string, unknown> = {}) => ({
  guid: 'life',
  source: { http: { urls: [`${origin.url}/${version}.qcow2`] } },
  checksums: { sha256: disks[version].sha256 },
  sites: [{ name: site }],
  ...more,
});

/** Come to rest in this phase of this generation. */
const rests = (phase: string, generation: number) => (image: VMImage) =>
  image.metadata.generation === generation &&
  image.status.observedGeneration === generation &&
  image.status.phase === phase &&
  isTrue(image, 'Ready') &&
  image.status.sites?.every(
    (row) => row.operation === undefined && row.previous?.every((each) => each.retiredAt !== undefined) !== false,
  ) === true;

describe('killed at each change of its own state, with a directory site', () => {
  test('a replacement, a withdrawal and a removal end as they should, and the image is there again afterwards', async () => {
    const subject = new Subject();
    subject.write('site.yaml', directorySite('shelf', subject.shelf));
    const files = (folder: string) =>
      readdirSync(join(subject.shelf, folder)).filter((name) => !name.startsWith('.') && name !== 'index.json');
    const indexed = () =>
      (
        JSON.parse(readFileSync(join(subject.shelf, 'index.json'), 'utf8')) as {
          images: { files: { file: string }[] }[];
        }
      ).images.flatMap((image) => image.files.map(({ file }) => file));
    let generation = 0;
    let killed: boolean;

    /** Writes the spec, dies at this change, goes on; resolves with the image at rest. */
    async function becomes(spec: Record<string, unknown>, phase: string, change?: number): Promise<VMImage> {
      subject.write('image.yaml', vmimage('image', spec));
      const wanted = rests(phase, ++generation);
      subject.start(change);
      let image = await subject.until(wanted);
      if (image === undefined) {
        killed = true;
        subject.start();
        image = await subject.until(wanted);
      }
      subject.kill();
      await subject.exited();
      if (image === undefined) throw new Error('it ended by itself');
      // Whatever was told is true, and nothing half-made is left.
      expect(files('.staging'), `killed at change ${change}`).toEqual([]);
      expect(indexed(), `killed at change ${change}`).toEqual(files('.'));
      return image;
    }
    const idOf = (image: VMImage) => `${image.status.sites?.[0]?.imageID}.qcow2`;

    let first = idOf(await becomes(specOf('one', 'shelf'), 'Ready'));
    for (let change = 1; ; change++) {
      killed = false;
      const second = idOf(await becomes(specOf('two', 'shelf'), 'Ready', change));
      expect([files('.'), files('.retired')], `replaced, killed at change ${change}`).toEqual([[second], [first]]);
      await becomes(specOf('two', 'shelf', { state: 'Deactivated' }), 'Deactivated', change);
      expect(files('.'), `withdrawn, killed at change ${change}`).toEqual([]);
      expect(new Set(files('.retired'))).toEqual(new Set([first, second]));
      const gone = specOf('two', 'shelf', { expiresAt: PAST, onExpiry: 'Delete' });
      await becomes(gone, 'Expired', change);
      expect([files('.'), files('.retired')], `removed, killed at change ${change}`).toEqual([[], []]);
      expect(readdirSync(join(subject.shelf, '.records'))).toEqual([]);
      if (!killed) {
        expect(change).toBeGreaterThan(4);
        return;
      }
      first = idOf(await becomes(specOf('one', 'shelf'), 'Ready'));
    }
  }, 1_200_000);
});

describe.skipIf(!openstackAvailable())('killed at each request to a real Glance', () => {
  let openstack: OpenStack;
  let proxy: FaultProxy;

  beforeAll(async () => {
    openstack = await startOpenStack();
    proxy = await startFaultProxy(openstack.glanceUrl);
  });
  afterAll(async () => {
    await proxy?.stop();
    await openstack?.stop();
  });

  const records = async () => {
    const lists = await Promise.all(
      ['true', 'false'].map((hidden) => openstack.image('demo', 'GET', `/images?os_hidden=${hidden}`)),
    );
    return lists.flatMap(
      (list) => (list.body as { images: { id: string; status: string; os_hidden: boolean }[] }).images,
    );
  };

  test('out of service, back in service and removed: each ends as it should, with the same image or none', async () => {
    const clouds = await openstack.clouds('demo', { imageEndpoint: proxy.url });
    const subject = new Subject(...openstackSite('nova', clouds, 'demo'));
    const spec = specOf('one', 'nova');
    let generation = 0;
    let killed: boolean;

    /** Writes the spec while the program runs; dies at request `n` that follows, before or after Glance has acted, and goes on. */
    async function becomes(more: Record<string, unknown>, phase: string, n?: number): Promise<string | undefined> {
      let dead = false;
      const kill = () => {
        killed = dead = true;
        subject.kill();
      };
      proxy.clear();
      if (n !== undefined)
        proxy.fault(n % 2 === 0 ? { after: n, answered: kill } : { after: n, wait: () => new Promise<void>(kill) });
      const wanted = rests(phase, ++generation);
      subject.write('image.yaml', vmimage('image', { ...spec, ...more }));
      let image = await subject.until((now) => !dead && wanted(now));
      proxy.clear();
      if (dead) {
        await subject.exited();
        subject.start();
        image = await subject.until(wanted);
      }
      return image?.status.sites?.[0]?.imageID;
    }

    subject.start();
    for (let n = 0; ; n++) {
      killed = false;
      const id = await becomes({}, 'Ready');
      await becomes({ state: 'Deactivated' }, 'Deactivated', n);
      expect(await records(), `withdrawn, killed at request ${n}`).toMatchObject([
        { id, status: 'deactivated', os_hidden: true },
      ]);
      expect(await becomes({}, 'Ready', n)).toBe(id);
      expect(await records(), `reactivated, killed at request ${n}`).toMatchObject([
        { id, status: 'active', os_hidden: false },
      ]);
      await becomes({ expiresAt: PAST, onExpiry: 'Delete' }, 'Expired', n);
      expect(await records(), `removed, killed at request ${n}`).toEqual([]);
      if (!killed) {
        expect(n).toBeGreaterThan(2);
        return;
      }
    }
  }, 1_200_000);
});
