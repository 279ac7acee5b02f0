import { chmodSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { qcow2 } from '../../support/disks.ts';
import { type OpenStack, openstackAvailable, startOpenStack } from '../../support/openstack.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';
import { imageproxy, Program } from './program.ts';

describe.skipIf(!openstackAvailable())('imageproxy register with a real Glance', () => {
  let openstack: OpenStack;
  let origin: Origin;
  const root = mkdtempSync(join(tmpdir(), 'imageproxy-register-'));
  const state = join(root, 'state');
  const site = join(root, 'nova.yaml');
  const secret = join(root, 'secret.yaml');

  beforeAll(async () => {
    [openstack, origin] = await Promise.all([startOpenStack(), startOrigin()]);
    const siteManifest = {
      apiVersion: 'imageproxy.dev/v1beta1',
      kind: 'ImageSite',
      metadata: { name: 'nova' },
      spec: { openstack: { secretRef: { name: 'nova' }, cloud: 'demo' } },
    };
    const secretManifest = {
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name: 'nova', namespace: 'imageproxy' },
      stringData: { 'clouds.yaml': await openstack.clouds('demo') },
    };
    writeFileSync(site, stringify(siteManifest));
    writeFileSync(secret, stringify(secretManifest), { mode: 0o600 });
  });

  afterAll(async () => {
    await Program.killAll();
    await Promise.all([openstack?.stop(), origin?.close()]);
    rmSync(root, { recursive: true, force: true });
  });

  it('takes the site from its file and the Secret from beside it, and keeps no copy of that', async () => {
    const disk = qcow2('register');
    origin.route('/disk.qcow2', { body: disk.bytes, etag: '"1"' });
    const line = [
      'register',
      `${origin.url}/disk.qcow2`,
      '--sha256',
      disk.sha256,
      '--state',
      state,
      '--property',
      'hw_disk_bus=virtio',
      '--allow-network',
      '127.0.0.0/8',
    ];
    const { code, out, err } = await imageproxy([...line, '--site', site]);
    expect({ code, err: err.split('\n').at(-2) }).toEqual({ code: 0, err: expect.stringContaining('100%') });
    const { body } = await openstack.image('demo', 'GET', `/images/${out.trim()}`);
    expect(body).toMatchObject({ status: 'active', name: 'disk', hw_disk_bus: 'virtio', disk_format: 'qcow2' });
    expect(readdirSync(state).filter((name) => name.startsWith('credentials'))).toEqual([]);
    expect((await imageproxy([...line, '--site', 'nova'])).out).toBe(out);
  });

  it('refuses a Secret that others can read, with the cure', async () => {
    chmodSync(secret, 0o644);
    const refused = await imageproxy([
      'register',
      `${origin.url}/x`,
      '--sha256',
      '0'.repeat(64),
      '--site',
      site,
      '--state',
      join(root, 'other'),
    ]);
    expect(refused).toMatchObject({ code: 1, out: '', err: expect.stringContaining(`chmod 600 ${secret}`) });
  });
});
