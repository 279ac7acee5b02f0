import { createHash } from 'node:crypto';
import { once } from 'node:events';
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';

/** What a receiver does with an upload. Without more it takes everything and answers 204. */
export interface Reception {
  status?: number;
  headers?: Record<string, string>;
  body?: string;
  /** Answers after so many bytes, without waiting for the rest. */
  answerAfter?: number;
  /** Cuts the connection after so many bytes. */
  cutAfter?: number;
  /** Reads no more after so many bytes. */
  stallAfter?: number;
  /** Takes all, and never answers. */
  silent?: boolean;
}

export interface Received {
  method: string;
  path: string;
  headers: IncomingHttpHeaders;
  bytes: number;
  sha256: string;
  /** Every byte that Content-Length had promised came: what a store would take for an image. */
  complete: boolean;
}

export interface PutSink {
  readonly url: string;
  /** Uploads that have ended, one way or the other. */
  readonly received: Received[];
  /** Bytes of the body that have come so far, over all uploads. */
  readonly bytes: number;
  respond(reception: Reception): void;
  /** Resolves when so many bytes have come. */
  reached(bytes: number): Promise<void>;
  /** Resolves when so many uploads have ended. */
  ended(count: number): Promise<void>;
  close(): Promise<void>;
}

/** A receiver of PUTs on loopback that knows whether it was given a complete body. */
export async function startSink(options: { tls?: { cert: string; key: string } } = {}): Promise<PutSink> {
  let reception: Reception = {};
  let bytes = 0;
  const received: Received[] = [];
  const waiting = new Set<() => void>();
  const changed = () => {
    for (const look of waiting) look();
  };
  const until = (condition: () => boolean): Promise<void> =>
    new Promise((resolve) => {
      const look = () => {
        if (!condition()) return;
        waiting.delete(look);
        resolve();
      };
      waiting.add(look);
      look();
    });

  const handle = (request: IncomingMessage, response: ServerResponse) => {
    const { answerAfter, cutAfter, stallAfter, silent, status = 204, headers = {}, body = '' } = reception;
    const hash = createHash('sha256');
    let mine = 0;
    const answer = () => {
      if (!response.headersSent) response.writeHead(status, headers).end(body);
    };
    request.on('data', (chunk: Buffer) => {
      hash.update(chunk);
      mine += chunk.length;
      bytes += chunk.length;
      if (answerAfter !== undefined && mine >= answerAfter) answer();
      if (cutAfter !== undefined && mine >= cutAfter) request.socket.resetAndDestroy();
      if (stallAfter !== undefined && mine >= stallAfter) request.pause();
      changed();
    });
    request.on('end', () => {
      if (silent !== true) answer();
    });
    request.on('error', () => {});
    let over = false;
    const end = () => {
      if (over) return;
      over = true;
      received.push({
        method: request.method ?? '',
        path: request.url ?? '',
        headers: request.headers,
        bytes: mine,
        sha256: hash.digest('hex'),
        complete: request.complete,
      });
      changed();
    };
    request.on('close', end);
    request.socket.once('close', end); // of a request that was answered early Node tells no `close`
    response.on('error', () => {});
  };
  const server: Server = options.tls === undefined ? createServer(handle) : createTlsServer(options.tls, handle);
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    url: options.tls === undefined ? `http://127.0.0.1:${port}` : `https://localhost:${port}`,
    received,
    get bytes() {
      return bytes;
    },
    respond: (next) => {
      reception = next;
    },
    reached: (count) => until(() => bytes >= count),
    ended: (count) => until(() => received.length >= count),
    close: async () => {
      server.close();
      for (const socket of sockets) socket.destroy();
      if (server.listening) await once(server, 'close');
    },
  };
}
