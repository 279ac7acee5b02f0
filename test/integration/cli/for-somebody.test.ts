import { randomUUID } from 'node:crypto';
import { readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type Disk, ext4 } from '../../support/disks.ts';
import { hepixList, inDays } from '../../support/hepix.ts';
import { condition, directorySite, House, isTrue, unsignedSubscription } from '../../support/house.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';
import { COMPILED, imageproxy, type Outcome, Program } from './program.ts';

/** What commands say of an object that only a person can help: at once, whatever time they have. */
let origin: Origin;
let house: House;

beforeEach(async () => {
  origin = await startOrigin();
  house = await new House().start();
  await house.write('shelf.yaml', directorySite('shelf', house.shelf));
});

afterEach(async () => {
  await Program.killAll();
  await house.close();
  await origin.close();
});

const run = (...words: string[]): Promise<Outcome> => imageproxy(words, { ...COMPILED, IMAGEPROXY_STATE: house.state });
const failed = (message: RegExp) => ({ code: 1, out: '', err: expect.stringMatching(message) as string });
const said = (command: string) => [...command.split(' '), '--timeout', '60m'];

describe('an image that waits for a person', () => {
  const [one, other] = [ext4('one'), ext4('other')];
  const nameOf = ({ sha256 }: Disk) => `sha256-${sha256.slice(0, 32)}`;
  const a = nameOf(one);
  const register = (disk: Disk) =>
    run('register', `${origin.url}/${disk.sha256}`, '--sha256', disk.sha256, '--site', 'shelf', '--timeout', '60m');

  beforeEach(async () => {
    for (const disk of [one, other]) {
      origin.route(`/${disk.sha256}`, { body: disk.bytes });
      expect(await register(disk)).toMatchObject({ code: 0 });
    }
  });

  /** Somebody removes what the site has of it. */
  function lose(disk: Disk): void {
    const id = house.row(nameOf(disk), 'shelf')?.imageID ?? 'none';
    for (const folder of [house.shelf, join(house.shelf, '.records')])
      for (const name of readdirSync(folder)) if (name.startsWith(id)) rmSync(join(folder, name), { recursive: true });
  }

  test('because all is gone at once is told so by each command, with the annotation that lets it come back', async () => {
    for (const disk of [one, other]) lose(disk);
    const why =
      / 2 of 2 images are gone from shelf, .* then annotate the ImageSite with imageproxy\.dev\/confirm-loss: "(\S+)"/;
    const asked = await run(...said(`reconcile vmimg/${a}`));
    expect(asked).toEqual(failed(/VMImage \S+ waits for somebody to act: shelf: /));
    expect(asked.err).toMatch(why);
    const waited = await run(...said(`wait vmimg/${a}`));
    expect(waited).toEqual(failed(/VMImage \S+ waits for somebody to act: shelf: /));
    expect(waited.err).toMatch(why);
    const { out: page } = await run('describe', `vmimg/${a}`);
    expect(page).toMatch(/confirm-loss: "[^]*What to do next:\n *When that is done: imageproxy reconcile vmimg/);
    expect(page).not.toContain('imageproxy wait');
    const registered = await register(one);
    expect(registered).toEqual(failed(/VMImage \S+ is not registered: shelf: .* \(MassLoss\)\n$/));
    expect(registered.err).toMatch(why);
    // As it was said.
    const word = why.exec(registered.err)?.[1] ?? '';
    await house.store.annotate('ImageSite', { name: 'shelf' }, { 'imageproxy.dev/confirm-loss': word });
    expect(await run(...said(`reconcile vmimg/${a}`))).toMatchObject({ code: 0 });
    expect(await register(one)).toMatchObject({ code: 0 });
  });

  test('because it is removed again and again is told so, and comes back when somebody asks', async () => {
    for (let time = 1; time <= 4; time++) {
      lose(one);
      await house.ask(a, `look ${time}`);
      if (time === 4) break;
      await house.until(a, (now) => now.status.sites?.[0]?.losses?.length === time && isTrue(now, 'Ready'));
    }
    await house.until(a, (now) => condition(now, 'Ready')?.reason === 'LossLimit');
    expect(await run(...said(`wait vmimg/${a}`))).toEqual(
      failed(/ waits for somebody to act: shelf: .* for the 4th time in a day: .*\(imageproxy reconcile\)\n$/),
    );
    expect(await run(...said(`reconcile vmimg/${a}`))).toMatchObject({ code: 0, err: '' });
    expect(await run(...said(`wait vmimg/${a}`))).toMatchObject({ code: 0 });
  });

  test('because its site is another place is told so, with the annotation, whether it is there already or not', async () => {
    writeFileSync(join(house.shelf, '.imageproxy-site.json'), JSON.stringify({ identity: randomUUID() }));
    await house.store.annotate('ImageSite', { name: 'shelf' }, { 'imageproxy.dev/requestedAt': '1' });
    await house.untilSite('shelf', (now) => condition(now, 'Ready')?.reason === 'IdentityChanged');
    const why = /annotate the ImageSite with imageproxy\.dev\/confirm-identity: "/;
    const asked = await run(...said(`reconcile vmimg/${a}`));
    expect(asked).toEqual(failed(/VMImage \S+ is as it was: shelf: /));
    expect(asked.err).toMatch(why);
    expect(await run(...said('wait imgsite/shelf'))).toEqual(failed(why));
    const third = ext4('third');
    origin.route(`/${third.sha256}`, { body: third.bytes });
    const registered = await register(third);
    expect(registered).toEqual(failed(/ImageSite shelf is not ready: .* \(IdentityChanged\)\n$/));
    expect(registered.err).toMatch(why);
    for (const command of ['wait', 'reconcile']) {
      const outcome = await run(...said(`${command} vmimg/${nameOf(third)}`));
      expect(outcome).toEqual(failed(/VMImage \S+ waits for somebody to act: shelf: /));
      expect(outcome.err).toMatch(why);
    }
  });
});

describe('reconcile of a subscription says at once, and of this very reading,', () => {
  const list = randomUUID();
  const ids = Array.from({ length: 12 }, () => randomUUID());
  const disk = ext4('listed');
  let version = 0;

  function publish(listed: readonly string[], more: { expires?: string } = {}): void {
    version += 1;
    const extra = { 'hv:format': 'raw' };
    const images = listed.map((id) => ({ id, title: id, url: `${origin.url}/disk`, bytes: disk.bytes, more: extra }));
    const body = Buffer.from(hepixList({ id: list, version: String(version), images, ...more }));
    origin.route('/image.list', { body, etag: `"${version}"` });
  }

  const subscribe = (more: Record<string, unknown> = {}) =>
    house.write('egi.yaml', unsignedSubscription(`${origin.url}/image.list`, more));
  const reconcile = () => run(...said('reconcile imgsub/egi'));

  beforeEach(async () => {
    origin.route('/disk', { body: disk.bytes });
    publish(ids);
    await subscribe();
    await house.untilSubscription('egi', (each) => isTrue(each, 'Ready'));
  });

  test('that the list is past its date', async () => {
    publish(ids, { expires: inDays(-0.5) });
    expect(await reconcile()).toEqual(failed(/ImageSubscription default\/egi waits for somebody to act: .*expired/));
    publish(ids);
    expect(await reconcile()).toMatchObject({ code: 0, err: '' });
  });

  test('that the list is not accepted', async () => {
    version = -1;
    publish(ids);
    expect(await reconcile()).toEqual(failed(/ImageSubscription default\/egi is stalled: .*older/));
    version = 10;
    publish(ids);
    expect(await reconcile()).toMatchObject({ code: 0, err: '' });
  });

  test('that many images have gone from it, and what confirms that', async () => {
    publish([]);
    expect(await reconcile()).toEqual(
      failed(/ImageSubscription default\/egi waits for somebody to act: .*imageproxy confirm-removal/),
    );
    expect(await run(...said('wait imgsub/egi'))).toEqual(failed(/waits for somebody to act: /));
    expect(await run(...said('confirm-removal imgsub/egi'))).toMatchObject({ code: 0 });
    expect(await reconcile()).toMatchObject({ code: 0, err: '' });
  });

  test('that a Secret is missing', async () => {
    await subscribe({ secretRef: { name: 'origin' } });
    expect(await reconcile()).toEqual(
      failed(/ImageSubscription default\/egi waits for somebody to act: .*Secret.*origin/),
    );
  });

  test('or when its time is over, that it has not ended', async () => {
    origin.route('/image.list', { silent: true });
    expect(await run('reconcile', 'imgsub/egi', '--timeout', '2s')).toMatchObject({
      code: 4,
      err: expect.stringMatching(
        / is not settled after 2 s: the look has not ended; before it, version \d+ of /,
      ) as string,
    });
    // Before anything was seen of it, too.
    expect(await run('reconcile', 'imgsub/egi', '--timeout', '1ms')).toMatchObject({
      code: 4,
      err: expect.stringMatching(/: the look has not ended; before it, version \d+ of /) as string,
    });
  });

  test('that it is suspended', async () => {
    await subscribe({ suspend: true });
    expect(await reconcile()).toEqual({
      code: 0,
      out: 'imagesubscription.imageproxy.dev/egi reconciled: it is suspended, set spec.suspend: false to go on\n',
      err: '',
    });
  });
});
