import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { API_SERVER_PATIENCE_MS } from '../../support/apiserver.ts';
import { kubectl } from '../../support/kubernetes/chart.ts';

const SCRIPT = join(import.meta.dirname, '..', '..', '..', 'scripts', 'cluster.ts');

describe.skipIf((process.env['TEST_KUBECONFIG'] ?? '') !== '')('make cluster', () => {
  let cluster: ChildProcess | undefined;

  afterEach(() => cluster?.kill('SIGKILL'));

  test(
    'gives a control plane with our kinds, says how to use it, and leaves nothing behind',
    async () => {
      const running = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', SCRIPT], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      cluster = running;
      let said = '';
      const ready = Promise.withResolvers<void>();
      running.stdout.setEncoding('utf8').on('data', (text: string) => {
        said += text;
        if (said.includes('Ctrl-C')) ready.resolve();
      });
      running.once('exit', () => ready.reject(new Error(`it ended:\n${said}`)));
      await ready.promise;
      const [, kubeconfig = ''] = /^ {2}export KUBECONFIG=(.*)$/m.exec(said) ?? [];
      expect(await kubectl(kubeconfig, ['get', 'vmimages,imagesites,imagesubscriptions', '-A'])).toBe('');
      // The controllers of Kubernetes are there as well: each namespace gets its ServiceAccount.
      await kubectl(kubeconfig, [
        'wait',
        '--for=create',
        'serviceaccount/default',
        '-n',
        'imageproxy',
        '--timeout=60s',
      ]);
      running.kill('SIGINT');
      const [code] = (await once(running, 'exit')) as [number | null];
      expect(code).toBe(0);
      expect(existsSync(kubeconfig)).toBe(false);
      await expect(kubectl(kubeconfig, ['get', 'namespaces'])).rejects.toThrow();
    },
    API_SERVER_PATIENCE_MS,
  );
});
