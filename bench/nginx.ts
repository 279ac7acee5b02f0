import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { freePorts } from '../test/support/ports.ts';

/** nginx on loopback that serves a folder, and under /slow/ at 100 MB/s, or another rate in nginx's own words. */
export async function startNginx(root: string, slow = '100000000'): Promise<{ url: string; stop(): Promise<void> }> {
  const folder = join(root, 'nginx');
  mkdirSync(folder);
  const [port] = await freePorts(1);
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((name) => `${name}_temp_path ${folder}/${name};`)
    .join(' ');
  writeFileSync(
    join(folder, 'nginx.conf'),
    `worker_processes 1; daemon off; pid ${folder}/pid; error_log ${folder}/error.log; user root;
events { worker_connections 256; }
http { access_log off; sendfile on; ${temporary}
server { listen 127.0.0.1:${port}; root ${root}; location /slow/ { alias ${root}/; limit_rate ${slow}; } } }
`,
  );
  const child = spawn('/usr/sbin/nginx', ['-c', join(folder, 'nginx.conf')], { stdio: 'ignore' });
  const url = `http://127.0.0.1:${port}`;
  for (let tries = 0; ; tries++) {
    const answered = await fetch(url).then(
      (answer) => answer.arrayBuffer().then(() => true),
      () => false,
    );
    if (answered) break;
    if (tries > 100) throw new Error('nginx did not start');
    await new Promise((again) => setTimeout(again, 50));
  }
  return {
    url,
    async stop() {
      const exited = once(child, 'exit');
      child.kill('SIGTERM');
      await exited;
    },
  };
}
