import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { CommandError, EXIT } from '../exit.ts';
import type { CommandContext } from '../output.ts';
import { LiveView } from '../progress.ts';
import { makeImages } from './images.ts';
import { fetchInstaller } from './installer.ts';
import { startDemoOrigin } from './origin.ts';
import { Stage } from './stage.ts';
import { Play } from './play.ts';
import { tryNext } from './next.ts';

export interface DemoOptions {
  fast?: boolean;
  offline?: boolean;
  keep?: string;
}

/** Seconds that a download takes, to be watched. */
const WATCHABLE = 3.5;
const FAST = 0.4;
const INSTALLER_MS = 20_000;

/** `imageproxy demo`: the main job, done for real on this machine; fails when a promise is not kept. */
export async function demo(options: DemoOptions, context: CommandContext): Promise<number> {
  const stage = new Stage(context);
  const { out, env, signal } = context;
  const root = await demoFolder(options.keep);
  try {
    out.line(
      out.paint('bold', 'ImageProxy: the same verified VM image on every cloud site, and its id there back to you.'),
    );
    if (options.keep !== undefined) out.line(`Everything is kept in ${root}.`);
    else out.line('No root, no Docker, no cluster; everything is made in a temporary folder, and removed at the end.');
    const view = new LiveView(out);
    if (options.offline !== true) {
      const text = out.paint(
        'gray',
        `looking for Debian's installer by apt-get download, ${INSTALLER_MS / 1000} s at most …`,
      );
      view.show([{ key: 'installer', text, milestone: '' }]);
    }
    const installer =
      options.offline === true
        ? undefined
        : await fetchInstaller(join(root, 'installer'), { env, signal, timeoutMs: INSTALLER_MS });
    view.end({ erase: true });
    const published = join(root, 'origin');
    const images = await makeImages({ folder: published, env, signal }, installer);
    const origin = await startDemoOrigin(published);
    const play = new Play({
      root,
      origin,
      published,
      images,
      stage,
      context,
      seconds: options.fast === true ? FAST : WATCHABLE,
    });
    try {
      await play.perform();
    } finally {
      await play.close();
      await origin.close();
    }
    const exitCode = stage.verdict();
    if (exitCode === EXIT.ok) tryNext(stage, env);
    return exitCode;
  } finally {
    if (options.keep === undefined) await rm(root, { recursive: true, force: true, maxRetries: 3 });
  }
}

async function demoFolder(keep: string | undefined): Promise<string> {
  if (keep === undefined) return mkdtemp(join(tmpdir(), 'imageproxy-demo-'));
  const folder = resolve(keep);
  await mkdir(join(folder, '..'), { recursive: true });
  try {
    await mkdir(folder);
  } catch {
    throw new CommandError(EXIT.usage, `--keep ${keep}: name a folder that is not there yet`);
  }
  return folder;
}
