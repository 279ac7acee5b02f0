import { findCondition, READY } from '../../api/conditions.ts';
import { ANNOTATIONS, API_VERSION, type ImageSubscription, type VMImage } from '../../api/types.ts';
import { CommandError, EXIT } from '../exit.ts';
import type { CommandContext } from '../output.ts';
import { renderTable } from '../table.ts';
import { watchFor, watchStore } from '../watching.ts';
import type { RunningController } from '../controller.ts';
import type { DemoImages } from './images.ts';
import type { ListPublisher } from './list.ts';
import { isReady, type Stage } from './stage.ts';

export interface Scene {
  controller: RunningController;
  publisher: ListPublisher;
  images: DemoImages;
  url: string;
  stage: Stage;
  context: CommandContext;
  /** Writes manifests into the folder that is watched. */
  write(file: string, ...objects: object[]): Promise<void>;
}

const KEY = { namespace: 'default', name: 'list' };
const WEB = '5b7b1d5e-2c5c-4a38-a47c-15fa12ad35f0';
const OTHER = 'a6c61a43-52b5-4fb9-9a1e-4a4a2a1a3c3e';
const PATIENCE_MS = 60_000;

/** A signed list is followed: its images come, a new version is taken up, a tampered one changes nothing. */
export async function followList(scene: Scene): Promise<void> {
  const { stage, publisher, images, url, context } = scene;
  const web = (version: string, image: typeof images.first) => ({ id: WEB, title: 'Web server', version, image });
  const other = { id: OTHER, title: 'Archive', version: '1.0', image: images.second };
  stage.chapter(
    'A signed list is followed',
    'Alice signs a list of two images (HEPiX, S/MIME); we say that we trust her:',
  );
  await publisher.publish('1', url, [web('1.0', images.first), other]);
  const subscription = {
    apiVersion: API_VERSION,
    kind: 'ImageSubscription',
    metadata: { name: KEY.name },
    spec: {
      url: `${url}/image.list`,
      format: 'HEPiX',
      trust: {
        x509: {
          endorsers: [{ subject: publisher.subject, issuer: publisher.issuer }],
          caRef: { kind: 'ConfigMap', name: 'demo-ca' },
        },
      },
      template: { spec: { sites: [{ name: 'shelf' }] } },
      deletionPolicy: 'Delete',
    },
  };
  const ca = {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'demo-ca' },
    data: { 'ca.crt': await publisher.ca() },
  };
  await scene.write('list.yaml', ca, subscription);
  const { stringify } = await import('yaml');
  stage.code(stringify({ spec: subscription.spec }, { lineWidth: 0 }).trimEnd().split('\n'));
  stage.out.line();
  await scene.controller.store.scan();
  const names = [WEB, OTHER].map((id) => `${KEY.name}-${id}`);
  const before = await stage.follow(scene.controller, names);
  stage.out.line();

  stage.say('Alice signs a second version: a newer web server, and no archive any more.');
  await publisher.publish('2', url, [web('1.1', images.next)]);
  await lookAgain(scene, ({ status }) => status?.list?.version === '2');
  const [webName = '', otherName = ''] = names;
  const oldId = idOf(before.find(({ metadata }) => metadata.name === webName));
  const [now] = await stage.follow(scene.controller, [webName], (image) => isReady(image) && idOf(image) !== oldId);
  const [gone] = await stage.follow(scene.controller, [otherName], (image) => image.status?.phase === 'Deactivated');
  stage.out.line();
  stage.promise('the new version is in service, with an id of its own', now !== undefined && idOf(now) !== oldId);
  stage.promise(
    'what Alice no longer vouches for is out of service, and kept',
    gone?.spec.state === 'Deactivated' && idOf(gone) !== '',
  );

  stage.out.line();
  stage.say('Somebody who has the server, and not her key, changes the list:');
  await publisher.tamper('Web server', 'Evil server');
  const refused = await lookAgain(
    scene,
    ({ status }) => findCondition(status?.conditions, 'Verified')?.status === 'False',
  );
  const reason = findCondition(refused.status?.conditions, 'Verified');
  stage.out.line();
  stage.say(`${context.out.paint('yellow', reason?.reason ?? '')}  ${reason?.message ?? ''}`);
  stage.out.line();
  const image = scene.controller.store.get<VMImage>('VMImage', { ...KEY, name: webName });
  stage.promise(
    'nothing changed but that condition',
    now !== undefined && image !== undefined && idOf(image) === idOf(now),
  );
  stage.lines(
    renderTable(
      ['vmimage', 'image id', 'phase'],
      names.map((name) => rowOf(scene, name)),
    ),
  );
  await leave(scene, names);
}

/** The subscription goes, and here its images with it, as it says. */
async function leave(scene: Scene, names: readonly string[]): Promise<void> {
  await scene.write('list.yaml');
  await scene.controller.store.delete('ImageSubscription', KEY);
  await scene.stage.gone(scene.controller, names);
}

async function lookAgain(
  { controller, context }: Scene,
  wanted: (subscription: ImageSubscription) => boolean,
): Promise<ImageSubscription> {
  const requestedAt = new Date().toISOString();
  await controller.store.annotate('ImageSubscription', KEY, { [ANNOTATIONS.requestedAt]: requestedAt });
  return await watchFor(watchStore(controller.store), context, {
    kind: 'ImageSubscription',
    key: KEY,
    timeoutMs: PATIENCE_MS,
    decide: (object) => {
      const subscription = object as unknown as ImageSubscription | undefined;
      return subscription !== undefined && wanted(subscription) ? subscription : undefined;
    },
    onTimeout: (last) => {
      const ready = findCondition((last as unknown as ImageSubscription | undefined)?.status?.conditions, READY);
      return new CommandError(
        EXIT.failed,
        `the demo waited ${PATIENCE_MS / 1000} s for the list: ${ready?.message ?? ''}`,
      );
    },
  });
}

function idOf(image: VMImage | undefined): string {
  return image?.status?.sites?.[0]?.imageID ?? '';
}

function rowOf({ controller }: Scene, name: string): string[] {
  const image = controller.store.get<VMImage>('VMImage', { ...KEY, name });
  return [name, idOf(image), image?.status.phase ?? ''];
}
