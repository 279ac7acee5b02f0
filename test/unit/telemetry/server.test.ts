import { once } from 'node:events';
import { connect } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Health } from '../../../src/telemetry/health.ts';
import { createLogger } from '../../../src/telemetry/log.ts';
import { createMetrics, type Metrics } from '../../../src/telemetry/metrics.ts';
import { serveTelemetry, type TelemetryServer } from '../../../src/telemetry/server.ts';

describe('the telemetry server', () => {
  const host = '127.0.0.1';
  const logged: string[] = [];
  const log = createLogger({ destination: { write: (line: string) => void logged.push(line) } });
  let stop: AbortController;
  let health: Health;
  let metrics: Metrics;
  let server: TelemetryServer;

  beforeEach(async () => {
    logged.length = 0;
    stop = new AbortController();
    health = new Health();
    metrics = createMetrics({ version: '1', process: false });
    server = await serveTelemetry({ host, port: 0, metrics, health, log }, stop.signal);
  });
  afterEach(async () => {
    stop.abort();
    await server.closed;
  });
  const get = (path: string, init?: RequestInit) => fetch(server.url + path, init);

  test('says which port it got', () => {
    expect(server.port).toBeGreaterThan(0);
    expect(server.url).toBe(`http://127.0.0.1:${server.port}`);
  });

  test('serves the metrics in their own content type', async () => {
    metrics.reconciled('VMImage', { seconds: 1 });
    const response = await get('/metrics');
    expect(response.status).toBe(200);
    expect(response.headers.get('content-type')).toContain('version=0.0.4');
    expect(await response.text()).toContain('imageproxy_reconcile_total{kind="VMImage"} 1');
  });

  test('is alive and ready when no check speaks against it', async () => {
    health.ready('store', () => undefined);
    expect(await (await get('/healthz')).text()).toBe('ok\n');
    expect(await (await get('/readyz?verbose')).text()).toBe('ok\nok store\n');
  });

  test('is alive but not ready while a readiness check fails, and names it with the reason first', async () => {
    let reason: string | undefined = 'first listing of VMImage is not complete';
    health.live('loop', () => undefined);
    health.ready('store', () => reason);
    const unready = await get('/readyz');
    expect(unready.status).toBe(503);
    expect(await unready.text()).toBe('failed store: first listing of VMImage is not complete\nok loop\n');
    expect((await get('/healthz')).status).toBe(200);
    reason = undefined;
    expect((await get('/readyz')).status).toBe(200);
  });

  test('is neither alive nor ready when a liveness check throws; credentials in the reason are hidden', async () => {
    health.live('cache', () => {
      throw new Error('cannot reach https://u:hunter2@host/');
    });
    for (const path of ['/healthz', '/livez', '/readyz']) {
      const response = await get(path);
      expect(response.status).toBe(503);
      expect(await response.text()).toBe('failed cache: cannot reach https://host/\n');
    }
  });

  test('does not wait for a check that hangs', async () => {
    health.ready('stuck', () => new Promise(() => undefined));
    const response = await get('/readyz');
    expect(response.status).toBe(503);
    expect(await response.text()).toBe('failed stuck: no answer within 900 ms\n');
  });

  test.each(['/', '/debug', '/metrics/', '/__proto__', '/constructor'])('answers 404 to %s', async (path) => {
    const response = await get(path);
    expect(response.status).toBe(404);
    expect(await response.text()).toBe('nothing here; there are /metrics, /healthz, /livez, /readyz\n');
  });

  test('refuses to be written to', async () => {
    const response = await get('/metrics', { method: 'POST', body: 'x' });
    expect(response.status).toBe(405);
    expect(response.headers.get('allow')).toBe('GET, HEAD');
  });

  test('answers HEAD without a body', async () => {
    const response = await get('/healthz', { method: 'HEAD' });
    expect(response.status).toBe(200);
    expect(response.headers.get('content-length')).toBe('3');
    expect(await response.text()).toBe('');
  });

  test('survives a client that does not speak HTTP', async () => {
    const socket = connect(server.port, host);
    socket.end('nonsense\r\n\r\n');
    const [bytes] = (await once(socket, 'data')) as [Buffer];
    expect(bytes.toString()).toMatch(/^HTTP\/1\.1 400 /);
    expect((await get('/healthz')).status).toBe(200);
  });

  test('answers 500 and logs the cause when the metrics cannot be read', async () => {
    metrics.watchImages(() => {
      throw new Error('index is broken');
    });
    const response = await get('/metrics');
    expect(response.status).toBe(500);
    expect(await response.text()).toBe('internal error\n');
    expect(logged.join('')).toContain('index is broken');
  });

  test('goes down with the signal, idle and half-open connections too', async () => {
    await get('/healthz');
    const half = connect(server.port, host);
    await once(half, 'connect');
    half.write('GET /metrics HTTP/1.1\r\n');
    half.on('error', () => undefined);
    stop.abort();
    await server.closed;
    await expect(get('/healthz')).rejects.toThrow();
  });

  test('tells which address is taken and what to do', async () => {
    await expect(serveTelemetry({ host, port: server.port, metrics, health, log }, stop.signal)).rejects.toThrow(
      `cannot serve metrics and health on 127.0.0.1:${server.port} (EADDRINUSE): free that port or give another one`,
    );
  });
});
