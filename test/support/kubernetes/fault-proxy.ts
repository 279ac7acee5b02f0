import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { Agent, request } from 'node:https';
import type { ApiServer } from '../apiserver.ts';

/** What happens to requests whose path and query match. */
export interface ApiFault {
  path: RegExp;
  /** Default 1. */
  times?: number;
  status: number;
  headers?: Record<string, string>;
  body?: object;
}

export interface ApiFaultProxy {
  readonly url: string;
  /** `GET /apis/…?watch=true`, in the order of coming. */
  readonly seen: string[];
  fault(fault: ApiFault): void;
  /** Ends all watches that are open, in the middle of a line or not. Returns how many there were. */
  cutWatches(): number;
  /** Watches deliver nothing more, and no end either: a machine in between has lost its power. */
  freezeWatches(): void;
  /** Sends this line to all open watches, as if the server had. */
  inject(event: object): void;
  readonly openWatches: number;
  stop(): Promise<void>;
}

/** Plain HTTP in front of a real API server: what goes wrong between us and it. */
export async function startApiFaultProxy(server: ApiServer): Promise<ApiFaultProxy> {
  const upstream = new URL(server.url);
  const agent = new Agent({ ca: await server.ca(), keepAlive: true });
  const seen: string[] = [];
  const faults: (ApiFault & { left: number })[] = [];
  const watches = new Set<{ outgoing: ServerResponse; incoming: IncomingMessage }>();

  const listener = createServer((incoming, outgoing) => {
    const path = incoming.url ?? '';
    seen.push(`${incoming.method} ${path}`);
    const fault = faults.find((each) => each.left > 0 && each.path.test(path));
    if (fault !== undefined) {
      fault.left--;
      incoming.resume();
      outgoing.writeHead(fault.status, { 'content-type': 'application/json', ...fault.headers });
      outgoing.end(JSON.stringify(fault.body ?? {}));
      return;
    }
    const forward = request(
      {
        agent,
        host: upstream.hostname,
        port: upstream.port,
        method: incoming.method,
        path,
        headers: { ...incoming.headers, host: upstream.host },
      },
      (answer) => {
        outgoing.writeHead(answer.statusCode ?? 502, answer.rawHeaders);
        // A watch on which nothing happens must show its head all the same.
        outgoing.flushHeaders();
        answer.pipe(outgoing);
        answer.once('error', () => outgoing.destroy());
        if (!path.includes('watch=true')) return;
        const watch = { outgoing, incoming: answer };
        watches.add(watch);
        outgoing.once('close', () => watches.delete(watch));
      },
    );
    forward.once('error', () => outgoing.destroy());
    outgoing.once('close', () => forward.destroy());
    incoming.pipe(forward);
  });
  // Only the client ends a connection: the server could in the moment in which the next request is sent on it.
  listener.keepAliveTimeout = 0;
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  const address = listener.address();
  if (address === null || typeof address === 'string') throw new Error('no port');

  return {
    url: `http://127.0.0.1:${address.port}`,
    seen,
    fault: (fault) => void faults.push({ ...fault, left: fault.times ?? 1 }),
    cutWatches() {
      const open = [...watches];
      // Now, and not when their sockets have closed: who waits for watches to be open again would count the dead ones.
      watches.clear();
      for (const { outgoing } of open) outgoing.destroy();
      return open.length;
    },
    freezeWatches() {
      for (const { incoming, outgoing } of watches) incoming.unpipe(outgoing);
    },
    inject(event) {
      for (const { outgoing } of watches) outgoing.write(`${JSON.stringify(event)}\n`);
    },
    get openWatches() {
      return watches.size;
    },
    async stop() {
      const closed = new Promise((resolve) => listener.close(resolve));
      listener.closeAllConnections();
      agent.destroy();
      await closed;
    },
  };
}
