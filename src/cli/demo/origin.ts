import { once } from 'node:events';
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { basename, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';

export interface DemoOrigin {
  url: string;
  /** Requests for files so far. */
  readonly requests: number;
  /** How long a file takes from now on, whatever its size; 0 sends at full speed. */
  secondsPerFile: number;
  close(): Promise<void>;
}

const BLOCK = 64 * 1024;

/** A web server on loopback with the files of one folder, slowed down so that progress can be seen. */
export async function startDemoOrigin(folder: string): Promise<DemoOrigin> {
  const server = createServer((request, response) => {
    origin.requests++;
    send(
      join(folder, basename(new URL(request.url ?? '/', 'http://origin').pathname)),
      response,
      origin.secondsPerFile,
    ).catch(() => response.destroy());
  });
  const origin = {
    url: '',
    requests: 0,
    secondsPerFile: 0,
    async close(): Promise<void> {
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  };
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  origin.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return origin;
}

async function send(path: string, response: ServerResponse, seconds: number): Promise<void> {
  const facts = await stat(path).catch(() => undefined);
  if (facts?.isFile() !== true) {
    response.writeHead(404).end();
    return;
  }
  response.writeHead(200, { 'content-length': facts.size, etag: `"${facts.size}-${Math.floor(facts.mtimeMs)}"` });
  await pipeline(slowly(path, facts.size, seconds), response);
}

async function* slowly(path: string, size: number, seconds: number): AsyncGenerator<Buffer> {
  const begun = performance.now();
  let sent = 0;
  for await (const block of createReadStream(path, { highWaterMark: BLOCK }) as AsyncIterable<Buffer>) {
    yield block;
    sent += block.length;
    const ahead = (sent / size) * seconds * 1000 - (performance.now() - begun);
    if (ahead > 5) await sleep(ahead);
  }
}
