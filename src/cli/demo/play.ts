import { readdir, readFile, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { findCondition, READY } from '../../api/conditions.ts';
import { ANNOTATIONS, API_VERSION, type VMImage } from '../../api/types.ts';
import { removeFromManifest } from '../../stores/directory/edit.ts';
import { createLogger } from '../../telemetry/log.ts';
import { type RunningController, startController } from '../controller.ts';
import type { CommandContext } from '../output.ts';
import { formatBytes } from '../quantity.ts';
import { renderTable } from '../table.ts';
import { type DemoImages, idsInIndex, type Published, publishMetafile } from './images.ts';
import { ListPublisher } from './list.ts';
import { Lookout } from './lookout.ts';
import type { DemoOrigin } from './origin.ts';
import { isReady, isRefused, type Stage } from './stage.ts';
import { followList } from './subscription.ts';
import { findTool } from './tools.ts';

export interface PlayOptions {
  root: string;
  origin: DemoOrigin;
  /** Folder of the origin. */
  published: string;
  images: DemoImages;
  stage: Stage;
  context: CommandContext;
  /** How long each download takes. */
  seconds: number;
}

const WEB = { namespace: 'default', name: 'web' };

/** The demo's chapters, in the order in which they are shown. */
export class Play {
  readonly #options: PlayOptions;
  readonly #manifests: string;
  readonly #shelf: string;
  #running: { controller: RunningController; stop: AbortController } | undefined;

  constructor(options: PlayOptions) {
    this.#options = options;
    this.#manifests = join(options.root, 'manifests');
    this.#shelf = join(options.root, 'shelf');
  }

  async perform(): Promise<void> {
    await mkdir(this.#manifests);
    await mkdir(this.#shelf);
    this.#introduce();
    const ids = await this.#register();
    await this.#again(ids);
    await this.#refuse();
    await this.#replace();
    await this.#metafile();
    await this.#follow();
    await this.#cleanUp();
  }

  async close(): Promise<void> {
    this.#running?.stop.abort();
    await this.#running?.controller.done;
    this.#running = undefined;
  }

  #introduce(): void {
    const { images, origin, stage } = this.#options;
    const { first, second } = images;
    stage.chapter('Two images, made on the spot');
    const rows = [first, second].map(({ file, size, what }) => [file, formatBytes(size), what]);
    stage.lines(renderTable(['file', 'size', 'what'], rows, { untitled: true }));
    for (const note of images.notes) stage.say(`(${note})`);
    stage.say(`They are published at ${origin.url}, which is slow on purpose.`);
  }

  async #register(): Promise<Map<string, string>> {
    const { images, stage, seconds, origin } = this.#options;
    stage.chapter(
      'Apply a site and two images',
      'A site is a cloud; this one is a folder, as libvirt or a web server would use it. This is all it takes:',
    );
    const site = {
      apiVersion: API_VERSION,
      kind: 'ImageSite',
      metadata: { name: 'shelf' },
      spec: { directory: { path: this.#shelf } },
    };
    const web = this.#image('web', images.first);
    await this.#write('shelf.yaml', site);
    await this.#write('web.yaml', web);
    await this.#write(`${images.secondName}.yaml`, this.#image(images.secondName, images.second));
    stage.code(stringify(web, { lineWidth: 0 }).trimEnd().split('\n'));
    stage.out.line();
    origin.secondsPerFile = seconds;
    const controller = await this.#start();
    const names = ['web', images.secondName];
    const ready = await stage.follow(controller, names);
    stage.out.line();
    stage.lines(renderTable(['vmimage', 'site', 'image id', 'format'], ready.map(rowOf)));
    stage.out.line();
    const ids = new Map(ready.map((image) => [image.metadata.name, idOf(image)]));
    const listed = await idsInIndex(this.#shelf);
    stage.promise(
      'both images are proven, registered, and named in index.json',
      names.every((name) => listed.includes(ids.get(name) ?? '')),
    );
    return ids;
  }

  async #again(ids: ReadonlyMap<string, string>): Promise<void> {
    const { images, stage, origin } = this.#options;
    stage.chapter(
      'The same manifests again',
      'The controllers are stopped; the manifests are written again, and the controllers started again.',
    );
    const before = origin.requests;
    await this.close();
    await this.#write('web.yaml', this.#image('web', images.first));
    const begun = performance.now();
    const controller = await this.#start();
    // Ready in the state of before is not enough: the controllers that have just started must have looked again.
    const requestedAt = new Date().toISOString();
    for (const name of ids.keys()) {
      await controller.store.annotate(
        'VMImage',
        { namespace: 'default', name },
        { [ANNOTATIONS.requestedAt]: requestedAt },
      );
    }
    const again = await stage.follow(
      controller,
      [...ids.keys()],
      (image) => isReady(image) && image.status.lastHandledReconcileAt === requestedAt,
    );
    const seconds = ((performance.now() - begun) / 1000).toFixed(1);
    stage.promise(
      `ready again after ${seconds} s, start included, with the same ids`,
      again.every((image) => idOf(image) === ids.get(image.metadata.name)),
    );
    stage.promise(
      `not one byte was fetched again (${origin.requests - before} requests at the origin)`,
      origin.requests === before,
    );
  }

  async #refuse(): Promise<void> {
    const { images, stage, origin, context } = this.#options;
    stage.chapter('A wrong checksum is refused', 'The same file, and a manifest that declares another checksum:');
    origin.secondsPerFile = 0;
    const wrong = images.second.sha256.replace(/^./, (digit) => (digit === '0' ? '1' : '0'));
    await this.#write('wrong.yaml', this.#image('wrong', { ...images.second, sha256: wrong }));
    const controller = this.#controller();
    await controller.store.scan();
    const [image] = await stage.follow(controller, ['wrong'], isRefused);
    const ready = findCondition(image?.status.conditions, READY);
    stage.out.line();
    stage.say(`${context.out.paint('yellow', ready?.reason ?? '')}  ${ready?.message ?? ''}`);
    stage.out.line();
    const files = await this.#files();
    stage.promise(
      'nothing of it was registered, and the reason is in its status',
      ready?.reason === 'DigestMismatch' && files.length === 2,
    );
    await this.#delete('wrong');
  }

  async #replace(): Promise<void> {
    const { images, stage, origin, seconds } = this.#options;
    stage.chapter('A new version replaces the old one', `The manifest of "web" now names ${images.next.file}.`);
    const controller = this.#controller();
    const before = controller.store.get<VMImage>('VMImage', WEB);
    const oldId = before === undefined ? '' : idOf(before);
    origin.secondsPerFile = seconds;
    await this.#write('web.yaml', this.#image('web', images.next));
    stage.moment(`${oldId} is in service, and the new manifest applied`);
    await controller.store.scan();

    const lookout = new Lookout(
      this.#shelf,
      () => controller.store.get<VMImage>('VMImage', WEB)?.status.sites?.[0]?.imageID,
    );
    const wanted = (each: VMImage): boolean => isReady(each) && idOf(each) !== oldId;
    let image: VMImage | undefined;
    try {
      [image] = await stage.follow(controller, ['web'], wanted);
    } finally {
      await lookout.end();
    }
    const newId = image === undefined ? '' : idOf(image);
    stage.moment(`${newId} is in service`);
    stage.moment(`${oldId} is retired`);
    stage.out.line();
    stage.promise(`at each of ${lookout.looks} looks the id in the status was one in service`, lookout.gaps === 0);
    stage.promise(
      'the old image is kept out of the way, to go back to',
      image?.status.sites?.[0]?.previous?.[0]?.imageID === oldId,
    );
  }

  async #metafile(): Promise<void> {
    const { images, stage, origin, published } = this.#options;
    stage.chapter(
      'An image of three parts',
      'An ORCA metafile names disk, kernel and ramdisk; each is fetched, proven and registered.',
    );
    origin.secondsPerFile = 0;
    const metafile = await publishMetafile(published, origin.url, [
      { type: 'QCOW2', part: images.first },
      { type: 'KERNEL', part: images.kernel },
      { type: 'RAMDISK', part: images.ramdisk },
    ]);
    await this.#write('appliance.yaml', {
      apiVersion: API_VERSION,
      kind: 'VMImage',
      metadata: { name: 'appliance' },
      spec: {
        source: { metafile: { url: `${origin.url}/${metafile.file}`, sha256: metafile.sha256 } },
        verification: { allowWeak: true },
        sites: [{ name: 'shelf' }],
      },
    });
    const controller = this.#controller();
    await controller.store.scan();
    const [image] = await stage.follow(controller, ['appliance']);
    const row = image?.status.sites?.[0];
    const parts = [
      ['disk', row?.imageID ?? '', images.first.what],
      ['kernel', row?.kernelID ?? '', images.kernel.what],
      ['ramdisk', row?.ramdiskID ?? '', images.ramdisk.what],
    ];
    stage.out.line();
    stage.lines(renderTable(['part', 'image id', 'what'], parts));
    stage.out.line();
    stage.promise('three parts, three ids', new Set(parts.map(([, id]) => id).filter((id) => id !== '')).size === 3);
  }

  async #follow(): Promise<void> {
    const { root, published, images, origin, stage, context } = this.#options;
    const openssl = await findTool('openssl', context.env);
    if (openssl === undefined) {
      stage.chapter('A signed list is followed', 'Left out: openssl is not installed.');
      return;
    }
    origin.secondsPerFile = 0;
    const publisher = await ListPublisher.make(openssl, join(root, 'keys'), published, context.signal);
    const write = (file: string, ...objects: object[]) => this.#write(file, ...objects);
    await followList({ controller: this.#controller(), publisher, images, url: origin.url, stage, context, write });
  }

  async #cleanUp(): Promise<void> {
    const { images, stage } = this.#options;
    stage.chapter(
      'Deletion cleans up',
      'Each VMImage is taken out of its manifest and deleted, as "imageproxy delete vmimg/NAME" does.',
    );
    for (const name of ['web', images.secondName, 'appliance']) await this.#delete(name);
    const files = await this.#files();
    const listed = await idsInIndex(this.#shelf);
    stage.lines([
      `$ ls ${this.#shelf}`,
      ...(await readdir(this.#shelf)).filter((name) => !name.startsWith('.')),
      `$ cat ${join(this.#shelf, 'index.json')}`,
    ]);
    stage.lines((await readFile(join(this.#shelf, 'index.json'), 'utf8')).trimEnd().split('\n'));
    stage.out.line();
    stage.promise('no image is left in the site, and its index is empty', files.length === 0 && listed.length === 0);
  }

  #image(name: string, { file, sha256 }: Published) {
    const { origin } = this.#options;
    return {
      apiVersion: API_VERSION,
      kind: 'VMImage',
      metadata: { name },
      spec: {
        source: { http: { urls: [`${origin.url}/${file}`] } },
        checksums: { sha256 },
        sites: [{ name: 'shelf' }],
      },
    };
  }

  async #write(file: string, ...objects: object[]): Promise<void> {
    const documents = objects.map((object) => stringify(object, { lineWidth: 0 }));
    await writeFile(join(this.#manifests, file), documents.join('---\n'));
  }

  /** Image files in the site: those in service, and those that are retired. */
  async #files(): Promise<string[]> {
    const names = await readdir(this.#shelf, { recursive: true, withFileTypes: true });
    return names
      .filter((entry) => entry.isFile() && /\.(?:qcow2|raw|iso|img)$|kernel|ramdisk/i.test(entry.name))
      .map(({ name }) => name);
  }

  async #delete(name: string): Promise<void> {
    const key = { namespace: 'default', name };
    const { store } = this.#controller();
    await removeFromManifest(join(this.#manifests, `${name}.yaml`), { kind: 'VMImage', key });
    await store.delete('VMImage', key);
    await this.#options.stage.gone(this.#controller(), [name]);
  }

  #controller(): RunningController {
    if (this.#running === undefined) throw new Error('the controllers do not run');
    return this.#running.controller;
  }

  async #start(): Promise<RunningController> {
    const { root, context } = this.#options;
    const stop = new AbortController();
    const controller = await startController(
      {
        manifests: this.#manifests,
        state: join(root, 'state'),
        cacheReserveFreeBytes: 0,
        allowNetworks: ['127.0.0.0/8'],
        fileRoots: new Map(),
        maxParallelDownloads: 4,
        log: createLogger({ level: 'silent' }),
      },
      AbortSignal.any([stop.signal, context.signal]),
    );
    this.#running = { controller, stop };
    return controller;
  }
}

function idOf(image: VMImage): string {
  return image.status.sites?.[0]?.imageID ?? '';
}

function rowOf(image: VMImage): string[] {
  const row = image.status.sites?.[0];
  return [image.metadata.name, row?.name ?? '', idOf(image), row?.artifacts?.[0]?.format ?? ''];
}
