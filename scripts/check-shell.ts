/** Shell scripts that no test runs (kind needs Docker) are at least read: by sh, and by shellcheck where it is installed. */
import { execFileSync, spawnSync } from 'node:child_process';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..');
const tracked = execFileSync('git', ['ls-files', '*.sh', '.ci/run'], { cwd: root, encoding: 'utf8' });
let failed = false;
for (const script of tracked.trim().split('\n')) {
  const shell = script === '.ci/run' ? 'bash' : 'sh';
  const checks: [string, string[]][] = [
    [shell, ['-n', script]],
    ['shellcheck', ['--severity=warning', script]],
  ];
  for (const [program, args] of checks) {
    const { error, status, stdout, stderr } = spawnSync(program, args, { cwd: root, encoding: 'utf8' });
    if (program === 'shellcheck' && error !== undefined && 'code' in error && error.code === 'ENOENT') continue;
    if (error === undefined && status === 0) continue;
    failed = true;
    console.error(`${program} ${args.join(' ')}: ${error?.message ?? ''}\n${stdout}${stderr}`.trim());
  }
}
process.exitCode = failed ? 1 : 0;
