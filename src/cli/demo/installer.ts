import { mkdir, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { findTool, runTool } from './tools.ts';

/** A real operating system that boots: Debian's network installer, as the package has it. */
export interface DebianInstaller {
  /** Not in every version of the package. */
  iso?: string;
  kernel: string;
  ramdisk: string;
}

const PACKAGE = 'debian-installer-12-netboot-amd64';

/**
 * Gets the package with apt-get, which works without root on Debian and its kin, and unpacks it. Undefined where that cannot be
 * had in time: the demo makes all images itself then.
 */
export async function fetchInstaller(
  folder: string,
  { env, signal, timeoutMs }: { env: NodeJS.ProcessEnv; signal: AbortSignal; timeoutMs: number },
): Promise<DebianInstaller | undefined> {
  const [apt, dpkgDeb] = await Promise.all([findTool('apt-get', env), findTool('dpkg-deb', env)]);
  if (apt === undefined || dpkgDeb === undefined) return undefined;
  try {
    await mkdir(folder, { recursive: true });
    const run = { cwd: folder, signal, timeoutMs };
    await runTool(apt, ['download', '-qq', PACKAGE], run);
    const archive = (await readdir(folder)).find((name) => name.endsWith('.deb'));
    if (archive === undefined) return undefined;
    await runTool(dpkgDeb, ['-x', archive, 'unpacked'], run);
    const base = join(folder, 'unpacked', 'usr', 'lib', 'debian-installer', 'images', '12', 'amd64', 'text');
    const parts = join(base, 'debian-installer', 'amd64');
    const installer = { kernel: join(parts, 'linux'), ramdisk: join(parts, 'initrd.gz') };
    await Promise.all(Object.values(installer).map((path) => stat(path)));
    const iso = join(base, 'mini.iso');
    return (await stat(iso).catch(() => undefined)) === undefined ? installer : { ...installer, iso };
  } catch {
    // No network, no such package, too slow, another layout: all the same to the demo.
    signal.throwIfAborted();
    return undefined;
  }
}
