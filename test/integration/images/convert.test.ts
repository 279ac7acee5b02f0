import { existsSync, readdirSync, statSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Format, interchangeable } from '../../../src/images/format.ts';
import type { Images, ToolLimits } from '../../../src/images/images.ts';
import { WAYS } from './ways.ts';
import { installed, never, refusal, Workspace } from './workspace.ts';

const MIB = 2 ** 20;

const able = installed('qemu-img', 'mke2fs', 'prlimit', 'setpriv', 'tar');

describe.skipIf(!able).each(WAYS)('conversion %s', (_where, wayIn) => {
  const work = new Workspace();
  const way = wayIn(work);
  let images: Images;
  const limits: ToolLimits = { maxOutputBytes: 64 * MIB };
  let outputs = 0;

  function convert(
    name: string,
    fromFormat: Format,
    toFormat: Format,
    more: Partial<Parameters<Images['convert']>[0]> = {},
    signal = never,
  ) {
    const to = work.path(`out-${++outputs}`);
    return { to, done: images.convert({ from: work.path(name), fromFormat, to, toFormat, limits, ...more }, signal) };
  }
  /** Whether both hold the same disk, as qemu-img sees it. */
  const sameDisk = (driver: string, path: string) =>
    work.run('qemu-img', 'compare', '-f', 'raw', '-F', driver, 'disk.raw', path);
  const left = () =>
    readdirSync(work.folder).filter((name) => name.startsWith('.convert-') || name === `out-${outputs}`);

  beforeAll(async () => {
    images = await way.images();
    work.makeDisk('disk.raw');
    work.run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', 'disk.raw', 'disk.qcow2');
    work.run(
      'qemu-img',
      'convert',
      '-f',
      'raw',
      '-O',
      'vmdk',
      '-o',
      'subformat=streamOptimized',
      'disk.raw',
      'disk.vmdk',
    );
    const ovf = '<Envelope><References><File href="disk.vmdk"/></References></Envelope>';
    work.write('vm.ovf', `<?xml version="1.0"?>${ovf}`);
    work.run('tar', '--format=ustar', '-cf', 'vm.ova', 'vm.ovf', 'disk.vmdk');
  });
  afterAll(async () => {
    await way.stop();
    work.clean();
  });

  it.each<[Format, string]>([
    ['Raw', 'raw'],
    ['Vmdk', 'vmdk'],
    ['Vdi', 'vdi'],
    ['Vhd', 'vpc'],
    ['Vhdx', 'vhdx'],
  ])(
    'of qcow2 to %s keeps the disk, its size and its holes, and our own inspection accepts it',
    async (format, driver) => {
      const seen: [number, number | undefined][] = [];
      const { to, done } = convert('disk.qcow2', 'Qcow2', format, {
        progress: (bytes, total) => seen.push([bytes, total]),
        digests: ['sha512'],
      });
      const produced = await done;
      expect(produced).toEqual({
        size: statSync(to).size,
        digests: { sha256: work.sha256(`out-${outputs}`), sha512: expect.stringMatching(/^[0-9a-f]{128}$/) },
      });
      sameDisk(driver, to);
      expect(await images.inspect(to, { format, role: 'Disk', checksumDeclared: true }, never)).toMatchObject({
        format,
        virtualSize: 16 * MIB,
      });
      expect(statSync(to).blocks * 512).toBeLessThan(10 * MIB);
      expect(seen.at(-1)).toEqual([16 * MIB, 16 * MIB]);
      expect(left()).toEqual([`out-${outputs}`]);
    },
  );

  it('of raw to qcow2 and back gives the very bytes', async () => {
    const there = convert('disk.raw', 'Raw', 'Qcow2');
    await there.done;
    const back = convert(`out-${outputs}`, 'Qcow2', 'Raw');
    expect((await back.done).digests.sha256).toBe(work.sha256('disk.raw'));
  });

  it('of an OVA reads the disk where it lies in the archive', async () => {
    expect(
      await images.inspect(work.path('vm.ova'), { format: 'Auto', role: 'Disk', checksumDeclared: false }, never),
    ).toEqual({
      format: 'Ova',
      size: statSync(work.path('vm.ova')).size,
      virtualSize: 16 * MIB,
    });
    expect((await convert('vm.ova', 'Ova', 'Raw').done).digests.sha256).toBe(work.sha256('disk.raw'));
    const { to, done } = convert('vm.ova', 'Ova', 'Qcow2');
    await done;
    sameDisk('qcow2', to);
    expect((await convert('vm.ova', 'Ova', 'Vmdk').done).digests.sha256).toBe(work.sha256('disk.vmdk'));
  });

  it('between Iso and Raw is a copy, to anything else it is refused', async () => {
    work.write('cd.iso', Buffer.alloc(0x8001), 'CD001', Buffer.alloc(MIB));
    expect((await convert('cd.iso', 'Iso', 'Raw').done).digests.sha256).toBe(work.sha256('cd.iso'));
    expect((await refusal(convert('cd.iso', 'Iso', 'Qcow2').done)).reason).toBe('NotSupported');
    expect((await refusal(convert('disk.qcow2', 'Qcow2', 'Ova').done)).reason).toBe('NotSupported');
    expect([interchangeable('Iso', 'Raw'), interchangeable('Raw', 'Raw'), interchangeable('Raw', 'Qcow2')]).toEqual([
      true,
      true,
      false,
    ]);
  });

  it('never opens what its own parser refuses', async () => {
    work.run('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', 'disk.raw', '-F', 'raw', 'backing.qcow2');
    const { done } = convert('backing.qcow2', 'Qcow2', 'Raw');
    expect((await refusal(done)).reason).toBe('UnsafeImage');
    expect(left()).toEqual([]);
  });

  it('is not misled by a file name that qemu would take for options or a protocol', async () => {
    work.run('cp', 'disk.qcow2', 'nbd:x,format=raw.qcow2');
    expect((await convert('nbd:x,format=raw.qcow2', 'Qcow2', 'Raw').done).digests.sha256).toBe(work.sha256('disk.raw'));
  });

  it.each<[string, Format, Partial<ToolLimits>, string, RegExp]>([
    ['a raw disk larger than allowed', 'Raw', { maxOutputBytes: 8 * MIB }, 'TooLarge', /16777216 bytes/],
    ['a file larger than was set aside', 'Vmdk', { maxOutputBytes: MIB }, 'ResourceLimit', /1048576 bytes set aside/],
    ['too little memory', 'Vmdk', { addressSpaceBytes: 40 * MIB }, 'ResourceLimit', /40 MiB of memory/],
  ])(
    'that meets a limit (%s) is a failure of resources, and leaves nothing',
    async (_name, format, tight, reason, message) => {
      const failure = await refusal(convert('disk.qcow2', 'Qcow2', format, { limits: { ...limits, ...tight } }).done);
      expect(failure.message).toMatch(message);
      expect(failure.reason).toBe(reason);
      expect(left()).toEqual([]);
    },
  );

  it('that is aborted leaves nothing', async () => {
    const abort = new AbortController();
    const { done } = convert('disk.qcow2', 'Qcow2', 'Raw', { progress: () => abort.abort() }, abort.signal);
    expect((await refusal(done)).reason).toBe('Aborted');
    expect(left()).toEqual([]);
  });

  it('is named with the version of the tool that does it', async () => {
    expect(await images.transformId({ fromFormat: 'Qcow2', toFormat: 'Raw' })).toMatch(
      /^qcow2-to-raw\/qemu-img-\d+\.\d+\.\d+$/,
    );
    expect(await images.transformId({ fromFormat: 'Iso', toFormat: 'Raw' })).toBe('iso-to-raw/copy');
    expect(await images.transformId({ compression: 'Gzip' })).toMatch(/^gzip-to-none\/zlib-\d/);
    for (const [compression, tool] of [
      ['Xz', 'xz'],
      ['Zstd', 'zstd'],
      ['Bzip2', 'bzip2'],
    ] as const) {
      expect(await images.transformId({ compression })).toMatch(new RegExp(`-to-none/${tool}-\\d+\\.\\d+\\.\\d+$`));
    }
  });

  it('tells which tools are missing, with the packages that bring them', async () => {
    expect(await images.missingTools()).toEqual([]);
    const none = '/nonexistent/tool';
    const lacking = await way.images({ xz: none, zstd: none, bzip2: none, prlimit: none });
    expect(await lacking.missingTools()).toEqual([
      { tool: 'xz', package: 'xz-utils' },
      { tool: 'zstd', package: 'zstd' },
      { tool: 'bzip2', package: 'bzip2' },
      { tool: 'prlimit', package: 'util-linux' },
    ]);
    const job = {
      from: work.path('disk.qcow2'),
      fromFormat: 'Qcow2',
      to: work.path('never'),
      toFormat: 'Raw',
      limits,
    } as const;
    expect((await refusal(lacking.convert(job, never))).message).toMatch(
      /prlimit is not installed.*apt-get install util-linux/,
    );
    expect(existsSync(work.path('never'))).toBe(false);
  });
});
