import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { readSites } from '../../../src/cli/own-sites.ts';

const SITE = `apiVersion: imageproxy.dev/v1beta1
kind: ImageSite
metadata: { name: shelf, labels: { region: east } }
spec: { directory: { path: /srv/images } }
`;

describe('the sites that a controller makes', () => {
  let folder: string;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'imageproxy-sites-'));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));
  const write = (name: string, text: string) => writeFileSync(join(folder, name), text);

  test('are read as they are written: no default becomes ours', async () => {
    write('shelf.yaml', SITE);
    await expect(readSites(folder)).resolves.toEqual([
      {
        apiVersion: 'imageproxy.dev/v1beta1',
        kind: 'ImageSite',
        metadata: { name: 'shelf', labels: { region: 'east' } },
        spec: { directory: { path: '/srv/images' } },
      },
    ]);
  });

  test('are read once where a ConfigMap is mounted, which is a folder of links', async () => {
    mkdirSync(join(folder, '..2026_01_01'));
    write(join('..2026_01_01', 'shelf.yaml'), SITE);
    symlinkSync('..2026_01_01', join(folder, '..data'));
    symlinkSync(join('..data', 'shelf.yaml'), join(folder, 'shelf.yaml'));
    await expect(readSites(folder)).resolves.toHaveLength(1);
  });

  test.each([
    ['an unknown field', SITE.replace('directory:', 'directry:'), /shelf\.yaml:\d+: spec.*directory/],
    ['a wrong value', SITE.replace('/srv/images', 'srv'), /shelf\.yaml:\d+: spec\.directory\.path/],
    [
      'another kind',
      'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: b}\n',
      /ConfigMap.*only ImageSites/,
    ],
    ['no YAML at all', 'a: [', /shelf\.yaml/],
  ])('are refused with %s, by file and field', async (_what, text, message) => {
    write('shelf.yaml', text);
    await expect(readSites(folder)).rejects.toThrow(message);
  });

  test('are none in a folder without any, and an error where there is no folder', async () => {
    await expect(readSites(folder)).resolves.toEqual([]);
    await expect(readSites(join(folder, 'nowhere'))).rejects.toThrow('there is no file or folder');
  });
});
