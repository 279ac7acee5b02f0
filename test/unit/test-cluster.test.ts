import { afterEach, describe, expect, it, vi } from 'vitest';
import { startApiServer } from '../support/apiserver.ts';
import { type Binaries, chooseBinaries, type Part, PARTS, type Sources } from '../support/kubernetes/binaries.ts';

const ARCHIVE: readonly Part[] = ['etcd', 'kube-apiserver', 'kubectl'];
const WITH_CONTROLLERS: readonly Part[] = [...ARCHIVE, 'kube-controller-manager'];

/** What is where; `asked` tells in which order it was looked for. */
class Shelves {
  readonly asked: string[] = [];
  readonly folders: Readonly<Record<string, readonly Part[]>>;
  readonly online: boolean;

  constructor(folders: Readonly<Record<string, readonly Part[]>> = {}, online = true) {
    this.folders = folders;
    this.online = online;
  }

  choose(needed: readonly Part[], named?: string): Promise<Binaries> {
    const binaries = (origin: string, parts: readonly Part[]): Binaries => {
      this.asked.push(origin);
      return { directory: origin, origin, has: (part) => parts.includes(part) };
    };
    const sources: Sources = {
      named,
      kept: ['built', 'fetched'],
      look: async (directory) => binaries(directory, this.folders[directory] ?? []),
      fetch: async () => (this.online ? binaries('archive', ARCHIVE) : undefined),
      build: async () => binaries('build', PARTS),
    };
    return chooseBinaries(needed, sources);
  }
}

describe('the programs of a test cluster', () => {
  it('are those of the folder that is named, and no others, whatever an earlier run has kept', async () => {
    const shelves = new Shelves({ mine: ARCHIVE, built: PARTS });
    expect((await shelves.choose(ARCHIVE, 'mine')).origin).toBe('mine');
    expect(shelves.asked).toEqual(['mine']);
    await expect(shelves.choose(WITH_CONTROLLERS, 'mine')).rejects.toThrow(
      'KUBEBUILDER_ASSETS=mine has no kube-controller-manager: unset it, or put them there',
    );
  });

  it('are else those that an earlier run has kept, where all that is needed is among them', async () => {
    expect((await new Shelves({ built: PARTS, fetched: ARCHIVE }).choose(ARCHIVE)).origin).toBe('built');
    expect((await new Shelves({ fetched: ARCHIVE }).choose(ARCHIVE, '')).origin).toBe('fetched');
  });

  it('are else fetched as the official archive, and only then built', async () => {
    const shelves = new Shelves();
    expect((await shelves.choose(ARCHIVE)).origin).toBe('archive');
    expect(shelves.asked).toEqual(['built', 'fetched', 'archive']);
    const offline = new Shelves({}, false);
    expect((await offline.choose(ARCHIVE)).origin).toBe('build');
  });

  it('are built where the archive has not all of them: it is not fetched for nothing', async () => {
    const shelves = new Shelves({ fetched: ARCHIVE });
    expect((await shelves.choose(WITH_CONTROLLERS)).origin).toBe('build');
    expect(shelves.asked).not.toContain('archive');
  });
});

describe('a cluster that is named', () => {
  afterEach(() => vi.unstubAllEnvs());

  it('goes before all programs: none is looked for', async () => {
    vi.stubEnv('TEST_KUBECONFIG', '/nowhere/kubeconfig');
    vi.stubEnv('KUBEBUILDER_ASSETS', '/nowhere/assets');
    await expect(startApiServer()).rejects.toThrow('/nowhere/kubeconfig');
  });
});
