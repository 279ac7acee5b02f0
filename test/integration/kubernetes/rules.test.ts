import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ApiError } from '../../../src/runtime/api-error.ts';
import { objectPath, RESOURCES } from '../../../src/stores/kubernetes/resources.ts';
import { API_SERVER_PATIENCE_MS, type ApiServer, startApiServer } from '../../support/apiserver.ts';
import { type Manifest, type RuleCase, ruleCases } from '../../unit/api/rule-cases.ts';

interface Refusal {
  status: number;
  message: string;
}

/** What only our own schema can be asked: objects that an API server of today would not have let in, or never sees. */
const cases = ruleCases().filter(({ unstorable }) => unstorable !== true);

/**
 * The same table that judges our own schema (test/unit/api/rules.test.ts), judged by a real API server: the directory store
 * promises its verdicts.
 */
describe('what may and may not be said to a real API server', () => {
  let server: ApiServer;
  beforeAll(async () => {
    server = await startApiServer();
    for (const name of ['default', 'other']) await server.namespace(name);
  }, API_SERVER_PATIENCE_MS);
  afterAll(() => server?.stop());

  const write = (row: RuleCase, object: Manifest, method: 'POST' | 'PUT'): Promise<Manifest | Refusal> => {
    const type = RESOURCES[row.kind];
    const { name, namespace } = object['metadata'] as { name: string; namespace?: string };
    const path = objectPath(type, namespace === undefined ? { name } : { name, namespace });
    return server
      .request<Manifest>({
        method,
        path: method === 'POST' ? path.slice(0, path.lastIndexOf('/')) : path,
        query: { fieldValidation: 'Ignore' },
        body: object,
      })
      .catch((error: unknown) => {
        if (error instanceof ApiError) return { status: error.status, message: error.message };
        throw error;
      });
  };

  it.each(cases.map((row) => [`${row.kind}: ${row.name}`, row] as const))('%s', async (_, row) => {
    let made: Manifest | Refusal | undefined;
    try {
      if (row.old !== undefined) {
        made = await write(row, row.old, 'POST');
        expect(made).not.toHaveProperty('status', expect.any(Number));
      }
      const { metadata, ...rest } = row.object;
      const version = (made as { metadata: { resourceVersion: string } } | undefined)?.metadata.resourceVersion;
      const object = {
        ...rest,
        metadata: { ...(metadata as object), ...(version === undefined ? {} : { resourceVersion: version }) },
      };
      const verdict = await write(row, object, row.old === undefined ? 'POST' : 'PUT');
      if (row.accepted === true) {
        made = verdict;
        expect(verdict).toMatchObject({ metadata: { uid: expect.any(String) } });
        return;
      }
      // 400 where a value's type is wrong already for the decoder, 422 for what the schema and its rules refuse.
      const { status, message } = verdict as Refusal;
      expect([400, 422]).toContain(status);
      if (status === 422)
        for (const { path, message: part } of row.errors ?? []) {
          expect(message).toContain(path);
          if (part !== undefined) expect(message).toContain(part);
        }
    } finally {
      if (made !== undefined && 'metadata' in made) {
        const { metadata } = made as { metadata: { name: string; namespace?: string; finalizers?: string[] } };
        const path = objectPath(RESOURCES[row.kind], metadata);
        if (metadata.finalizers !== undefined)
          await server.request({
            method: 'PATCH',
            path,
            contentType: 'application/merge-patch+json',
            body: { metadata: { finalizers: null } },
          });
        await server.request({ method: 'DELETE', path });
      }
    }
  });
});
