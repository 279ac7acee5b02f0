/**
 * A signed list of many entries: read and verified in the thread, read back from the disk, compared with no VMImages (all are made),
 * with all of them as they should be (none is written), and with one entry that differs. The store is memory, so that the figures are the
 * list's own. `node bench/lists.ts [entries]`; 10,000 by default. Needs openssl.
 */
import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setImmediate as turn } from 'node:timers/promises';
import { loadSchemas } from '../src/api/schema.ts';
import type { ImageSubscription, VMImage } from '../src/api/types.ts';
import type { KeptList } from '../src/catalogs/kept.ts';
import { startCatalogReaders } from '../src/catalogs/thread.ts';
import type { Deps } from '../src/reconcilers/deps.ts';
import { ALONE } from '../src/reconcilers/duties.ts';
import { follow } from '../src/reconcilers/imagesubscription/follow.ts';
import { KeptLists } from '../src/reconcilers/imagesubscription/lists.ts';
import { beginLook } from '../src/reconcilers/imagesubscription/look.ts';
import { startSelections } from '../src/reconcilers/imagesubscription/selections.ts';
import { systemClock } from '../src/runtime/clock.ts';
import type { Draft } from '../src/stores/store.ts';
import { createLogger } from '../src/telemetry/log.ts';
import { hepixList, type ListedImage, makeListAuthority } from '../test/support/hepix.ts';
import { startOrigin } from '../test/support/origin.ts';

const count = Number(process.argv[2] ?? 10_000);
const folder = mkdtempSync(join(tmpdir(), 'imageproxy-lists-'));
const authority = makeListAuthority();
const alice = authority.signer('alice');
const origin = await startOrigin();
const catalogs = startCatalogReaders();
const selections = startSelections();
const never = new AbortController().signal;

const spec = {
  url: `${origin.url}/image.list`,
  format: 'HEPiX',
  trust: {
    x509: {
      endorsers: [{ subject: alice.subject, issuer: alice.issuer }],
      caRef: { kind: 'ConfigMap', name: 'ca' },
    },
  },
  select: { expression: 'entry.arch == "x86_64" && entry.fields["ad:vo"] == "bench"' },
  template: { spec: { sites: [{ name: 'nova' }], registration: { name: '{title} ({version})' } } },
};
const schemas = loadSchemas();
const verdict = schemas.validate('ImageSubscription', {
  apiVersion: 'imageproxy.dev/v1beta1',
  kind: 'ImageSubscription',
  metadata: { name: 'bench', namespace: 'default' },
  spec,
});
const metadata = { name: 'bench', namespace: 'default', uid: 'uid', generation: 1, resourceVersion: '1' };
const subscription = {
  ...verdict.object,
  metadata: { ...metadata, creationTimestamp: '2026-01-01T00:00:00Z' },
} as unknown as ImageSubscription;

const images = new Map<string, VMImage>();
let writes = 0;
const lists = new KeptLists(folder);
const deps = {
  store: {
    list: (kind: string) => (kind === 'VMImage' ? [...images.values()] : [subscription]),
    get: (_: string, { name }: { name: string }) => images.get(name),
    create(draft: Draft) {
      return this.apply(draft);
    },
    async apply({ metadata: written, ...draft }: Draft) {
      writes++;
      // A real store waits for a disk or a network here, and others get their turn.
      await turn();
      const { ownerReferences, ...own } = written;
      const { object } = schemas.validate('VMImage', { ...draft, metadata: own });
      const known = { ...own, ownerReferences, uid: written.name, generation: 1, resourceVersion: '1' };
      images.set(written.name, { ...object, metadata: known } as unknown as VMImage);
    },
  },
  lists,
  selections,
  clock: systemClock,
  log: createLogger({ level: 'silent' }),
  authority: { goodForMs: () => true },
  duties: ALONE,
  settings: { instance: 'bench' },
} as unknown as Deps;

/** Seconds, CPU seconds (all threads, openssl too where it is waited for), and the longest pause of this thread. */
async function measure<T>(what: string, work: () => Promise<T>): Promise<T> {
  writes = 0;
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const cpu = process.cpuUsage();
  const started = performance.now();
  const result = await work();
  const seconds = (performance.now() - started) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  delay.disable();
  console.log(
    `${what.padEnd(34)} ${seconds.toFixed(2)} s  ${((user + system) / 1e6).toFixed(2)} CPU s  longest pause ${(delay.max / 1e6).toFixed(0)} ms  ${writes} written`,
  );
  return result;
}

const ids = Array.from({ length: count }, () => randomUUID());
const listId = randomUUID();

async function publishAndRead(version: string, changed: number): Promise<KeptList> {
  const listed = ids.map((id, index): ListedImage => {
    const bytes = new Uint8Array([index % 256, index >> 8, index < changed ? 1 : 0]);
    const more = { 'ad:mpuri': `https://appdb.example.org/${id}`, 'ad:vo': 'bench', 'dc:description': 'x'.repeat(200) };
    return { id, title: `Image ${index}`, url: `https://images.example.org/${id}.qcow2`, bytes, more };
  });
  const body = alice.sign(hepixList({ id: listId, version, images: listed, endorser: alice }));
  origin.route('/image.list', { body });
  if (version === '1') console.log(`${count} entries, ${(body.length / 2 ** 20).toFixed(1)} MiB signed`);
  const ca = { name: 'ca.pem', bytes: new TextEncoder().encode(authority.ca) };
  const outcome = await measure(`read and verified, version ${version}`, () =>
    catalogs.read(
      {
        format: 'HEPiX',
        source: {
          kind: 'http',
          url: spec.url,
          headers: {},
          network: { allow: ['127.0.0.0/8'] },
          timeouts: { connectMs: 15_000, headersMs: 60_000, stallMs: 60_000 },
        },
        trust: {
          kind: 'x509',
          endorsers: [{ subject: alice.subject, issuer: alice.issuer }],
          anchors: { certificates: [ca], crls: [], policies: [] },
          crl: 'IfPresent',
          signingPolicy: 'IfPresent',
          allowSha1: false,
        },
        at: Date.now(),
        folder: lists.folder('uid'),
        accepted: undefined,
        rollback: 'Refuse',
      },
      never,
    ),
  );
  if (outcome.kind !== 'Accepted') throw new Error(outcome.failure.message);
  lists.set('uid', outcome.kept);
  return outcome.kept;
}

/** Until no round has more to do; the comparison is made anew, as after a reading. */
async function compare(kept: KeptList): Promise<void> {
  delete lists.memory('uid').followed;
  while ((await follow(beginLook(subscription, deps), kept, true))?.more === true);
}

try {
  const first = await publishAndRead('1', 0);
  await measure('read back from the disk', () => lists.entries('uid'));
  await measure('compared, no image there', () => compare(first));
  await measure('compared, all as they should be', () => compare(first));
  const second = await publishAndRead('2', 1);
  await lists.entries('uid');
  await measure('compared, one entry differs', () => compare(second));
  console.log(`resident: ${(process.memoryUsage.rss() / 2 ** 20).toFixed(0)} MiB`);
} finally {
  await catalogs.close();
  await selections.close();
  await origin.close();
  authority.close();
  rmSync(folder, { recursive: true, force: true });
}
