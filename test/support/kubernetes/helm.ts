import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { cacheDirectory, findGo, isProgram, run, type Say, settle, tell } from './binaries.ts';

/** What charts are installed with. Another release: change it here and in helm/go.mod (`go get helm.sh/helm/v4@v…`). */
const VERSION = '4.3.1';
const MODULE = join(import.meta.dirname, 'helm');

/** The helm named by HELM, the one of an earlier run, or one built from its Go modules: two minutes, once. */
export async function findHelm(say: Say = tell): Promise<string> {
  const named = process.env['HELM'];
  if (named !== undefined && named !== '') {
    if (await isProgram(named)) return named;
    throw new Error(`HELM=${named} is no program: unset it, or correct it`);
  }
  const target = join(cacheDirectory(), `helm-${VERSION}-${await moduleHash()}`);
  const helm = join(target, 'helm');
  if (!(await isProgram(helm))) await build(target, say);
  return helm;
}

async function moduleHash(): Promise<string> {
  const hash = createHash('sha256');
  for (const name of ['go.mod', 'go.sum']) hash.update(await readFile(join(MODULE, name)));
  return hash.digest('hex').slice(0, 12);
}

async function build(target: string, say: Say): Promise<void> {
  await mkdir(cacheDirectory(), { recursive: true });
  const go = await findGo(say);
  const folder = await mkdtemp(join(cacheDirectory(), 'part-'));
  say(`building helm ${VERSION} from its Go modules, once: about two minutes on two cores`);
  try {
    const flags = ['-s', '-w', `-X helm.sh/helm/v4/internal/version.version=v${VERSION}`].join(' ');
    const args = ['build', '-trimpath', '-buildvcs=false', '-ldflags', flags, '-o', join(folder, 'helm')];
    await run('nice', ['-n', '10', go, ...args, 'helm.sh/helm/v4/cmd/helm'], MODULE);
    await settle(folder, target);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** `node test/support/kubernetes/helm.ts`: has it ready before tests need it. */
if (import.meta.main) tell(`ready: ${await findHelm()}`);
