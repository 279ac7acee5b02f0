import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type ClusterObjects, openClusterObjects } from '../../../../src/stores/kubernetes/objects.ts';

interface Answer {
  status?: number;
  headers?: Record<string, string>;
  body: unknown;
}

let folder = '';
let server: Server;
let objects: ClusterObjects;
/** `GET /path?query` of each request. */
let asked: string[];
let answer: (url: URL, sent: string) => Answer;

async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? '/', 'http://server');
  asked.push(`${request.method} ${request.url}`);
  // All that is sent comes before the answer, or the asker is done before what he sent is here.
  const { status = 200, headers = {}, body } = answer(url, await text(request));
  const told = typeof body === 'string' ? body : JSON.stringify(body);
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(told);
}

beforeEach(async () => {
  asked = [];
  folder = mkdtempSync(join(tmpdir(), 'imageproxy-objects-'));
  server = createServer((request, response) => void serve(request, response));
  server.keepAliveTimeout = 0; // else it may end a connection in the moment in which the next request is sent on it
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const cluster = { server: `http://somebody:secret@127.0.0.1:${port}/k8s/`, 'insecure-skip-tls-verify': true };
  const kubeconfig = join(folder, 'kubeconfig');
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'c', cluster }],
    users: [{ name: 'u', user: { token: 't' } }],
    contexts: [{ name: 'c', context: { cluster: 'c', user: 'u' } }],
    'current-context': 'c',
  };
  writeFileSync(kubeconfig, JSON.stringify(config));
  objects = await openClusterObjects({ kubeconfig, signal: new AbortController().signal });
});

afterEach(async () => {
  await objects.close();
  server.close();
  rmSync(folder, { recursive: true, force: true });
});

const image = (name: string) => ({ metadata: { name, namespace: 'team', uid: name, resourceVersion: '1' } });
const list = (names: string[], next?: string): Answer => ({
  body: { kind: 'VMImageList', metadata: { resourceVersion: '9', continue: next }, items: names.map(image) },
});
const refusal = (status: number, reason: string, message: string, details?: object): Answer => ({
  status,
  body: { kind: 'Status', code: status, reason, message, ...(details && { details }) },
});
const namesOf = (found: readonly { metadata: { name: string } }[]) => found.map(({ metadata }) => metadata.name);

const ITEMS = '/k8s/apis/imageproxy.dev/v1beta1/namespaces/team/vmimages';

