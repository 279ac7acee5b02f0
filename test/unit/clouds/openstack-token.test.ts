import { describe, expect, test } from 'vitest';
import { readConfiguration } from '../../../src/clouds/openstack/configuration.ts';
import type { Http } from '../../../src/clouds/openstack/http.ts';
import { Keystone } from '../../../src/clouds/openstack/keystone.ts';

const CLOUDS = `
clouds:
  c:
    auth: { auth_url: https://k, application_credential_id: i, application_credential_secret: s }`;

describe('a token of Keystone', () => {
  test('is not asked for by who has been stopped: nobody would hear that the question was cut off', async () => {
    const calls: string[] = [];
    const http = { call: ({ url }: { url: string }) => calls.push(url) } as unknown as Http;
    const configuration = readConfiguration({}, new Map([['clouds.yaml', new TextEncoder().encode(CLOUDS)]]));
    const keystone = new Keystone(configuration, http, Date.now);
    await expect(keystone.session(AbortSignal.abort())).rejects.toMatchObject({ reason: 'Aborted' });
    expect(calls).toEqual([]);
  });
});
