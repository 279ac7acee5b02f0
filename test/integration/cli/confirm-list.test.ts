import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { API_SERVER_PATIENCE_MS } from '../../support/apiserver.ts';
import { ext4 } from '../../support/disks.ts';
import { hepixList } from '../../support/hepix.ts';
import { directorySite, unsignedSubscription } from '../../support/house.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';
import { Program } from './program.ts';
import { openClusterWorld, openDirectoryWorld, type World } from './worlds.ts';

let origin: Origin;
const list = randomUUID();
/** More than may vanish from an unsigned list without a word. */
const ids = Array.from({ length: 12 }, () => randomUUID());
const disk = ext4('listed');

beforeAll(async () => {
  origin = await startOrigin();
  origin.route('/disk', { body: disk.bytes });
});

afterAll(async () => {
  await Program.killAll();
  await origin.close();
});

function publish(version: string, listed: readonly string[]): void {
  const more = { 'hv:format': 'raw' };
  const images = listed.map((id) => ({ id, title: id, url: `${origin.url}/disk`, bytes: disk.bytes, more }));
  const body = Buffer.from(hepixList({ id: list, version, images }));
  origin.route('/image.list', { body, etag: `"${version}"` });
}

describe.each([
  ['a directory', openDirectoryWorld],
  ['a cluster', openClusterWorld],
] as const)('confirm-removal of a list on %s', (_, open) => {
  let world: World;

  beforeAll(async () => {
    publish('1', ids);
    world = await open();
    await world.apply(directorySite('shelf', world.shelf), unsignedSubscription(`${origin.url}/image.list`));
    expect(await world.run('wait', 'imgsub/egi', '--timeout', '90s')).toMatchObject({ code: 0 });
  }, API_SERVER_PATIENCE_MS);
  afterAll(() => world.close());

  test('has nothing to confirm while nothing waits for it, and is at no site', async () => {
    expect(await world.run('confirm-removal', 'imgsub/egi')).toMatchObject({
      code: 1,
      err: 'imageproxy: ImageSubscription default/egi waits for no confirmation\n',
    });
    expect(await world.run('confirm-removal', 'imgsub/egi', 'shelf')).toMatchObject({
      code: 2,
      err: expect.stringMatching(/is at no site: leave "shelf" out/) as string,
    });
  });

  test('takes out of service what is missing from it', async () => {
    publish('2', []);
    await world.run('reconcile', 'imgsub/egi', '--no-wait');
    const held = '--for=jsonpath={.status.conditions[?(@.type=="Ready")].reason}=ConfirmationRequired';
    expect(await world.run('wait', 'imgsub/egi', held, '--timeout', '90s')).toMatchObject({ code: 0, err: '' });
    expect(await world.run('confirm-removal', 'imgsub/egi', '--timeout', '90s')).toEqual({
      code: 0,
      out: 'imagesubscription.imageproxy.dev/egi removals confirmed\n',
      err: '',
    });
    const retired = `--for=jsonpath={.status.counts.retired}=${ids.length}`;
    expect(await world.run('wait', 'imgsub/egi', retired, '--timeout', '90s')).toMatchObject({ code: 0 });
  }, 300_000);
});
