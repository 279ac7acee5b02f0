import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { CheckResult, Health } from './health.ts';
import type { Logger } from './log.ts';
import type { Metrics } from './metrics.ts';
import { redactText } from './redact.ts';

export interface TelemetryOptions {
  host: string;
  /** 0 lets the system choose. */
  port: number;
  metrics: Metrics;
  health: Health;
  log: Logger;
}

export interface TelemetryServer {
  host: string;
  /** The port that is really listened on. */
  port: number;
  url: string;
  /** Resolves when the server is down, after the signal fired. */
  closed: Promise<void>;
}

/** Answers in the making get this long once the signal fired. */
const GRACE_MS = 1000;

interface Answer {
  status: number;
  contentType: string;
  body: string;
}

/**
 * `/metrics`, `/livez` (also as `/healthz`) and `/readyz` on one port, until the signal fires. Whoever can reach the port can read them; they hold
 * kinds, reasons and site names, no image and no secret.
 * @throws Error when it cannot listen, naming address and cure.
 */
export async function serveTelemetry(options: TelemetryOptions, signal: AbortSignal): Promise<TelemetryServer> {
  signal.throwIfAborted();
  const { host, log } = options;
  const server = createServer(
    // A scraper is one or two connections with short requests; all else is somebody who holds sockets open.
    {
      headersTimeout: 5000,
      requestTimeout: 5000,
      keepAliveTimeout: 30_000,
      connectionsCheckingInterval: 1000,
      maxHeaderSize: 8192,
    },
    (request, response) => {
      respond(options, request, response).catch((error: unknown) => {
        log.error({ err: error }, 'telemetry request failed');
        if (response.headersSent) response.destroy();
        else send(request, response, { status: 500, contentType: TEXT, body: 'internal error\n' });
      });
    },
  );
  server.maxConnections = 64;
  server.on('clientError', (_error, socket) => {
    if (socket.writable) socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
  });

  server.listen({ host, port: options.port });
  try {
    await once(server, 'listening', { signal });
  } catch (error) {
    server.close();
    if (signal.aborted) throw error;
    throw new Error(
      `cannot serve metrics and health on ${host}:${options.port} (${(error as NodeJS.ErrnoException).code ?? 'error'}): ` +
        'free that port or give another one; port 0 lets the system choose',
      { cause: error },
    );
  }
  server.on('error', (error) => log.error({ err: error }, 'telemetry server error'));

  const { port } = server.address() as AddressInfo;
  const closed = closeOn(server, signal);
  return { host, port, url: `http://${host.includes(':') ? `[${host}]` : host}:${port}`, closed };
}

function closeOn(server: Server, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  signal.addEventListener(
    'abort',
    () => {
      const cut = setTimeout(() => server.closeAllConnections(), GRACE_MS);
      server.close(() => {
        clearTimeout(cut);
        resolve();
      });
      server.closeIdleConnections();
    },
    { once: true },
  );
  return promise;
}

const TEXT = 'text/plain; charset=utf-8';

async function respond(options: TelemetryOptions, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const path = (request.url ?? '').split('?', 1)[0];
  const answer = ROUTES[path ?? ''];
  if (answer === undefined) {
    const body = `nothing here; there are ${Object.keys(ROUTES).join(', ')}\n`;
    send(request, response, { status: 404, contentType: TEXT, body });
  } else if (request.method !== 'GET' && request.method !== 'HEAD') {
    response.setHeader('Allow', 'GET, HEAD');
    send(request, response, { status: 405, contentType: TEXT, body: 'only GET and HEAD\n' });
  } else {
    send(request, response, await answer(options));
  }
}

const ROUTES: Readonly<Record<string, (options: TelemetryOptions) => Promise<Answer>>> = {
  __proto__: null as never,
  '/metrics': async ({ metrics }) => ({ status: 200, ...(await metrics.expose()) }),
  '/healthz': async ({ health }) => report(await health.checkLive()),
  '/livez': async ({ health }) => report(await health.checkLive()),
  '/readyz': async ({ health }) => report(await health.checkReady()),
};

/** One line a check, failed ones first, so that `curl` and a probe's event show the cause at once. */
function report(results: CheckResult[]): Answer {
  const failed = results.filter((result) => !result.ok);
  const lines = [
    ...failed.map(({ name, reason }) => `failed ${name}: ${redactText(reason ?? '')}`),
    ...results.filter((result) => result.ok).map(({ name }) => `ok ${name}`),
  ];
  if (failed.length === 0) lines.unshift('ok');
  return { status: failed.length === 0 ? 200 : 503, contentType: TEXT, body: `${lines.join('\n')}\n` };
}

function send(request: IncomingMessage, response: ServerResponse, answer: Answer): void {
  response.writeHead(answer.status, {
    'Content-Type': answer.contentType,
    'Content-Length': Buffer.byteLength(answer.body),
    'Cache-Control': 'no-store',
    'X-Content-Type-Options': 'nosniff',
  });
  response.end(request.method === 'HEAD' ? undefined : answer.body);
}
