import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import { OwnSites, readSites } from '../../../src/cli/own-sites.ts';
import type { Draft, EventNote, Resource } from '../../../src/stores/store.ts';
import { HeldClock, settled } from '../../support/clock.ts';
import { TestLog } from '../stores/support.ts';

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

describe('the sites of a controller, where the API server refuses one', () => {
  const site = (name: string): Draft => ({
    apiVersion: 'imageproxy.dev/v1beta1',
    kind: 'ImageSite',
    metadata: { name },
    spec: { directory: { path: `/srv/${name}` } },
  });
  let clock: HeldClock;
  let refusals: Map<string, Failure>;
  let applied: string[];
  let events: [string, EventNote][];
  let log: TestLog;
  let own: OwnSites;
  let stop: AbortController;

  beforeEach(() => {
    clock = new HeldClock();
    refusals = new Map();
    applied = [];
    events = [];
    log = new TestLog();
    stop = new AbortController();
    const store = {
      apply: <T extends Resource>({ metadata }: Draft): Promise<T> => {
        const refusal = refusals.get(metadata.name);
        if (refusal !== undefined) return Promise.reject(refusal);
        applied.push(metadata.name);
        return Promise.resolve({ metadata } as T);
      },
      get: <T extends Resource>(_kind: string, { name }: { name: string }): T | undefined =>
        name === 'new' ? undefined : ({ kind: 'ImageSite', metadata: { name } } as T),
      event: ({ metadata }: Resource, note: EventNote): void => void events.push([metadata.name, note]),
    };
    own = new OwnSites({ sites: ['one', 'two', 'new'].map(site), store, log, clock, signal: stop.signal });
  });
  afterEach(() => stop.abort());

  const minute = async () => {
    clock.advance(60_000);
    await settled();
  };

  test('the others are made, and what is wrong is told once: by the log, an event and the readiness', async () => {
    refusals.set('one', new Failure('InvalidSpec', 'cannot apply ImageSite one: the cloud cannot be changed'));
    refusals.set('new', new Failure('ServerError', 'cannot apply ImageSite new: the webhook does not answer'));
    await own.apply();
    expect(applied).toEqual(['two']);
    expect(own.fault).toBe(
      'cannot apply ImageSite one: the cloud cannot be changed; cannot apply ImageSite new: the webhook does not answer',
    );
    const told = ['one', { type: 'Warning', reason: 'InvalidSpec', message: refusals.get('one')?.message }];
    expect(events).toEqual([told]);
    await minute();
    expect(events).toEqual([told]);
  });

  test('it is tried again until it is taken, and then no more', async () => {
    refusals.set('one', new Failure('ServerError', 'cannot apply ImageSite one: the webhook does not answer'));
    await own.apply();
    await minute();
    expect(own.fault).toContain('webhook');
    refusals.clear();
    await minute();
    expect(own.fault).toBeUndefined();
    await minute();
    expect(applied).toEqual(['two', 'new', 'one']);
  });

  test('a right that is missing ends the start', async () => {
    refusals.set('one', new Failure('Forbidden', 'cannot apply ImageSite one: may not patch'));
    await expect(own.apply()).rejects.toMatchObject({ reason: 'Forbidden' });
  });
});
