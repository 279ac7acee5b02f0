import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http';

/**
 * A proxy on loopback that stands before a real server and spoils chosen requests: answers them itself, cuts them after some
 * bytes, or lets them wait. What is not chosen goes through, streamed, byte for byte.
 */

export interface Fault {
  method?: string;
  /** Against path and query. */
  path?: RegExp;
  /** How many matching requests are spoiled; default 1, `Infinity` for all. */
  times?: number;
  /** Matching requests that go through before the first spoiled one; default 0. */
  after?: number;
  /** Answered without asking the server. The body of the request is read to its end first. */
  answer?: { status: number; headers?: Record<string, string>; body?: string };
  /** Both connections are destroyed when this many bytes of the request's body have gone through. */
  cutAfterBytes?: number;
  /** With `cutAfterBytes`: awaited before the cut, e.g. until the server has noticed the request. */
  beforeCut?: () => Promise<void>;
  /** The server gets the request and acts on it; its answer never comes back. */
  dropAnswer?: true;
  /** Awaited before the request is passed on. */
  wait?: () => Promise<void>;
  /** The server has acted and answered; called before the answer goes back. */
  answered?: () => void;
}

export interface Seen {
  method: string;
  path: string;
  /** 0 when there was no answer. */
  status: number;
  headers: IncomingMessage['headers'];
}

export interface FaultProxy {
  readonly url: string;
  /** Every request, in the order in which they came. */
  readonly seen: Seen[];
  /** Adds a fault; the first one that matches is used. */
  fault(fault: Fault): void;
  /** From now on everything goes through; `seen` is emptied. */
  clear(): void;
  stop(): Promise<void>;
}

export async function startFaultProxy(target: string): Promise<FaultProxy> {
  const upstream = new URL(target);
  const seen: Seen[] = [];
  let faults: (Fault & { left: number; skip: number })[] = [];

  const server = createServer((incoming, outgoing) => {
    const entry: Seen = {
      method: incoming.method ?? '',
      path: incoming.url ?? '',
      status: 0,
      headers: incoming.headers,
    };
    seen.push(entry);
    outgoing.once('close', () => {
      if (outgoing.headersSent) entry.status = outgoing.statusCode;
    });
    const fault = faults.find((candidate) => {
      if (candidate.method !== undefined && candidate.method !== entry.method) return false;
      if (candidate.path !== undefined && !candidate.path.test(entry.path)) return false;
      if (candidate.skip > 0) {
        candidate.skip -= 1;
        return false;
      }
      return candidate.left > 0;
    });
    if (fault !== undefined) fault.left -= 1;
    if (fault?.answer !== undefined) answer(fault.answer, incoming, outgoing);
    else if (fault?.wait === undefined) pass(upstream, incoming, outgoing, fault);
    else void fault.wait().then(() => pass(upstream, incoming, outgoing, fault));
  });
  // Only the client ends a connection: the server could in the moment in which the next request is sent on it.
  server.keepAliveTimeout = 0;
  const port = await listen(server);

  return {
    url: `http://127.0.0.1:${port}`,
    seen,
    fault: (fault) => void faults.push({ ...fault, left: fault.times ?? 1, skip: fault.after ?? 0 }),
    clear: () => {
      faults = [];
      seen.length = 0;
    },
    stop: async () => {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
    },
  };
}

function answer(reply: NonNullable<Fault['answer']>, incoming: IncomingMessage, outgoing: ServerResponse): void {
  incoming.resume();
  incoming.once('end', () => outgoing.writeHead(reply.status, reply.headers).end(reply.body ?? ''));
}

function pass(upstream: URL, incoming: IncomingMessage, outgoing: ServerResponse, fault: Fault | undefined): void {
  const forward = request({
    host: upstream.hostname,
    port: upstream.port,
    method: incoming.method,
    path: incoming.url,
    headers: { ...incoming.headers, host: upstream.host },
  });
  const destroy = (): void => {
    forward.destroy();
    incoming.socket.destroy();
  };
  forward.once('error', destroy);
  incoming.once('error', destroy);
  outgoing.once('close', () => {
    if (!outgoing.writableFinished) forward.destroy();
  });
  forward.once('response', (reply) => {
    fault?.answered?.();
    if (fault?.dropAnswer === true) {
      reply.resume();
      reply.once('end', destroy);
      return;
    }
    outgoing.writeHead(reply.statusCode ?? 502, reply.rawHeaders);
    reply.pipe(outgoing);
  });

  const limit = fault?.cutAfterBytes;
  if (limit === undefined) {
    incoming.pipe(forward);
    return;
  }
  let passed = 0;
  incoming.on('data', (chunk: Buffer) => {
    const rest = chunk.subarray(0, limit - passed);
    passed += rest.length;
    if (rest.length === 0) return;
    forward.write(rest, () => {
      if (passed >= limit) void (fault?.beforeCut?.() ?? Promise.resolve()).then(destroy, destroy);
    });
  });
  incoming.once('end', () => forward.end());
}

async function listen(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}
