import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { kstatus, type KStatusObject } from '../../../src/api/conditions.ts';
import { ext4 } from '../../support/disks.ts';
import { directorySite, House, vmimage } from '../../support/house.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';
import { installed } from '../images/workspace.ts';

const run = promisify(execFile);
const FOLDER = join(import.meta.dirname, '..', '..', '..', 'deploy', 'argocd');
const SCRIPT = readFileSync(join(FOLDER, 'health.lua'), 'utf8');

interface Health {
  status: string;
  message: string;
}

/** A JSON value as Lua writes it. */
function luaOf(value: unknown): string {
  if (value === null || value === undefined) return 'nil';
  if (typeof value === 'string')
    return `"${[...Buffer.from(value)].map((byte) => `\\${String(byte).padStart(3, '0')}`).join('')}"`;
  if (Array.isArray(value)) return `{${value.map(luaOf).join(',')}}`;
  if (typeof value !== 'object') return JSON.stringify(value);
  return `{${Object.entries(value)
    .map(([key, each]) => `[${luaOf(key)}]=${luaOf(each)}`)
    .join(',')}}`;
}

/** Argo CD runs scripts of Lua 5.1 with the object as `obj`; many objects are one run here. */
async function healthOf(...objects: object[]): Promise<Health[]> {
  const program = [
    `local function health(obj)\n${SCRIPT}\nend`,
    `for _, obj in ipairs(${luaOf(objects)}) do`,
    '  local found = health(obj)',
    '  io.write(found.status, "\\t", (found.message:gsub("%s", " ")), "\\n")',
    'end',
  ].join('\n');
  const lua = run('lua5.1', ['-']);
  lua.child.stdin?.end(program);
  const { stdout } = await lua;
  return stdout
    .trimEnd()
    .split('\n')
    .map((line) => {
      const [status = '', message = ''] = line.split('\t');
      return { status, message };
    });
}

describe.skipIf(!installed('lua5.1'))('the health that Argo CD shows', () => {
  let house: House;
  let origin: Origin;

  beforeAll(async () => {
    [house, origin] = [await new House().start(), await startOrigin()];
  });
  afterAll(async () => {
    await house?.close();
    await origin?.close();
  });

  test('of images and sites as they come, go wrong and rest', async () => {
    const disk = ext4('argo');
    origin.route('/disk', { body: disk.bytes });
    const image = (name: string, sha256: string, more: object = {}) =>
      vmimage(name, {
        source: { http: { urls: [`${origin.url}/disk`] } },
        checksums: { sha256 },
        sites: [{ name: 'shelf' }],
        ...more,
      });
    await house.write('site.yaml', directorySite('shelf', house.shelf));
    await house.write('good.yaml', image('good', disk.sha256));
    await house.write('wrong.yaml', image('wrong', '0'.repeat(64)));
    await house.write('waits.yaml', image('waits', disk.sha256, { sites: [{ name: 'nowhere' }] }));
    const good = await house.ready('good');
    const wrong = await house.stalled('wrong');
    const waits = await house.until(
      'waits',
      ({ status }) => status.phase === 'Pending' && status.observedGeneration === 1,
    );
    const site = await house.untilSite('shelf', (each) => kstatus(each).status === 'Current');
    const edited = { ...good, metadata: { ...good.metadata, generation: good.metadata.generation + 1 } };
    const going = { ...good, metadata: { ...good.metadata, deletionTimestamp: '2026-01-01T00:00:00Z' } };
    const resting = { ...good, spec: { ...good.spec, suspend: true } };
    const fresh = { ...good, status: { observedGeneration: -1 } };
    const health = await healthOf(good, wrong, waits, site, edited, going, resting, fresh);
    expect(health.map(({ status }) => status)).toEqual([
      'Healthy',
      'Degraded',
      'Progressing',
      'Healthy',
      'Progressing',
      'Progressing',
      'Suspended',
      'Progressing',
    ]);
    expect(health[0]?.message).toBe('registered at shelf');
    expect(health[1]?.message).toContain('sha256');
    expect(health[2]?.message).toContain('nowhere');
  });

  test('says the same as kstatus does, whatever the status', async () => {
    const condition = (type: string, status: string, message: string) => ({
      type,
      status,
      reason: 'Reason',
      message,
      lastTransitionTime: '2026-01-01T00:00:00Z',
    });
    // What a controller of ours writes: what is not Ready is either Reconciling or Stalled (test/support/kstatus.ts).
    const verdicts: (readonly [string, string])[][] = [
      [['Ready', 'True']],
      [
        ['Ready', 'False'],
        ['Reconciling', 'True'],
      ],
      [
        ['Ready', 'Unknown'],
        ['Reconciling', 'True'],
      ],
      [
        ['Stalled', 'True'],
        ['Ready', 'False'],
      ],
    ];
    const arbitrary = fc
      .record({
        observedGeneration: fc.integer({ min: -1, max: 2 }),
        generation: fc.integer({ min: 1, max: 2 }),
        deleting: fc.nat(5).map((dice) => dice === 0),
        verdict: fc.constantFrom(...verdicts),
        message: fc.string({ unit: 'binary' }),
      })
      .map(({ observedGeneration, generation, deleting, verdict, message }) => ({
        metadata: { generation, ...(deleting ? { deletionTimestamp: '2026-01-01T00:00:00Z' } : {}) },
        status: { observedGeneration, conditions: verdict.map(([type, status]) => condition(type, status, message)) },
      })) as unknown as fc.Arbitrary<KStatusObject>;
    const objects = fc.sample(arbitrary, 500);
    const health = await healthOf(...objects);
    const meaning = { Healthy: 'Current', Degraded: 'Failed', Progressing: 'InProgress' } as Record<string, string>;
    expect(health).toHaveLength(objects.length);
    for (const [index, object] of objects.entries()) {
      const expected = kstatus(object).status;
      const said = meaning[health[index]?.status ?? ''];
      expect(said, JSON.stringify(object)).toBe(expected === 'Terminating' ? 'InProgress' : expected);
    }
    expect(new Set(health.map(({ status }) => status)).size).toBe(3);
  });

  test('is the script in the patch of the ConfigMap', () => {
    const { data } = parse(readFileSync(join(FOLDER, 'argocd-cm.yaml'), 'utf8')) as { data: Record<string, string> };
    const customizations = parse(data['resource.customizations'] ?? '') as Record<string, Record<string, string>>;
    expect(customizations).toEqual({ 'imageproxy.dev/*': { 'health.lua': SCRIPT } });
  });
});
