import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { qcow2 } from '../../support/disks.ts';
import { FROM_SOURCES } from '../../support/from-sources.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';
import { COMPILED } from './program.ts';

const ROOT = join(import.meta.dirname, '..', '..', '..');
const PUBLISHER = 'https://cloud.debian.org/images/cloud/bookworm/latest';
const FILE = 'debian-12-nocloud-amd64.qcow2';

/** What the page has its reader type, by the number of the step: lines after `$ `, with the documents that they read. */
function typed(): Map<number, string[]> {
  const page = readFileSync(join(ROOT, 'docs', 'quick-start.md'), 'utf8');
  const steps = Array.from(page.matchAll(/^## (\d)\. [^]*?(?=^## )/gm));
  return new Map(
    steps.map(([text, number]) => {
      const blocks = Array.from(text.matchAll(/^```console\n([^]*?)^```$/gm), ([, block = '']) => block).join('');
      const commands = Array.from(blocks.matchAll(/^\$ (.*<<END\n[^]*?^END$|.*)/gm), ([, command = '']) => command);
      return [Number(number), commands];
    }),
  );
}

let home = '';
let origin: Origin;
let shell: ChildProcess | undefined;

beforeEach(async () => {
  home = mkdtempSync(join(tmpdir(), 'imageproxy-quick-start-'));
  origin = await startOrigin();
});

afterEach(async () => {
  // The controllers that the reader has started, too.
  if (shell?.pid !== undefined && shell.exitCode === null) process.kill(-shell.pid, 'SIGKILL');
  await origin.close();
  rmSync(home, { recursive: true, force: true });
});

/** Ends with the first command that fails, and stops what runs in the background. */
async function type(lines: readonly string[]): Promise<{ code: number | null; out: string; err: string }> {
  const script = ['set -eu', "trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT", ...lines].join('\n');
  const env = { PATH: process.env['PATH'], HOME: home, LANG: 'C.UTF-8', ...COMPILED };
  const child = spawn('bash', ['-c', script], { cwd: home, env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
  shell = child;
  let [out, err] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text));
  await once(child, 'close');
  return { code: child.exitCode, out, err };
}

it('the quick start works as it is written, and its last step leaves nothing behind', async () => {
  const { bytes } = qcow2('debian');
  const sum = createHash('sha512').update(bytes).digest('hex');
  origin.route(`/${FILE}`, { body: bytes });
  origin.route('/SHA512SUMS', { body: Buffer.from(`${'0'.repeat(128)}  another.raw\n${sum}  ${FILE}\n`) });
  // The program of the checkout; only what has to do with this machine's loopback is added to what is typed.
  const program = join(home, 'bin', 'imageproxy');
  mkdirSync(join(home, 'bin'));
  writeFileSync(
    program,
    `#!/bin/sh
case $1 in
  run) set -- "$@" --allow-network 127.0.0.0/8 --telemetry off ;;
  register) set -- "$@" --allow-network 127.0.0.0/8 ;;
esac
exec '${process.execPath}' ${FROM_SOURCES.join(' ')} '${join(ROOT, 'src', 'main.ts')}' "$@"
`,
  );
  chmodSync(program, 0o755);

  const steps = typed();
  const at = (step: number) => steps.get(step) ?? [];
  const isLive = (command: string) => command.includes(' watch ');
  const { code, out, err } = await type([
    ...at(2),
    // The cloud's publisher is this test's origin.
    ...at(3).map((command) => command.replace(PUBLISHER, origin.url).replace(/ \| jq .*$/, '')),
    'other=$(echo $sum | tr 0123456789abcdef 123456789abcdef0)',
    'if bin/imageproxy register $url --sha512 $other --site shelf; then exit 99; fi',
    ...at(4)
      .filter((command) => !isLive(command))
      .flatMap((command) =>
        command.includes('imageproxy run')
          ? [`${command} &`, 'bin/imageproxy wait vmimg/debian-12 --for=create']
          : [command],
      ),
    ...at(5),
    'echo left: $(bin/imageproxy get vmimg -o name)',
  ]);
  expect(code, `${out}${err}`).toBe(0);
  expect([...steps.values()].flat().filter(isLive)).toHaveLength(1);
  expect(err).toContain(`sha512 of the ${bytes.length} bytes is ${sum}`);
  expect(out + err).toContain('2 files, 2 objects: all well');
  expect(out).toContain('vmimage.imageproxy.dev/debian-12 deleted');
  expect(out).toMatch(/^left:$/m);
  // What the site keeps for itself begins with a dot.
  expect(readdirSync(join(home, 'shelf')).filter((name) => !name.startsWith('.'))).toEqual(['index.json']);
});
