import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { type Origin, startOrigin } from '../../support/origin.ts';
import { Program } from './program.ts';
import { COMPILED } from './worlds.ts';

let root = '';
let state = '';
let origin: Origin;
let env: Record<string, string> = {};

beforeEach(async () => {
  root = mkdtempSync(join(tmpdir(), 'imageproxy-register-'));
  state = join(root, 'state');
  env = { ...COMPILED, IMAGEPROXY_STATE: state };
  mkdirSync(join(root, 'shelf'));
  origin = await startOrigin();
});

afterEach(async () => {
  await Program.killAll();
  await origin.close();
  rmSync(root, { recursive: true, force: true });
});

function write(name: string, ...objects: object[]): string {
  const file = join(root, name);
  writeFileSync(file, objects.map((object) => stringify(object)).join('---\n'), { mode: 0o600 });
  return file;
}

describe('a Secret beside the site that is asked for', () => {
  it('is nowhere on the disk, also after a kill', async () => {
    origin.route('/v3/auth/tokens', { silent: true });
    const clouds = {
      clouds: {
        demo: {
          auth: {
            auth_url: `${origin.url}/v3`,
            username: 'imageproxy',
            password: 'hunter2',
            user_domain_name: 'Default',
            project_name: 'images',
            project_domain_name: 'Default',
          },
        },
      },
    };
    const site = write(
      'nova.yaml',
      {
        apiVersion: 'imageproxy.dev/v1beta1',
        kind: 'ImageSite',
        metadata: { name: 'nova' },
        spec: { openstack: { secretRef: { name: 'nova' }, cloud: 'demo' } },
      },
      {
        apiVersion: 'v1',
        kind: 'Secret',
        metadata: { name: 'nova', namespace: 'imageproxy' },
        stringData: { 'clouds.yaml': stringify(clouds) },
      },
    );
    const line = ['register', `${origin.url}/a.raw`, '--sha256', '0'.repeat(64), '--site', site];
    const program = new Program([...line, '--allow-network', '127.0.0.0/8'], env);
    // It has been read: the cloud is asked with it.
    await origin.stalled();
    await program.signal('SIGKILL');
    const encoded = Buffer.from(stringify(clouds)).toString('base64').slice(0, 64);
    const files = readdirSync(state, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
    expect(files.length).toBeGreaterThan(3);
    for (const { parentPath, name } of files) {
      const text = readFileSync(join(parentPath, name), 'latin1');
      expect(text, join(parentPath, name)).not.toContain('hunter2');
      expect(text, join(parentPath, name)).not.toContain(encoded);
    }
  });
});
