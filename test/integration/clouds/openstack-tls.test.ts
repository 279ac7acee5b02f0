import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:https';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Http } from '../../../src/clouds/openstack/http.ts';
import { calm, scratch } from './fixture.ts';

describe.skipIf(!existsSync('/usr/bin/openssl'))('connections to an endpoint with a private CA', () => {
  let folder: Awaited<ReturnType<typeof scratch>>;
  let server: Server;
  let url: string;
  let ca: string;

  beforeAll(async () => {
    folder = await scratch();
    const [key, cert] = [join(folder.path, 'key.pem'), join(folder.path, 'cert.pem')];
    const subject = ['-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1'];
    const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256'];
    execFileSync('/usr/bin/openssl', ['req', '-x509', '-nodes', ...curve, '-keyout', key, '-out', cert, ...subject], {
      stdio: 'ignore',
    });
    ca = await readFile(cert, 'utf8');
    server = createServer({ key: await readFile(key), cert: ca }, (request, response) => {
      if (request.url === '/endless') {
        const more = (): void =>
          void (response.write(Buffer.alloc(1 << 20)) ? setImmediate(more) : response.once('drain', more));
        more();
      } else response.end('hello');
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const address = server.address();
    url = `https://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`;
  });

  afterAll(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    await folder.remove();
  });

  async function get(tls: { ca?: string; insecure?: boolean }, path = '/'): Promise<string> {
    const http = new Http(tls);
    try {
      return (await http.call({ method: 'GET', url: `${url}${path}` }, calm())).body;
    } finally {
      await http.close();
    }
  }

  test('without its CA the endpoint is not trusted, and the message tells the cure', async () => {
    await expect(get({})).rejects.toMatchObject({ reason: 'TlsFailed', message: expect.stringContaining('ca.crt') });
  });

  test('with its CA it is; without verification too', async () => {
    expect(await get({ ca })).toBe('hello');
    expect(await get({ insecure: true })).toBe('hello');
  });

  test('an answer without end is cut', async () => {
    await expect(get({ ca }, '/endless')).rejects.toMatchObject({ reason: 'ServerError' });
  });
});
