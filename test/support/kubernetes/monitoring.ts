import { execFile } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { cacheDirectory, findGo, type Say, settle, tell } from './binaries.ts';

const MODULE = join(import.meta.dirname, 'monitoring');
const REPOSITORY = 'github.com/prometheus-operator/prometheus-operator';
const FILES = ['monitoring.coreos.com_servicemonitors.yaml', 'monitoring.coreos.com_prometheusrules.yaml'];

/**
 * The CRDs of ServiceMonitor and PrometheusRule as the Prometheus operator publishes them, from its Go module (go.sum has its
 * checksum): paths of YAML files.
 */
export async function findMonitoringCrds(say: Say = tell): Promise<string[]> {
  const [, release] = new RegExp(`${REPOSITORY} (v[0-9.]+)`).exec(await readFile(join(MODULE, 'go.mod'), 'utf8')) ?? [];
  const target = join(cacheDirectory(), `monitoring-${release}`);
  if (!existsSync(target)) await fetchInto(target, say);
  return FILES.map((name) => join(target, name));
}

async function fetchInto(target: string, say: Say): Promise<void> {
  await mkdir(cacheDirectory(), { recursive: true });
  const go = await findGo(say);
  const { stdout } = await promisify(execFile)(go, ['mod', 'download', '-json', REPOSITORY], { cwd: MODULE });
  const { Dir: module } = JSON.parse(stdout) as { Dir: string };
  const folder = await mkdtemp(join(cacheDirectory(), 'part-'));
  try {
    for (const name of FILES) {
      await copyFile(join(module, 'example', 'prometheus-operator-crd', name), join(folder, name));
    }
    await settle(folder, target);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** `node test/support/kubernetes/monitoring.ts`: has them ready before tests need them. */
if (import.meta.main) tell(`ready: ${(await findMonitoringCrds()).join(', ')}`);
