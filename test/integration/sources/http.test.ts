import { once } from 'node:events';
import { createServer, type Server } from 'node:net';
import { readdirSync, readFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { HttpSourceSpec } from '../../../src/sources/source.ts';
import { type Authority, makeAuthority } from '../../support/authority.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';
import { content, digestOf, type Harness, httpSource, MIB, startHarness } from '../transfers/harness.ts';

const BODY = content(MIB + 77);
const SHA256 = digestOf(BODY);

let harness: Harness;
let origin: Origin;
beforeAll(() => {
  harness = startHarness();
});
afterAll(() => harness.close());
beforeEach(async () => {
  harness.clean();
  origin = await startOrigin();
});
afterEach(() => origin.close());

const failure = (reason: string, message?: RegExp) =>
  expect.objectContaining({ reason, ...(message && { message: expect.stringMatching(message) }) });

function fetch(url: string, more: Partial<HttpSourceSpec> = {}) {
  return harness.fetch(harness.request(url, { sha256: SHA256 }, { source: httpSource(url, more) }));
}

describe('an HTTP origin that refuses', () => {
  it.each([
    [404, 'NotFound'],
    [410, 'NotFound'],
    [401, 'Unauthorized'],
    [403, 'Forbidden'],
    [400, 'InvalidSpec'],
    [500, 'ServerError'],
    [502, 'ServerError'],
  ] as const)('with %i is %s, names the URL without its query, and leaves nothing', async (status, reason) => {
    origin.route('/image', { status, body: Buffer.from('<html>secret page</html>') });
    const fetching = fetch(`${origin.url}/image?signature=hunter2`);
    await expect(fetching).rejects.toEqual(failure(reason, new RegExp(`^${origin.url}/image\\?….*answered ${status}`)));
    await expect(fetching).rejects.not.toThrow(/hunter2|secret page/);
    expect(readdirSync(harness.folder)).toEqual([]);
  });

  it('with 429 or 503 tells how long to wait', async () => {
    origin.route('/busy', { status: 429, headers: { 'retry-after': '17' } });
    origin.route('/down', { status: 503, headers: { 'retry-after': new Date(Date.now() + 600_000).toUTCString() } });
    await expect(fetch(`${origin.url}/busy`)).rejects.toMatchObject({
      reason: 'TooManyRequests',
      retryAfterMs: 17_000,
    });
    const down = await fetch(`${origin.url}/down`).catch((error: unknown) => error);
    expect(down).toMatchObject({ reason: 'ServerError' });
    expect((down as { retryAfterMs: number }).retryAfterMs).toBeGreaterThan(500_000);
    expect((down as { retryAfterMs: number }).retryAfterMs).toBeLessThanOrEqual(600_000);
  });

  it.each(['gzip', 'br', 'x-unknown'])('to send the bytes as they are (%s) is NotSupported', async (encoding) => {
    origin.route('/image', { body: BODY, headers: { 'content-encoding': encoding } });
    await expect(fetch(`${origin.url}/image`)).rejects.toEqual(failure('NotSupported', /Content-Encoding/));
  });

  it.each([
    ['SSH-2.0-OpenSSH_9.2\r\n', 'ServerError'],
    ['HTTP/1.1 206 Partial Content\r\nContent-Length: 1\r\nContent-Range: bytes 0-0/5\r\n\r\nx', 'ServerError'],
    ['HTTP/1.1 200 OK\r\nX: ' + 'x'.repeat(100_000) + '\r\n\r\n', 'ServerError'],
    ['HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n', 'ServerError'],
    ['', 'NetworkError'],
  ] as const)('by answering nonsense (%#) is %s', async (raw, reason) => {
    origin.route('/image', { raw });
    await expect(fetch(`${origin.url}/image`)).rejects.toEqual(failure(reason));
  });
});

describe('redirects', () => {
  it('are followed, and the file is called by the URL that was asked for', async () => {
    origin.route('/latest', { status: 302, headers: { location: '/v2/image?sig=hunter2' } });
    origin.route('/v2/image', { body: BODY });
    expect(await fetch(`${origin.url}/latest`)).toMatchObject({ source: `${origin.url}/latest`, size: BODY.length });
  });

  it('in a circle are RedirectLoop', async () => {
    origin.route('/a', { status: 301, headers: { location: '/b' } });
    origin.route('/b', { status: 301, headers: { location: '/a' } });
    await expect(fetch(`${origin.url}/a`)).rejects.toEqual(failure('RedirectLoop'));
    expect(origin.requests.length).toBe(2);
  });

  it('without end are RedirectLoop', async () => {
    for (let n = 0; n < 20; n += 1) origin.route(`/${n}`, { status: 307, headers: { location: `/${n + 1}` } });
    await expect(fetch(`${origin.url}/0`)).rejects.toEqual(failure('RedirectLoop', /more than 10/));
    expect(origin.requests.length).toBe(11);
  });

  it.each(['169.254.169.254', '[::ffff:169.254.169.254]', '10.0.0.1', '[::1]', '0.0.0.0', '2130706434', '0x7f.2'])(
    'to the private address %s are AddressForbidden, before a connection is made',
    async (host) => {
      origin.route('/image', { status: 302, headers: { location: `http://${host}/latest/meta-data/` } });
      const network = { allow: ['127.0.0.1/32'] };
      await expect(fetch(`${origin.url}/image`, { network })).rejects.toEqual(
        failure('AddressForbidden', /--allow-network/),
      );
    },
  );

  it('keep the credentials at the same origin, and lose them and the client certificate at another', async () => {
    const other = await startOrigin();
    try {
      origin.route('/a', { status: 302, headers: { location: '/b' } });
      origin.route('/b', { status: 302, headers: { location: `${other.url}/c` } });
      other.route('/c', { status: 302, headers: { location: `${origin.url}/d` } });
      origin.route('/d', { body: BODY });
      await fetch(`${origin.url}/a`, {
        authorization: 'Bearer hunter2',
        secretHeaders: { 'PRIVATE-TOKEN': 'hunter3' },
        headers: { 'X-Project': 'open' },
      });
      const sent = (requests: Origin['requests']) =>
        requests.map(({ path, headers }) => [
          path,
          headers.authorization,
          headers['private-token'],
          headers['x-project'],
        ]);
      expect(sent(origin.requests)).toEqual([
        ['/a', 'Bearer hunter2', 'hunter3', 'open'],
        ['/b', 'Bearer hunter2', 'hunter3', 'open'],
        ['/d', undefined, undefined, 'open'],
      ]);
      expect(sent(other.requests)).toEqual([['/c', undefined, undefined, 'open']]);
    } finally {
      await other.close();
    }
  });

  it('to something that is not http are InvalidSpec', async () => {
    origin.route('/image', { status: 302, headers: { location: 'file:///etc/passwd' } });
    await expect(fetch(`${origin.url}/image`)).rejects.toEqual(failure('InvalidSpec'));
  });
});

describe('addresses', () => {
  it('on loopback are refused without --allow-network, by number and by name, and nothing connects', async () => {
    origin.route('/image', { body: BODY });
    for (const host of ['127.0.0.1', 'localhost', '2130706433', '[::ffff:127.0.0.1]', '0x7f.1', '0.0.0.0', '[::]']) {
      const fetching = fetch(`http://${host}:${origin.port}/image`, { network: { allow: [] } });
      await expect(fetching, host).rejects.toEqual(failure('AddressForbidden', /--allow-network/));
    }
    expect(origin.requests).toEqual([]);
  });

  it('of a name are filtered: only the allowed ones are connected to', async () => {
    origin.route('/image', { body: BODY });
    const url = `http://localhost:${origin.port}/image`;
    expect((await fetch(url, { network: { allow: ['127.0.0.0/8'] } })).size).toBe(BODY.length);
  });

  it('that do not exist are NetworkError', async () => {
    // A resolver that nobody answers takes its time.
    const timeouts = { connectMs: 60_000, headersMs: 60_000, stallMs: 60_000 };
    await expect(fetch('http://nowhere.invalid/image', { timeouts })).rejects.toEqual(failure('NetworkError'));
  });

  it('where nobody listens are NetworkError', async () => {
    const { url } = origin;
    await origin.close();
    await expect(fetch(`${url}/image`)).rejects.toEqual(failure('NetworkError', /nothing listens/));
  });
});

describe('time', () => {
  it('is up when no connection comes about: a server that accepts and does not speak TLS', async () => {
    const silent: Server = createServer(() => {}).listen(0, '127.0.0.1');
    await once(silent, 'listening');
    const { port } = silent.address() as { port: number };
    const timeouts = { connectMs: 200, headersMs: 60_000, stallMs: 60_000 };
    await expect(fetch(`https://127.0.0.1:${port}/`, { timeouts })).rejects.toEqual(failure('Timeout', /0.2 s/));
    silent.close();
  });

  it('is up when no answer comes', async () => {
    origin.route('/image', { silent: true });
    const timeouts = { connectMs: 60_000, headersMs: 200, stallMs: 60_000 };
    await expect(fetch(`${origin.url}/image`, { timeouts })).rejects.toEqual(
      failure('Timeout', /no answer within 0.2 s/),
    );
  });
});

describe('headers of a source', () => {
  it('that are not allowed never leave, also when the API let them pass', async () => {
    for (const name of ['Host', 'Authorization', 'Transfer-Encoding', 'X-Forwarded-For']) {
      await expect(fetch(`${origin.url}/image`, { headers: { [name]: 'x' } })).rejects.toEqual(failure('InvalidSpec'));
    }
    expect(origin.requests).toEqual([]);
  });
});

describe('TLS', () => {
  let authority: Authority;
  beforeAll(() => {
    authority = makeAuthority();
  });
  afterAll(() => authority.close());

  async function secured(
    options: { names?: string; days?: number; requestCert?: boolean },
    test: (secure: Origin) => Promise<void>,
  ): Promise<void> {
    const pair = authority.issue(
      options.names ?? 'DNS:localhost',
      options.days === undefined ? {} : { days: options.days },
    );
    const client = options.requestCert === true ? { ca: authority.ca, requestCert: true } : {};
    const secure = await startOrigin({ tls: { ...pair, ...client } });
    try {
      secure.route('/image', { body: BODY, etag: '"1"' });
      await test(secure);
    } finally {
      await secure.close();
    }
  }

  it('is trusted by a CA of caRef, and the body passes whole', async () => {
    await secured({}, async (secure) => {
      const result = await fetch(`${secure.url}/image`, { tls: { ca: authority.ca } });
      expect(result.digests.sha256).toBe(SHA256);
      expect(readFileSync(result.path).equals(BODY)).toBe(true);
    });
  });

  it('of an unknown authority is TlsFailed and names caRef', async () => {
    await secured({}, async (secure) => {
      await expect(fetch(`${secure.url}/image`)).rejects.toEqual(failure('TlsFailed', /caRef/));
      expect(secure.requests).toEqual([]);
    });
  });

  it('for another name is TlsFailed', async () => {
    await secured({ names: 'DNS:other.example' }, async (secure) => {
      const fetching = fetch(`${secure.url}/image`, { tls: { ca: authority.ca } });
      await expect(fetching).rejects.toEqual(failure('TlsFailed', /another host name/));
    });
  });

  it('that has expired is TlsFailed', async () => {
    await secured({ days: -1 }, async (secure) => {
      const fetching = fetch(`${secure.url}/image`, { tls: { ca: authority.ca } });
      await expect(fetching).rejects.toEqual(failure('TlsFailed', /expired/));
    });
  });

  it('with a port that speaks plain http is TlsFailed and says so', async () => {
    const url = `https://127.0.0.1:${origin.port}/image`;
    await expect(fetch(url)).rejects.toEqual(failure('TlsFailed', /does not speak TLS/));
  });

  it('with a CA that is no PEM is TlsFailed, and its text is not in the message', async () => {
    await secured({}, async (secure) => {
      const ca = '-----BEGIN CERTIFICATE-----\nhunter2\n-----END CERTIFICATE-----';
      const fetching = fetch(`${secure.url}/image`, { tls: { ca } });
      await expect(fetching).rejects.toEqual(failure('TlsFailed', /PEM/));
      await expect(fetching).rejects.not.toThrow(/hunter2/);
    });
  });

  it('shows the client certificate to who asks for it, and not after a redirect to another origin', async () => {
    const client = authority.issue('DNS:client');
    await secured({ requestCert: true }, async (secure) => {
      const tls = { ca: authority.ca, ...client };
      expect((await fetch(`${secure.url}/image`, { tls })).size).toBe(BODY.length);
      origin.route('/away', { status: 302, headers: { location: `${secure.url}/image` } });
      harness.clean();
      await expect(fetch(`${origin.url}/away`, { tls })).rejects.toMatchObject({ name: 'Failure' });
      expect(secure.requests.length).toBe(1);
    });
  });

  it('is not left for plain http', async () => {
    await secured({}, async (secure) => {
      secure.route('/away', { status: 302, headers: { location: `${origin.url}/image` } });
      const fetching = fetch(`${secure.url}/away`, { tls: { ca: authority.ca } });
      await expect(fetching).rejects.toEqual(failure('InvalidSpec', /https to http/));
      expect(origin.requests).toEqual([]);
    });
  });

  it('carries a body with backpressure: every record that comes after a pause is kept', async () => {
    await secured({}, async (secure) => {
      const big = content(24 * MIB);
      secure.route('/image', { body: big });
      const source = httpSource(`${secure.url}/image`, { tls: { ca: authority.ca } });
      const request = harness.request(source.url, { sha256: digestOf(big) }, { source });
      const result = await harness.fetch(request, {
        // The head has come, and records after it; nothing may be lost while the space is granted.
        onBegin: () => new Promise((resolve) => setTimeout(resolve, 50)),
      });
      expect(result.size).toBe(big.length);
    });
  });
});
