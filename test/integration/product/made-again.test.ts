import { afterAll, beforeAll, expect, test } from 'vitest';
import { qcow2 } from '../../support/disks.ts';
import { condition, directorySite, House, vmimage } from '../../support/house.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';

let origin: Origin;
let house: House;

beforeAll(async () => {
  origin = await startOrigin();
  house = new House();
  await house.write('site.yaml', directorySite('shelf', house.shelf));
  await house.start();
});

afterAll(async () => {
  await house?.close();
  await origin?.close();
});

test.each<[string, (manifest: () => Promise<void>, other: () => Promise<void>) => Promise<void>]>([
  [
    'deleted and made again',
    async (manifest) => {
      await house.remove('image.yaml', 'image');
      await manifest();
    },
  ],
  [
    'edited to something else and back',
    async (manifest, other) => {
      await other();
      await house.ready('image');
      await manifest();
    },
  ],
])('an image whose origin was wrong is fetched anew once it was %s', async (how, changed) => {
  const [disk, another] = [qcow2(`right ${how.slice(0, 6)}`), qcow2(`other ${how.slice(0, 6)}`)];
  const path = `/${disk.sha256}.qcow2`;
  origin.route(path, { body: another.bytes });
  origin.route('/another.qcow2', { body: another.bytes });
  const asking = (url: string, sha256: string) => () =>
    house.write(
      'image.yaml',
      vmimage('image', { source: { http: { urls: [url] } }, checksums: { sha256 }, sites: [{ name: 'shelf' }] }),
    );
  const manifest = asking(`${origin.url}${path}`, disk.sha256);
  await manifest();
  expect(condition(await house.stalled('image'), 'Stalled')?.reason).toBe('DigestMismatch');
  origin.route(path, { body: disk.bytes });
  await changed(manifest, asking(`${origin.url}/another.qcow2`, another.sha256));
  await house.until(
    'image',
    (image) => image.status.artifacts?.[0]?.digest === `sha256:${disk.sha256}`,
    'the right bytes',
  );
  await house.remove('image.yaml', 'image');
});
