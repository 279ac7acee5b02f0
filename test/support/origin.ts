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

/** What an origin does with a request for one path. Without more, it serves `body` well: length, ranges, If-Range. */
export interface Route {
  body?: Uint8Array;
  status?: number;
  headers?: Record<string, string>;
  /** Validator; weak ones with `W/`. */
  etag?: string;
  lastModified?: string;
  /** Answers a Range with 206 (default), or takes no notice of it. */
  ranges?: boolean;
  /** What Content-Length says; `chunked` and `close` send none. Default: the truth. */
  length?: number | 'chunked' | 'close';
  /** Cuts the connection after so many bytes of the body. */
  cutAfter?: number;
  /** Sends no more after so many bytes of the body, and keeps the connection. */
  stallAfter?: number;
  /** Sends so many bytes of the body, and goes on when `until` resolves. */
  holdAfter?: { bytes: number; until: Promise<void> };
  /** Never answers at all. */
  silent?: boolean;
  bytesPerSecond?: number;
  /** Everything that is sent, head and all. */
  raw?: string | Uint8Array;
}

export interface RecordedRequest {
  method: string;
  path: string;
  headers: IncomingHttpHeaders;
}

export interface Origin {
  /** `http://ADDRESS:port`, or `https://localhost:port`. */
  readonly url: string;
  readonly port: number;
  readonly requests: RecordedRequest[];
  /** What to do with a path; a function sees each request anew (`count` begins with 1). */
  route(path: string, route: Route | ((request: RecordedRequest, count: number) => Route)): void;
  /** Resolves once a body has come to the place where it stalls. */
  stalled(): Promise<void>;
  close(): Promise<void>;
}

export interface OriginOptions {
  /** Where it listens; default loopback. Pods need one that they reach. */
  address?: string;
  tls?: { cert: string; key: string; ca?: string; requestCert?: boolean };
}

const BLOCK_BYTES = 64 * 1024;

/** A small programmable origin, on loopback unless told otherwise. */
export async function startOrigin(options: OriginOptions = {}): Promise<Origin> {
  const routes = new Map<string, Route | ((request: RecordedRequest, count: number) => Route)>();
  const requests: RecordedRequest[] = [];
  const counts = new Map<string, number>();
  const waiting: (() => void)[] = [];
  let stalls = 0;
  const handle = (request: IncomingMessage, response: ServerResponse) => {
    const recorded = { method: request.method ?? '', path: request.url ?? '', headers: request.headers };
    requests.push(recorded);
    const path = recorded.path.replace(/\?.*/, '');
    const count = (counts.get(path) ?? 0) + 1;
    counts.set(path, count);
    const found = routes.get(path) ?? { status: 404 };
    const route = typeof found === 'function' ? found(recorded, count) : found;
    void serve(route, request, response, () => {
      stalls += 1;
      for (const wake of waiting.splice(0)) wake();
    });
  };
  const { tls, address = '127.0.0.1' } = options;
  const server: Server =
    tls === undefined
      ? createServer(handle)
      : createTlsServer({ ...tls, rejectUnauthorized: tls.ca !== undefined }, handle);
  // Only the client ends a connection: the server could in the moment in which the next request is sent on it.
  server.keepAliveTimeout = 0;
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
  });
  server.listen(0, address);
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    url: tls === undefined ? `http://${address}:${port}` : `https://localhost:${port}`,
    port,
    requests,
    route: (path, route) => void routes.set(path, route),
    stalled: async () => {
      if (stalls === 0) await new Promise<void>((resolve) => waiting.push(resolve));
    },
    close: async () => {
      server.close();
      for (const socket of sockets) socket.destroy();
      if (server.listening) await once(server, 'close');
    },
  };
}

async function serve(
  route: Route,
  request: IncomingMessage,
  response: ServerResponse,
  stalled: () => void,
): Promise<void> {
  if (route.silent === true) return stalled();
  if (route.raw !== undefined) {
    request.socket.write(route.raw);
    return void request.socket.end();
  }
  const body = route.body ?? Buffer.alloc(0);
  const headers: Record<string, string> = { 'content-type': 'application/octet-stream', ...route.headers };
  if (route.etag !== undefined) headers['etag'] = route.etag;
  if (route.lastModified !== undefined) headers['last-modified'] = route.lastModified;
  let status = route.status ?? 200;
  let start = 0;
  const asked = /^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1];
  const unchanged = [undefined, route.etag, route.lastModified].includes(
    request.headers['if-range'] as string | undefined,
  );
  if (asked !== undefined && route.ranges !== false && unchanged && status === 200) {
    start = Number(asked);
    if (start >= body.length) {
      headers['content-range'] = `bytes */${body.length}`;
      status = 416;
    } else {
      status = 206;
      headers['content-range'] ??= `bytes ${start}-${body.length - 1}/${body.length}`;
    }
  }
  const rest = status === 416 ? Buffer.alloc(0) : body.subarray(start);
  if (route.length === 'close') response.useChunkedEncodingByDefault = false;
  else if (route.length !== 'chunked') headers['content-length'] = String(route.length ?? rest.length);
  response.on('error', () => {});
  response.writeHead(status, headers);
  response.flushHeaders();
  const limit = Math.min(rest.length, route.cutAfter ?? Infinity, route.stallAfter ?? Infinity);
  for (let sent = 0; sent < limit && !response.destroyed; ) {
    const { bytes: hold = limit, until } = route.holdAfter ?? {};
    if (sent >= hold) await until;
    const block = rest.subarray(sent, Math.min(sent + BLOCK_BYTES, sent < hold ? hold : limit, limit));
    sent += block.length;
    if (!response.write(block)) await drained(response);
    if (route.bytesPerSecond !== undefined) {
      await new Promise((resolve) => setTimeout(resolve, (block.length / (route.bytesPerSecond ?? 1)) * 1000));
    }
  }
  if (route.stallAfter !== undefined) stalled();
  else if (route.cutAfter !== undefined) request.socket.destroySoon();
  else if (route.length === 'close') response.end(() => request.socket.end());
  else response.end();
}

function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      response.off('drain', done);
      response.off('close', done);
      resolve();
    };
    response.on('drain', done);
    response.on('close', done);
  });
}
