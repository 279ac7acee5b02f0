import fc from 'fast-check';
import { describe, expect, it, test } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import { type Credentials, permitHost, readCredentials } from '../../../src/reconcilers/vmimage/credentials.ts';

const HOSTS = { 'imageproxy.dev/hosts': 'mirror.example.org' };

function storeOf(
  secrets: Record<string, { data: Record<string, string>; annotations?: Record<string, string> }>,
  configMaps: Record<string, Record<string, string>> = {},
) {
  return {
    secret: async ({ namespace, name }: { namespace: string; name: string }) => {
      const found = secrets[`${namespace}/${name}`];
      if (found === undefined) return undefined;
      const data = Object.fromEntries(Object.entries(found.data).map(([key, value]) => [key, Buffer.from(value)]));
      return { metadata: { namespace, name, annotations: found.annotations ?? HOSTS }, data };
    },
    configMap: async ({ namespace, name }: { namespace: string; name: string }) => {
      const data = configMaps[`${namespace}/${name}`];
      return data === undefined ? undefined : { metadata: { namespace, name }, data };
    },
  } as unknown as Parameters<typeof readCredentials>[3]['store'];
}

const read = (data: Record<string, string>, annotations: Record<string, string> = HOSTS): Promise<Credentials> =>
  readCredentials('team', { secretRef: { name: 's' } }, 'spec.source.http', {
    store: storeOf({ 'team/s': { data, annotations } }),
  });

async function refusal(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof Failure) return `${error.reason}: ${error.message}`;
    throw error;
  }
  return 'accepted';
}

