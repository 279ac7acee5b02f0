import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { glob, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { API_SERVER_PATIENCE_MS, eventually } from '../../support/apiserver.ts';
import { pauseImage } from '../../support/containers/images.ts';
import { KubernetesNode, missingForNode } from '../../support/kubernetes/node.ts';

/** Command lines of processes, wherever they run, that have this word. */
async function processesWith(word: string): Promise<string[]> {
  const lines: string[] = [];
  for await (const file of glob('/proc/[0-9]*/cmdline')) {
    const line = (await readFile(file, 'utf8').catch(() => '')).replaceAll('\0', ' ').trim();
    if (line.includes(word)) lines.push(line);
  }
  return lines;
}

async function cgroupsWith(word: string): Promise<string[]> {
  return Array.fromAsync(glob([`/sys/fs/cgroup/${word}`, `/sys/fs/cgroup/*/${word}`]));
}

const interfaces = () => readFile('/proc/net/dev', 'utf8').then((text) => text.match(/^ *\S+:/gm));

describe.skipIf(missingForNode() !== undefined)('a node', () => {
  test(
    'becomes Ready, runs a pod in its own network and cgroup, and leaves nothing behind',
    async () => {
      const pause = await pauseImage();
      const before = await interfaces();
      const node = await KubernetesNode.start(pause, []);
      const name = node.directory.replace(/.*\//, '');
      try {
        const [program, ...prefix] = node.network;
        const kubectl = async (...args: string[]) => {
          const own = [join(node.programs, 'kubectl'), `--kubeconfig=${node.kubeconfig}`];
          return (await promisify(execFile)(program, [...prefix, ...own, ...args], { env: { HOME: node.directory } }))
            .stdout;
        };
        await kubectl('wait', '--for=create', 'serviceaccount/default', '--timeout=120s');
        await kubectl('run', 'pod', `--image=${pause.name}`, '--image-pull-policy=Never');
        await kubectl('wait', '--for=condition=Ready', 'pod/pod', '--timeout=240s');
        expect(await kubectl('get', 'pod', 'pod', '--output=jsonpath={.status.podIP}')).toMatch(/^10\.88\./);
        expect(await interfaces()).toEqual(before);
        expect(await cgroupsWith(name)).not.toEqual([]);
        expect(await processesWith(node.directory)).not.toEqual([]);
      } finally {
        await node.stop();
      }
      expect(await processesWith(node.directory)).toEqual([]);
      expect(await cgroupsWith(name)).toEqual([]);
      expect(await readFile('/proc/self/mountinfo', 'utf8')).not.toContain(name);
      expect(existsSync(node.directory)).toBe(false);
    },
    API_SERVER_PATIENCE_MS,
  );

  test('ends with the process that started it, even when that is killed', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'imageproxy-namespaces-'));
    // A number that nobody else sleeps for.
    const seconds = `${process.pid}${Date.now()}`;
    const script = join(import.meta.dirname, 'namespaces-process.ts');
    const holder = spawn(process.execPath, [script, directory, seconds], { stdio: ['ignore', 'pipe', 'inherit'] });
    try {
      await once(holder.stdout, 'data');
      await eventually('it runs in them', async () =>
        expect(await processesWith(seconds)).toContain(`/bin/sleep ${seconds}`),
      );
    } finally {
      holder.kill('SIGKILL');
      await rm(directory, { recursive: true, force: true });
    }
    await eventually('nothing of it runs', async () => {
      const left = await processesWith(seconds);
      if (left.length > 0) throw new Error(left.join('\n'));
    });
  });
});
