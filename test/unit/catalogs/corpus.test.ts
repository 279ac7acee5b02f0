import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { CatalogFormat, Entry } from '../../../src/catalogs/catalog.ts';
import { readCatalog, recognise } from '../../../src/catalogs/index.ts';
import { request } from './reading.ts';

const FOLDER = join(import.meta.dirname, '../../fixtures/lists');

/** One line of what an entry is, to be compared by eye. */
function shown({ id, version, format, compression, arch, os, size, minRamMiB, urls }: Entry): string {
  const words = [id, version ?? '', format ?? 'Auto', compression ?? 'Auto', arch ?? ''];
  const system = `${os.distro ?? os.name ?? ''} ${os.version ?? ''}`.trim();
  return [...words, system, size ?? 0, minRamMiB ?? 0, urls[0]?.replace(/^.*\//, '')].join(' | ');
}

/** Lists made here, each as one of the publishers writes them: their keys, their order, their line ends, their dirt. */
describe('lists as their publishers write them', () => {
  it.each<[string, CatalogFormat, string, string[], string[], string[]]>([
    [
      'appdb-vo.json',
      'HEPiX',
      '2016-04-01',
      [
        '11111111-1111-4111-8111-000000000001 | 20160301 | Ova | Auto | x86_64 | centos 7.2 | 1073741824 | 512 | CentOS-7.2.ova',
        '11111111-1111-4111-8111-000000000002 | 20160302 | Ova | Auto | x86_64 | ubuntu 14.04 | 5368709120 | 512 | Ubuntu-14.04.ova',
        '11111111-1111-4111-8111-000000000003 | 1.2-rc1 | Qcow2 | Auto | i686 | scientific-linux 6.7 | 2147483648 | 4096 | sl-6.7.qcow2',
      ],
      [],
      [
        'the list says that it is at https://vmcaster.example.org/store/vo/vo.example.org/image.list, another place than the one that was read',
      ],
    ],
    [
      'vmcaster.json',
      'HEPiX',
      '2014-05-02',
      ['33333333-3333-4333-8333-000000000001 | 0.0.1 | Raw | Gzip | x86_64 | Linux SL 6.0 | 12 | 0 | x.raw.gz'],
      [],
      ['the list says that it is at http://lists.example.org/image.list, another place than the one that was read'],
    ],
    [
      'cernvm.json',
      'HEPiX',
      '2013-10-14',
      [
        '44444444-4444-4444-8444-000000000000 | 2.7.2-1-2 | Raw | Gzip | x86_64 | Linux SL 5.5 | 300000000 | 0 | vm-batch-node-2.7.2-1-2-x86_64.hdd.gz',
        '44444444-4444-4444-8444-000000000001 | 2.7.2-1-2 | Vdi | Gzip | i686 | Linux SL 5.5 | 300000001 | 0 | vm-basic-2.7.2-1-2-x86.vdi.gz',
        '44444444-4444-4444-8444-000000000002 | 2.7.2-1-2 | Vhd | Gzip | x86_64 | Linux SL 5.5 | 300000002 | 0 | vm-basic-2.7.2-1-2-x86_64.vhd.gz',
        '44444444-4444-4444-8444-000000000003 | 2.7.2-1-2 | Vhd | Gzip | x86_64 | Linux SL 5.5 | 300000003 | 0 | vm-basic-2.7.2-1-2-x86_64.vpc.gz',
        '44444444-4444-4444-8444-000000000004 | 2.7.2-1-2 | Raw | Gzip | x86_64 | Linux SL 5.5 | 300000004 | 0 | vm-basic-2.7.2-1-2-x86_64.ext3.gz',
      ],
      ['44444444-4444-4444-8444-000000000005 NotSupported'],
      [
        'the list says that it is at http://vm.example.org/releases/image.list, another place than the one that was read',
      ],
    ],
    [
      'ubuntu.json',
      'Simplestreams',
      '2024-07-01',
      [
        ['amd64', 'x86_64'],
        ['arm64', 'aarch64'],
        ['ppc64el', 'ppc64le'],
        ['riscv64', 'riscv64'],
        ['s390x', 's390x'],
      ].map(
        ([name, arch]) =>
          `com.ubuntu.cloud:server:24.04:${name} | 20240606.1 | Auto | Auto | ${arch} | ubuntu 24.04 | 600000000 | 0 | ubuntu-24.04-server-cloudimg-${name}.img`,
      ),
      [],
      [],
    ],
    [
      'lxd.json',
      'Simplestreams',
      '2024-12-01',
      ['alpine:3.20:amd64:default | 20241120_07:42 | Qcow2 | Auto | x86_64 | alpine 3.20 | 200 | 0 | disk.qcow2'],
      [],
      ['products without a disk image, which are left out: 1'],
    ],
    [
      'fedora-CHECKSUM',
      'ChecksumFile',
      '2024-12-01',
      [
        'Fedora-Cloud-Base-Generic-41-1.4.x86_64.qcow2 |  | Qcow2 | Auto | x86_64 |  | 468647936 | 0 | Fedora-Cloud-Base-Generic-41-1.4.x86_64.qcow2',
        'Fedora-Cloud-Base-UEFI-UKI-41-1.4.x86_64.raw.xz |  | Raw | Xz | x86_64 |  | 400 | 0 | Fedora-Cloud-Base-UEFI-UKI-41-1.4.x86_64.raw.xz',
      ],
      [],
      [],
    ],
    [
      'debian-SHA512SUMS',
      'ChecksumFile',
      '2025-12-01',
      [
        'debian-13-generic-amd64.qcow2 |  | Qcow2 | Auto | x86_64 |  | 0 | 0 | debian-13-generic-amd64.qcow2',
        'debian-13-generic-amd64.raw |  | Raw | Auto | x86_64 |  | 0 | 0 | debian-13-generic-amd64.raw',
        'debian-13-genericcloud-arm64.qcow2 |  | Qcow2 | Auto | aarch64 |  | 0 | 0 | debian-13-genericcloud-arm64.qcow2',
      ],
      [],
      [],
    ],
    [
      'freebsd-CHECKSUM.SHA512',
      'ChecksumFile',
      '2024-12-01',
      [
        'FreeBSD-14.1-RELEASE-amd64.qcow2.xz |  | Qcow2 | Xz | x86_64 |  | 0 | 0 | FreeBSD-14.1-RELEASE-amd64.qcow2.xz',
        'FreeBSD-14.1-RELEASE-amd64-zfs.vhd.xz |  | Vhd | Xz | x86_64 |  | 0 | 0 | FreeBSD-14.1-RELEASE-amd64-zfs.vhd.xz',
        'FreeBSD-14.1-RELEASE-arm64-aarch64.raw.xz |  | Raw | Xz | aarch64 |  | 0 | 0 | FreeBSD-14.1-RELEASE-arm64-aarch64.raw.xz',
      ],
      [],
      [],
    ],
  ])('%s', async (name, format, date, entries, skipped, warnings) => {
    const document = readFileSync(join(FOLDER, name));
    const url = `https://publisher.example.org/${name}`;
    const catalog = await readCatalog(format, request(url, { documents: { [url]: document }, at: Date.parse(date) }));
    expect(recognise(document)).toBe(format);
    expect(catalog.entries.map(shown)).toEqual(entries);
    expect(catalog.skipped.map(({ id, reason }) => `${id} ${reason}`)).toEqual(skipped);
    expect(catalog.warnings).toEqual(warnings);
  });
});