describe('what a Secret gives a source', () => {
  const basic = `Basic ${Buffer.from('user:pass:word').toString('base64')}`;

  test.each<[string, Record<string, string>, Partial<Credentials>]>([
    ['username and password', { username: 'user', password: 'pass:word' }, { authorization: basic }],
    ['a token', { token: 'abc' }, { authorization: 'Bearer abc' }],
    ['a token before a password', { token: 'abc', username: 'user', password: 'x' }, { authorization: 'Bearer abc' }],
    [
      'values as an editor leaves them, with a line break at the end',
      { username: 'user\n', password: 'pass:word\r\n' },
      { authorization: basic },
    ],
    ['a client certificate', { 'tls.crt': 'CERT', 'tls.key': 'KEY' }, { tls: { cert: 'CERT', key: 'KEY' } }],
    [
      'a client certificate and a CA',
      { 'tls.crt': 'CERT', 'tls.key': 'KEY', 'ca.crt': 'CA' },
      { tls: { cert: 'CERT', key: 'KEY', ca: 'CA' } },
    ],
    ['a token and a CA', { token: 'abc', 'ca.crt': 'CA' }, { authorization: 'Bearer abc', tls: { ca: 'CA' } }],
    [
      'headers, one a line',
      { headers: 'X-Api-Key: a:b\r\n\n  Cookie:  c=d \n' },
      { secretHeaders: { 'x-api-key': 'a:b', cookie: 'c=d' } },
    ],
    [
      'headers beside a token',
      { token: 'abc', headers: 'X-Tenant: t' },
      { authorization: 'Bearer abc', secretHeaders: { 'x-tenant': 't' } },
    ],
  ])('is %s', async (_, data, expected) => {
    const { hosts, fingerprint, ...credentials } = await read(data);
    expect(credentials).toEqual(expected);
    expect(hosts).toEqual(['mirror.example.org']);
    expect(fingerprint).toMatch(/^[0-9a-f]{32}$/);
  });

  test.each<[string, Record<string, string>, string]>([
    [
      'nothing of use',
      { user: 'x' },
      'has none of the keys username and password, token, headers, tls.crt and tls.key',
    ],
    ['a username alone', { username: 'user' }, 'has none of the keys'],
    ['a password alone', { password: 'x' }, 'has none of the keys'],
    ['a CA alone', { 'ca.crt': 'CA' }, 'has none of the keys'],
    ['a certificate without its key', { 'tls.crt': 'CERT' }, 'needs both tls.crt and tls.key'],
    ['a key without its certificate', { token: 'abc', 'tls.key': 'KEY' }, 'needs both tls.crt and tls.key'],
    ['a username with a colon', { username: 'a:b', password: 'x' }, 'has a colon in username'],
    ['a token of two lines', { token: 'abc\r\nX-Evil: 1' }, 'has a line break or control character in token'],
    ['a header without a name', { headers: 'geheim' }, 'has in line 1 of headers something else than "Name: value"'],
    ['a header whose name has blanks', { headers: '\nX Y: geheim' }, 'has in line 2 of headers something else'],
    ['one header twice', { headers: 'X-A: 1\nx-a: 2' }, 'has in line 2 of headers a name for the second time'],
  ])('is refused with %s', async (_, data, words) => {
    const message = await refusal(read(data));
    expect(message).toContain('InvalidSecret: spec.source.http.secretRef: the Secret team/s ');
    expect(message).toContain(words);
    expect(message).not.toContain('geheim');
  });

  it('is nothing for an anonymous source', async () => {
    expect(await readCredentials('team', {}, 'spec.source.http', { store: storeOf({}) })).toEqual({});
  });

  it('is missed by name, in the image’s own namespace', async () => {
    const store = storeOf({ 'other/s': { data: { token: 'abc' } } });
    const message = await refusal(
      readCredentials('team', { secretRef: { name: 's' } }, 'spec.kernel.source.http', { store }),
    );
    expect(message).toBe(
      'SecretNotFound: spec.kernel.source.http.secretRef: there is no Secret team/s; create it, or remove the reference',
    );
  });

  it('has one fingerprint for one set of credentials, and another for another', async () => {
    const sets = [
      { token: 'a' },
      { token: 'b' },
      { username: 'u', password: 'a' },
      { username: 'u', password: 'b' },
      { headers: 'X-A: 1' },
      { headers: 'X-A: 2' },
      { 'tls.crt': 'C', 'tls.key': 'K' },
      { 'tls.crt': 'C', 'tls.key': 'L' },
    ];
    const prints = await Promise.all(sets.map(async (data) => (await read(data)).fingerprint));
    expect(new Set(prints).size).toBe(sets.length);
    expect((await read({ token: 'a\n' })).fingerprint).toBe(prints[0]);
  });

  it('never comes up in a message, whatever is wrong with it', async () => {
    const secret = fc.stringMatching(/^[!-9;-~]{8,20}$/).map((text) => `g3h${text}`);
    const broken = fc.constantFrom('', '\n', '\r\nX: ', '\0', ':', ' ', 'é');
    await fc.assert(
      fc.asyncProperty(
        secret,
        broken,
        fc.subarray(['username', 'password', 'token', 'tls.crt', 'tls.key', 'ca.crt', 'headers'] as const),
        fc.constantFrom('', 'mirror.example.org'),
        async (value, noise, keys, hosts) => {
          const data = Object.fromEntries(keys.map((key) => [key, `${value}${noise}${value}`]));
          const outcome = await refusal(
            read(data, { 'imageproxy.dev/hosts': hosts }).then((credentials) =>
              permitHost(credentials, 'https://elsewhere.example.org/x', 'spec.source.http.urls[0]'),
            ),
          );
          expect(outcome).not.toBe('accepted');
          expect(outcome).not.toContain(value);
        },
      ),
      { numRuns: 300 },
    );
  });
});