describe('objects of a cluster for one command', () => {
  it('are listed page by page, in one namespace, with the kind that items of a list lack', async () => {
    answer = ({ searchParams }) => (searchParams.get('continue') === null ? list(['a', 'b'], 'next') : list(['c']));
    const found = await objects.list('VMImage', 'team');
    expect(namesOf(found)).toEqual(['a', 'b', 'c']);
    expect(found[2]).toMatchObject({ apiVersion: 'imageproxy.dev/v1beta1', kind: 'VMImage' });
    expect(asked).toEqual([`GET ${ITEMS}?limit=500`, `GET ${ITEMS}?limit=500&continue=next`]);
  });

  it('are listed again in one piece when the first page has been forgotten', async () => {
    answer = ({ searchParams }) => {
      if (searchParams.get('continue') !== null) return refusal(410, 'Expired', 'the token is too old');
      return searchParams.get('limit') === null ? list(['a', 'b', 'c']) : list(['a'], 'next');
    };
    expect(namesOf(await objects.list('VMImage', 'team'))).toEqual(['a', 'b', 'c']);
    expect(asked).toHaveLength(3);
  });

  it('are there or not by one of them', async () => {
    answer = () => list(['a'], 'many more');
    expect(await objects.hasAny('VMImage')).toBe(true);
    answer = () => list([]);
    expect(await objects.hasAny('VMImage')).toBe(false);
    expect(asked.every((each) => each.endsWith('/vmimages?limit=1'))).toBe(true);
  });

  it('that are not there are told apart from a kind that is not there', async () => {
    const key = { namespace: 'team', name: 'a' };
    answer = () => refusal(404, 'NotFound', 'vmimages.imageproxy.dev "a" not found');
    expect(await objects.get('VMImage', key)).toBeUndefined();
    answer = () => ({ status: 404, body: '404 page not found' });
    await expect(objects.get('VMImage', key)).rejects.toMatchObject({
      reason: 'NotFound',
      message: expect.stringMatching(/cannot read VMImage team\/a: .*does not know the kind: install/) as string,
    });
  });

  it('are asked for again when the server asks for patience', async () => {
    answer = () => (asked.length === 1 ? { status: 429, headers: { 'retry-after': '0' }, body: {} } : list(['a']));
    expect(namesOf(await objects.list('VMImage', 'team'))).toEqual(['a']);
    expect(asked).toHaveLength(2);
  });

  it('are deleted by uid, and no other one of the name', async () => {
    let body = '';
    answer = (_, sent) => {
      body = sent;
      return refusal(409, 'Conflict', 'Precondition failed: UID in precondition: u1, UID in object meta: u2');
    };
    await expect(objects.delete('VMImage', { namespace: 'team', name: 'a' }, 'u1')).rejects.toMatchObject({
      reason: 'Conflict',
    });
    expect(JSON.parse(body)).toMatchObject({ kind: 'DeleteOptions', preconditions: { uid: 'u1' } });
  });

  it('are judged by field, where the server tells fields, and else as a whole', async () => {
    const draft = { apiVersion: 'imageproxy.dev/v1beta1', kind: 'VMImage', metadata: { name: 'a', namespace: 'team' } };
    const causes = [{ field: 'spec.guid', message: 'cannot be changed', reason: 'FieldValueInvalid' }];
    answer = () => refusal(422, 'Invalid', 'VMImage "a" is invalid', { causes });
    expect(await objects.judge(draft)).toEqual([{ path: 'spec.guid', message: 'cannot be changed' }]);
    answer = () => refusal(400, 'BadRequest', 'admission webhook "x" denied the request');
    expect(await objects.judge(draft)).toEqual([{ path: '', message: 'admission webhook "x" denied the request' }]);
    answer = () => refusal(404, 'NotFound', 'namespaces "team" not found');
    expect(await objects.judge(draft)).toEqual([
      { path: 'metadata.namespace', message: 'namespaces "team" not found' },
    ]);
    answer = () => refusal(403, 'Forbidden', 'cannot patch resource "vmimages"');
    await expect(objects.judge(draft)).rejects.toMatchObject({ reason: 'Forbidden' });
    answer = () => ({ body: {} });
    expect(await objects.judge(draft)).toEqual([]);
    expect(new URLSearchParams(asked[0]?.split('?')[1]).get('dryRun')).toBe('All');
  });

  it('tell no password of the address', async () => {
    expect(objects.server).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/k8s$/);
    server.close();
    server.closeAllConnections();
    await expect(objects.list('VMImage')).rejects.toMatchObject({
      reason: 'NetworkError',
      message: expect.not.stringContaining('secret') as string,
    });
  });

  it('have their events told by whoever wrote them, oldest first', async () => {
    const metadata = { creationTimestamp: '2026-01-01T00:00:05Z' };
    answer = () => ({
      body: {
        items: [
          {
            metadata,
            type: 'Normal',
            reason: 'Fetched',
            note: 'again and again',
            eventTime: '2026-01-01T00:00:01.000000Z',
            series: { count: 7, lastObservedTime: '2026-01-01T00:00:09.000000Z' },
          },
          {
            metadata,
            type: 'Warning',
            reason: 'Old',
            note: 'by core/v1',
            eventTime: null,
            deprecatedCount: 3,
            deprecatedFirstTimestamp: '2026-01-01T00:00:02Z',
            deprecatedLastTimestamp: '2026-01-01T00:00:04Z',
          },
          { metadata, reason: 'Bare' },
        ],
      },
    });
    const events = await objects.events({
      kind: 'VMImage',
      metadata: { ...image('a').metadata, generation: 1, ...metadata },
    });
    expect(events.map(({ type, reason, count, lastSeen }) => [type, reason, count, lastSeen])).toEqual([
      ['Warning', 'Old', 3, '2026-01-01T00:00:04Z'],
      ['Normal', 'Bare', 1, '2026-01-01T00:00:05Z'],
      ['Normal', 'Fetched', 7, '2026-01-01T00:00:09.000000Z'],
    ]);
    expect(asked[0]).toContain('/namespaces/team/events?fieldSelector=regarding.kind%3DVMImage%2Cregarding.uid%3Da');
  });
});
