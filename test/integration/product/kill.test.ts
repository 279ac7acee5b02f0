import { readdirSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { VMImage } from '../../../src/api/types.ts';
import { type Disk, qcow2 } from '../../support/disks.ts';
import { directorySite, isTrue, openstackSite, vmimage } from '../../support/house.ts';
import { type OpenStack, openstackAvailable, startOpenStack } from '../../support/openstack.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';
import { type FaultProxy, startFaultProxy } from '../../support/proxy.ts';
import { closeSubjects, Subject } from '../../support/subject.ts';

/** The program, killed with SIGKILL at each step of its way and started again: what must hold afterwards, always. */

interface GlanceRecord {
  id: string;
  status: string;
  os_hidden: boolean;
  os_hash_value: string;
  /** Set once Glance's own hash has been compared. */
  imageproxy_sent_sha256?: string;
}

/** At whatever moment the program died: nothing is visible that was not compared, and nothing counts as compared that is not proven. */
function expectNothingUnproven(records: readonly GlanceRecord[], ...proven: readonly Disk[]): void {
  for (const { status, os_hidden, os_hash_value, imageproxy_sent_sha256: compared } of records) {
    if (compared === undefined) expect({ status, os_hidden }).toMatchObject({ os_hidden: true });
    if (compared !== undefined || status === 'active')
      expect(proven.map(({ sha512 }) => sha512)).toContain(os_hash_value);
  }
}

afterEach(closeSubjects);

const isServed = (generation: number) => (image: VMImage) =>
  isTrue(image, 'Ready') && image.metadata.generation === generation && image.status.observedGeneration === generation;
const isTidy = (image: VMImage) =>
  image.status.sites?.every(
    (row) => row.operation === undefined && row.previous?.every((each) => each.retiredAt !== undefined) !== false,
  ) === true;

describe.skipIf(!openstackAvailable())('killed at each request to a real Glance', () => {
  let openstack: OpenStack;
  let origin: Origin;
  let proxy: FaultProxy;
  let clouds: string;
  let one: Disk;
  let two: Disk;

  beforeAll(async () => {
    [openstack, origin] = await Promise.all([startOpenStack(), startOrigin()]);
    proxy = await startFaultProxy(openstack.glanceUrl);
    clouds = await openstack.clouds('demo', { imageEndpoint: proxy.url });
    [one, two] = [qcow2('kill-one'), qcow2('kill-two')];
    origin.route('/one.qcow2', { body: one.bytes, etag: '"1"' });
    origin.route('/two.qcow2', { body: two.bytes, etag: '"2"' });
  });

  afterAll(async () => {
    await proxy?.stop();
    await Promise.all([openstack?.stop(), origin?.close()]);
  });

  const spec = (version: 'one' | 'two', guid: string) => ({
    guid,
    source: { http: { urls: [`${origin.url}/${version}.qcow2`] } },
    checksums: { sha256: (version === 'one' ? one : two).sha256 },
    sites: [{ name: 'nova' }],
  });
  const records = async (guid: string) => {
    const lists = await Promise.all(
      ['true', 'false'].map((hidden) =>
        openstack.image('demo', 'GET', `/images?os_hidden=${hidden}&imageproxy_guid=${guid}`),
      ),
    );
    return lists.flatMap((list) => (list.body as { images: GlanceRecord[] }).images);
  };

  /** Kills at request `n` of the proxy, before the cloud sees it or after it has acted. False when there was no such request. */
  async function killedAt(
    subject: Subject,
    n: number,
    moment: 'before' | 'after',
    wanted: (image: VMImage) => boolean,
  ): Promise<boolean> {
    let killed = false;
    const kill = () => {
      killed = true;
      subject.kill();
    };
    proxy.clear();
    proxy.fault(moment === 'before' ? { after: n, wait: () => new Promise<void>(kill) } : { after: n, answered: kill });
    subject.start();
    await subject.until((image) => !killed && wanted(image));
    if (killed) await subject.exited();
    proxy.clear();
    return killed;
  }

  test.each(['before', 'after'] as const)(
    '%s it is answered: there is one image, proven and visible, and nothing half-made',
    async (moment) => {
      for (let n = 0; ; n++) {
        const guid = `register-${moment}-${n}`;
        const subject = new Subject(...openstackSite('nova', clouds, 'demo'));
        subject.write('image.yaml', vmimage('image', spec('one', guid)));
        const killed = await killedAt(subject, n, moment, isServed(1));
        if (killed) {
          expectNothingUnproven(await records(guid), one);
          subject.start();
        }
        const image = await subject.until((now) => isServed(1)(now) && isTidy(now));
        const row = image?.status.sites?.[0];
        expect(await records(guid), `killed ${moment} request ${n}`).toMatchObject([
          { id: row?.imageID, status: 'active', os_hidden: false, os_hash_value: one.sha512 },
        ]);
        await subject.close();
        if (!killed) {
          expect(n).toBeGreaterThan(4);
          return;
        }
      }
    },
    1_200_000,
  );

  test('while a new version replaces the old one: the old serves until the new does, and both are where they belong', async () => {
    for (let n = 0; ; n++) {
      const guid = `replace-${n}`;
      const subject = new Subject(...openstackSite('nova', clouds, 'demo'));
      subject.write('image.yaml', vmimage('image', spec('one', guid)));
      subject.start();
      const before = (await subject.until((now) => isServed(1)(now) && isTidy(now)))?.status.sites?.[0]?.imageID;
      subject.kill();
      await subject.exited();
      subject.write('image.yaml', vmimage('image', spec('two', guid)));
      const wanted = (now: VMImage) => isServed(2)(now) && isTidy(now);
      const killed = await killedAt(subject, n, n % 2 === 0 ? 'after' : 'before', wanted);
      if (killed) {
        const there = await records(guid);
        expectNothingUnproven(there, one, two);
        const visible = there.filter((record) => record.status === 'active' && !record.os_hidden);
        expect(visible.length, `visible when killed at request ${n}`).toBeGreaterThanOrEqual(1);
        subject.start();
      }
      const after = (await subject.until(wanted))?.status.sites?.[0]?.imageID;
      const left = await records(guid);
      expect(left, `killed at request ${n}`).toHaveLength(2);
      expect(left.find((record) => record.id === before)).toMatchObject({ status: 'deactivated', os_hidden: true });
      expect(left.find((record) => record.id === after)).toMatchObject({
        status: 'active',
        os_hidden: false,
        os_hash_value: two.sha512,
      });
      await subject.close();
      if (!killed) {
        expect(n).toBeGreaterThan(6);
        return;
      }
    }
  }, 1_200_000);
});

describe('killed at each change of its own state, with a directory site', () => {
  test('ends with one image, in one piece, and an index that says so', async () => {
    const origin = await startOrigin();
    const disk = qcow2('kill-shelf');
    origin.route('/disk.qcow2', { body: disk.bytes, etag: '"d"' });
    try {
      for (let change = 1; ; change++) {
        const subject = new Subject();
        subject.write('site.yaml', directorySite('shelf', subject.shelf));
        subject.write(
          'image.yaml',
          vmimage('image', {
            source: { http: { urls: [`${origin.url}/disk.qcow2`] } },
            checksums: { sha256: disk.sha256 },
            sites: [{ name: 'shelf' }],
          }),
        );
        subject.start(change);
        const ended = await subject.until((now) => isServed(1)(now) && isTidy(now));
        if (ended === undefined) subject.start();
        const image = ended ?? (await subject.until((now) => isServed(1)(now) && isTidy(now)));
        const published = readdirSync(subject.shelf).filter((name) => !name.startsWith('.') && name !== 'index.json');
        expect(published, `killed at change ${change}`).toEqual([`${image?.status.sites?.[0]?.imageID}.qcow2`]);
        await subject.close();
        if (ended !== undefined) {
          expect(change).toBeGreaterThan(6);
          return;
        }
      }
    } finally {
      await origin.close();
    }
  }, 1_200_000);
});
