import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { asQcow2, type Disk, digested, ext4, gzipped } from '../../support/disks.ts';
import { condition, directorySite, House, vmimage, yamlOf } from '../../support/house.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';
import { unsafeDisks } from '../../support/unsafe-disks.ts';
import { COMPILED, imageproxy, Program } from '../cli/program.ts';
import { installed } from '../images/workspace.ts';

const able = installed('qemu-img', 'xz', 'mke2fs', 'tar', 'prlimit', 'setpriv');
const PATIENCE = { timeout: 120_000, interval: 50 };

/** The program, and beside it a real `imageproxy tool-runner`. */
describe.skipIf(!able)('with a tool runner', () => {
  let root: string;
  let house: House;
  let origin: Origin;
  let socket: string;
  let files: string;

  beforeEach(async () => {
    root = mkdtempSync(join(tmpdir(), 'imageproxy-tools-'));
    socket = join(root, 'tools.sock');
    house = new House();
    files = join(house.state, 'tools');
    origin = await startOrigin();
  });
  afterEach(async () => {
    // A program that a failed test has left waits for this.
    writeFileSync(join(root, 'go'), '');
    await house.close();
    await Program.killAll();
    await origin.close();
    rmSync(root, { recursive: true, force: true });
  });

  const startRunner = async (path = process.env['PATH'] ?? ''): Promise<Program> => {
    const words = ['tool-runner', '--socket', socket, '--files', files, '--log-format', 'json'];
    const runner = new Program(words, { ...COMPILED, PATH: path });
    await runner.says(/waits for work/);
    return runner;
  };
  const startHouse = () => house.start({ toolRunner: { socket, files } });
  const ask = async (name: string, disk: Disk, site = 'shelf') => {
    origin.route(`/${name}`, { body: disk.bytes });
    const source = { http: { urls: [`${origin.url}/${name}`] } };
    await house.write(
      `${name}.yaml`,
      vmimage(name, { source, checksums: { sha256: disk.sha256 }, sites: [{ name: site }] }),
    );
  };
  const makeSite = (acceptedFormats = ['Raw']) =>
    house.write('site.yaml', directorySite('shelf', house.shelf, { acceptedFormats }));
  /** The bytes at the directory site. */
  const published = (name: string): Buffer => {
    const id = house.row(name, 'shelf')?.imageID ?? 'no id';
    const file = readdirSync(house.shelf).find((each) => each.startsWith(id) && !each.endsWith('.json'));
    return readFileSync(join(house.shelf, file ?? id));
  };
  const lent = () =>
    ['in', 'out'].flatMap((side) => readdirSync(join(files, side)).map((name) => join(files, side, name)));
  const scratch = () => `${socket}.scratch`;
  const nothingLeft = () => vi.waitFor(() => expect([...lent(), ...house.leftIn('scratch')]).toEqual([]), PATIENCE);

  const xz = (raw: Disk) => digested(execFileSync('xz', ['-c'], { input: raw.bytes }));
  const ova = (raw: Disk): Disk => {
    const folder = mkdtempSync(join(root, 'ova-'));
    writeFileSync(join(folder, 'disk.raw'), raw.bytes);
    const vmdk = ['-O', 'vmdk', '-o', 'subformat=streamOptimized', 'disk.raw', 'disk.vmdk'];
    execFileSync('qemu-img', ['convert', '-f', 'raw', ...vmdk], { cwd: folder });
    writeFileSync(join(folder, 'vm.ovf'), '<Envelope><References><File href="disk.vmdk"/></References></Envelope>');
    execFileSync('tar', ['--format=ustar', '-cf', 'vm.ova', 'vm.ovf', 'disk.vmdk'], { cwd: folder });
    return digested(readFileSync(join(folder, 'vm.ova')));
  };

  it('what has to be unpacked or converted is, and nothing stays on loan', async () => {
    const runner = await startRunner();
    await startHouse();
    await makeSite();
    const raw = ext4('all');
    const forms = { 'as-qcow2': asQcow2(raw), 'as-gzip': gzipped(raw), 'as-xz': xz(asQcow2(raw)), 'as-ova': ova(raw) };
    for (const [name, disk] of Object.entries(forms)) await ask(name, disk);
    for (const name of Object.keys(forms)) {
      await house.ready(name);
      expect(digested(published(name)).sha256, name).toBe(raw.sha256);
    }
    expect(lent()).toEqual([]);
    expect(house.leftIn('scratch')).toEqual([]);
    expect(await runner.signal('SIGTERM')).toMatchObject({ code: 0 });
    expect(readdirSync(root).filter((name) => name.startsWith('tools.sock'))).toEqual([]);
  });

  it('an unsafe disk is refused in the words in which it is refused without one', async () => {
    const [unsafe] = unsafeDisks();
    if (unsafe === undefined) throw new Error('there are unsafe disks');
    const toldBy = async (start: () => Promise<unknown>): Promise<[unknown, unknown]> => {
      await start();
      await makeSite();
      await ask('unsafe', unsafe.disk);
      const { reason, message } = condition(await house.stalled('unsafe'), 'Ready') ?? {};
      return [reason, message?.replaceAll(origin.url, '')];
    };
    await startRunner();
    const apart = await toldBy(startHouse);
    await house.close();
    house = new House();
    expect(apart).toEqual(await toldBy(() => house.start()));
    expect(apart).toEqual([unsafe.reason, expect.stringMatching(unsafe.says)]);
  });

  it('that is not there, images wait for it, and those that need no program do not', async () => {
    await startHouse();
    await makeSite();
    const raw = ext4('raw');
    await ask('raw', raw);
    await ask('packed', gzipped(raw));
    await house.ready('raw');
    const image = await house.until('packed', ({ status }) => status.sites?.[0]?.reason === 'ToolRunnerUnavailable');
    expect(image.status.sites?.[0]?.message).toMatch(/^the tool runner does not answer \(ENOENT\); it is tried again/);
    expect(image.status.sites?.[0]?.nextAttemptTime).toBeDefined();
    await startRunner();
    await house.ask('packed', 'now');
    await house.ready('packed');
    expect(digested(published('packed')).sha256).toBe(raw.sha256);
  });

  describe('in the middle of its work', () => {
    /** A PATH on which xz waits until `go` is there. */
    const heldUp = (): string => {
      const folder = join(root, 'bin');
      mkdirSync(folder);
      const [real] = execFileSync('sh', ['-c', 'command -v xz'], { encoding: 'utf8' }).trim().split('\n');
      const script = [
        '#!/bin/sh',
        `test "$1" = --version && exec ${real} "$@"`,
        `: > ${root}/begun`,
        `while [ ! -e ${root}/go ]; do /bin/sleep 0.05; done`,
        `exec ${real} "$@"`,
      ];
      writeFileSync(join(folder, 'xz'), `${script.join('\n')}\n`);
      chmodSync(join(folder, 'xz'), 0o755);
      return `${folder}:${process.env['PATH']}`;
    };
    const begun = () => vi.waitFor(() => expect(existsSync(join(root, 'begun'))).toBe(true), PATIENCE);
    /** Command lines with the held-up program in them. */
    const programs = (): string[] =>
      readdirSync('/proc').flatMap((pid) => {
        if (!/^\d+$/.test(pid)) return [];
        try {
          const line = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
          return line.includes(join(root, 'bin', 'xz')) ? [line] : [];
        } catch {
          return [];
        }
      });
    const noPrograms = () => vi.waitFor(() => expect(programs()).toEqual([]), PATIENCE);
    const raw = ext4('held');

    it('killed, its programs die with it, and the image is Ready when there is another', async () => {
      const runner = await startRunner(heldUp());
      await startHouse();
      await makeSite();
      await ask('held', xz(raw));
      await begun();
      expect(programs()).not.toEqual([]);
      await runner.signal('SIGKILL');
      const image = await house.until('held', ({ status }) => status.sites?.[0]?.reason === 'ToolRunnerUnavailable');
      expect(image.status.sites?.[0]?.message).toMatch(/^the tool runner ended in the middle of the work|ECONNRESET/);
      await noPrograms();
      await nothingLeft();
      await startRunner();
      await house.ask('held', 'now');
      await house.ready('held');
      expect(digested(published('held')).sha256).toBe(raw.sha256);
      expect(readdirSync(scratch())).toEqual([]);
    });

    it('it ends the program of an image that is deleted', async () => {
      await startRunner(heldUp());
      await startHouse();
      await makeSite();
      await ask('held', xz(raw));
      await begun();
      await house.remove('held.yaml', 'held');
      await noPrograms();
      await nothingLeft();
    });

    it('it outlives a controller that is killed, and the next one takes away what is on loan', async () => {
      await startRunner(heldUp());
      const { sha256, bytes } = xz(raw);
      origin.route('/held', { body: bytes });
      const site = directorySite('shelf', house.shelf, { acceptedFormats: ['Raw'] });
      const source = { http: { urls: [`${origin.url}/held`] } };
      const image = vmimage('held', { source, checksums: { sha256 }, sites: [{ name: 'shelf' }] });
      writeFileSync(join(house.manifests, 'all.yaml'), `${yamlOf(site)}---\n${yamlOf(image)}`);
      const words = ['run', '--manifests', house.manifests, '--state', house.state, '--tool-runner', socket];
      const more = ['--telemetry', 'off', '--allow-network', '127.0.0.0/8'];
      const controller = new Program([...words, ...more], COMPILED);
      await begun();
      expect(lent()).toHaveLength(2);
      await controller.signal('SIGKILL');
      await noPrograms();
      expect(lent()).toHaveLength(2);
      writeFileSync(join(root, 'go'), '');
      const left = lent();
      const next = new Program([...words, ...more], COMPILED);
      await next.says(/imageproxy runs/);
      const ready = ['wait', 'vmimg/held', '--for=condition=Ready', '--state', house.state, '--timeout', '120s'];
      expect(await imageproxy(ready, COMPILED)).toMatchObject({ code: 0 });
      await vi.waitFor(() => expect(lent()).toEqual([]), PATIENCE);
      expect(left.filter((path) => existsSync(path))).toEqual([]);
      expect(await next.signal('SIGTERM')).toMatchObject({ code: 0 });
    });
  });

  it('whose files lie on another volume than the cache, the program does not start, and says what to do', async () => {
    const elsewhere = mkdtempSync('/dev/shm/imageproxy-tools-');
    try {
      expect(statSync(elsewhere).dev).not.toBe(statSync(house.root).dev);
      const words = ['run', '--manifests', house.manifests, '--state', house.state, '--telemetry', 'off'];
      const ended = await imageproxy([...words, '--tool-runner', socket, '--tool-files', elsewhere], COMPILED);
      expect(ended.code).toBe(1);
      expect(ended.err).toMatch(/--tool-files must name a folder on the file system of the cache/);
      expect(await imageproxy([...words, '--tool-files', elsewhere], COMPILED)).toMatchObject({
        code: 2,
        err: expect.stringMatching(/--tool-files: it is for a tool runner; give --tool-runner SOCKET too/),
      });
    } finally {
      rmSync(elsewhere, { recursive: true, force: true });
    }
  });
});
