import { existsSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ext4 } from '../../support/disks.ts';
import { directorySite, House, vmimage } from '../../support/house.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';
import { COMPILED, type Outcome, Program } from './program.ts';

describe('delete where no process works on the state', () => {
  const disk = ext4('deleted');
  let house: House;
  let origin: Origin;

  beforeEach(async () => {
    origin = await startOrigin();
    origin.route('/a', { body: disk.bytes, etag: '"1"' });
    house = await new House().start();
    await house.write('shelf.yaml', directorySite('shelf', house.shelf));
    const source = { http: { urls: [`${origin.url}/a`] } };
    await house.write(
      'a.yaml',
      vmimage('a', { source, checksums: { sha256: disk.sha256 }, sites: [{ name: 'shelf' }] }),
    );
    await house.ready('a');
  });
  afterEach(async () => {
    await Program.killAll();
    await house.close();
    await origin.close();
  });

  const remove = (...more: string[]): Promise<Outcome> =>
    new Program(['delete', 'vmimg/a', '--state', house.state, ...more], COMPILED).done;

  it('tells of nothing that keeps the image while the site is only looked at for the first time', async () => {
    await house.stop();
    const { code, out, err } = await remove();
    expect({ code, out }).toEqual({ code: 0, out: 'vmimage.imageproxy.dev/a deleted\n' });
    expect(err).not.toMatch(/waits for|Ways out|not ready/);
  });

  it.each(['that it reads by itself', 'that the process before has told of'])(
    'names a second file of the object, %s, and touches nothing',
    async (known) => {
      const [first, second] = [join(house.manifests, 'a.yaml'), join(house.manifests, 'b.yaml')];
      const byItself = known === 'that it reads by itself';
      if (byItself) await house.stop();
      writeFileSync(second, await readFile(first, 'utf8'));
      if (!byItself) await house.store.scan();
      await house.stop();
      expect(await remove(...(byItself ? ['--manifests', house.manifests] : []))).toEqual({
        code: 1,
        out: '',
        err: `imageproxy: VMImage default/a is also in ${second}, which would make it again: take it out there, then delete it\n`,
      });
      expect([existsSync(first), existsSync(second)]).toEqual([true, true]);
    },
  );
});