describe('the hosts that a Secret may be sent to', () => {
  const permitted = async (hosts: string, url: string) => {
    const credentials = await read({ token: 'abc' }, { 'imageproxy.dev/hosts': hosts });
    try {
      permitHost(credentials, url, 'spec.source.http.urls[0]');
      return true;
    } catch {
      return false;
    }
  };

  test.each<[string, string, boolean]>([
    ['mirror.example.org', 'https://mirror.example.org/x', true],
    ['mirror.example.org', 'https://MIRROR.example.org:8443/x', true],
    ['Mirror.Example.Org', 'https://mirror.example.org/x', true],
    ['a.org, mirror.example.org\tb.org', 'https://b.org/x', true],
    ['mirror.example.org', 'https://example.org/x', false],
    ['mirror.example.org', 'https://mirror.example.org.evil.net/x', false],
    ['mirror.example.org', 'https://evil.net/mirror.example.org', false],
    ['mirror.example.org', 'https://mirror.example.org@evil.net/x', false],
    ['*.example.org', 'https://mirror.example.org/x', true],
    ['*.example.org', 'https://a.b.example.org/x', true],
    ['*.example.org', 'https://example.org/x', false],
    ['*.example.org', 'https://evilexample.org/x', false],
    ['*', 'https://mirror.example.org/x', false],
    ['127.0.0.1', 'http://127.0.0.1:8080/x', true],
    ['[::1]', 'http://[::1]:8080/x', true],
  ])('%j permits %s: %s', async (hosts, url, expected) => {
    expect(await permitted(hosts, url)).toBe(expected);
  });

  it('are named by the Secret itself, or it is sent nowhere', async () => {
    for (const annotations of [{}, { 'imageproxy.dev/hosts': ' , ' }]) {
      expect(await refusal(read({ token: 'abc' }, annotations))).toBe(
        'SecretHostsMissing: spec.source.http.secretRef: the Secret team/s does not say where it may be sent; set its annotation imageproxy.dev/hosts: "HOST[,HOST…]"',
      );
    }
  });

  it('are told when another is asked for, with the cure', async () => {
    const credentials = await read({ token: 'abc' });
    expect(() => permitHost(credentials, 'https://cdn.example.net/x?sig=geheim', 'spec.source.http.urls[1]')).toThrow(
      'spec.source.http.urls[1]: its Secret may not be sent to cdn.example.net; name the host in the Secret\'s annotation imageproxy.dev/hosts ("cdn.example.net")',
    );
  });

  it('do not concern an anonymous source', () => {
    expect(() => permitHost({}, 'https://anywhere.example.org/', 'f')).not.toThrow();
  });
});

describe('the CA of a source', () => {
  const store = storeOf(
    { 'team/ca': { data: { 'ca.crt': 'FROM SECRET', other: 'OTHER' } } },
    { 'team/ca': { 'ca.crt': 'FROM MAP' } },
  );
  const ca = (caRef: { kind: string; name: string; key?: string }) =>
    readCredentials('team', { caRef }, 'spec.source.http', { store });

  it('comes from a ConfigMap or a Secret, and makes the source no less public', async () => {
    expect(await ca({ kind: 'ConfigMap', name: 'ca' })).toEqual({ tls: { ca: 'FROM MAP' } });
    expect(await ca({ kind: 'Secret', name: 'ca', key: 'other' })).toEqual({ tls: { ca: 'OTHER' } });
  });

  it('goes before the one in the Secret of the credentials', async () => {
    const both = storeOf(
      { 'team/s': { data: { token: 'abc', 'ca.crt': 'FROM SECRET' } } },
      { 'team/ca': { 'ca.crt': 'FROM MAP' } },
    );
    const references = { secretRef: { name: 's' }, caRef: { kind: 'ConfigMap', name: 'ca' } };
    const credentials = await readCredentials('team', references, 'spec.source.http', { store: both });
    expect(credentials.tls).toEqual({ ca: 'FROM MAP' });
  });

  test.each([
    [
      { kind: 'ConfigMap', name: 'x' },
      'ConfigMapNotFound: spec.source.http.caRef: there is no ConfigMap team/x; create it with the key ca.crt',
    ],
    [
      { kind: 'Secret', name: 'x', key: 'k' },
      'SecretNotFound: spec.source.http.caRef: there is no Secret team/x; create it with the key k',
    ],
    [
      { kind: 'Secret', name: 'ca', key: 'k' },
      'InvalidSecret: spec.source.http.caRef: the Secret team/ca has no key k',
    ],
  ])('of %j is missed by name', async (caRef, expected) => {
    expect(await refusal(ca(caRef))).toBe(expected);
  });
});
