import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import { createLogger, forResource, type LogOptions, type Logger } from '../../../src/telemetry/log.ts';

function capture(options: Omit<LogOptions, 'destination'> = {}): { log: Logger; lines: string[] } {
  const lines: string[] = [];
  const log = createLogger({
    now: () => Date.UTC(2026, 0, 2, 3, 4, 5, 6),
    ...options,
    destination: { write: (line: string) => void lines.push(line) },
  });
  return { log, lines };
}

function only(lines: string[]): Record<string, unknown> {
  expect(lines).toHaveLength(1);
  return JSON.parse(lines[0] ?? '') as Record<string, unknown>;
}

const SECRET = 'hunter2-CORRECT-horse';
const SECRET_KEYS = [
  'password',
  'adminPassword',
  'Authorization',
  'proxy-authorization',
  'x-auth-token',
  'X-Subject-Token',
  'token',
  'application_credential_secret',
  'clientSecret',
  'clouds.yaml',
  'cookie',
  'Set-Cookie',
  'aws_secret_access_key',
  'secretHeaders',
  'privateKey',
  'kubeconfig',
];

describe('lines', () => {
  test('are one JSON object with time, level and message', () => {
    const { log, lines } = capture();
    log.info({ bytes: 3 }, 'fetched');
    expect(lines[0]).toBe('{"level":"info","time":"2026-01-02T03:04:05.006Z","bytes":3,"msg":"fetched"}\n');
  });

  test('below the level are not written', () => {
    const { log, lines } = capture({ level: 'warn' });
    log.info('quiet');
    log.warn('loud');
    expect(only(lines)['msg']).toBe('loud');
  });

  test('of a resource carry its kind, namespace and name', () => {
    const { log, lines } = capture();
    forResource(log, { kind: 'VMImage', namespace: 'default', name: 'ubuntu' }).info('x');
    expect(only(lines)).toMatchObject({ kind: 'VMImage', namespace: 'default', name: 'ubuntu' });
  });

  test('of a cluster-scoped resource have no namespace', () => {
    const { log, lines } = capture();
    forResource(log, { kind: 'ImageSite', name: 'nova' }).info('x');
    expect(only(lines)).not.toHaveProperty('namespace');
  });

  test('show an error with its reason, stack and causes', () => {
    const { log, lines } = capture();
    log.error({ err: new Failure('Timeout', 'no answer', { cause: new TypeError('inner') }) }, 'fetch failed');
    expect(only(lines)['err']).toMatchObject({
      type: 'Failure',
      message: 'no answer',
      reason: 'Timeout',
      stack: expect.stringContaining('log.test.ts') as unknown,
      cause: { type: 'TypeError', message: 'inner' },
    });
  });

  test('end for a structure that contains itself', () => {
    const { log, lines } = capture();
    const loop: Record<string, unknown> = {};
    loop['self'] = loop;
    log.info({ loop, many: Array.from({ length: 1000 }, (_, i) => i) }, 'x');
    expect(lines[0]?.length).toBeLessThan(1000);
    expect(only(lines)['many']).toHaveLength(51);
  });
});

describe('secrets', () => {
  const nested = fc.letrec((tie) => ({
    value: fc.oneof({ maxDepth: 8 }, fc.string(), fc.integer(), tie('object'), tie('array')),
    object: fc.dictionary(fc.string(), tie('value'), { maxKeys: 4 }),
    array: fc.array(tie('value'), { maxLength: 4 }),
  }));
  type Path = (string | number)[];

  /** Puts a secret somewhere into a structure, below a key that names it as one. */
  function plant(into: unknown, path: Path, key: string, secret: unknown): Record<string, unknown> {
    let place: unknown = { [key]: secret };
    for (const step of path.toReversed()) place = typeof step === 'number' ? [place] : { [step]: place };
    return { into, planted: place };
  }
  const paths: fc.Arbitrary<Path> = fc.array(fc.oneof(fc.string(), fc.constant(0)), { maxLength: 5 });
  const secrets = fc.oneof(
    fc.constant<unknown>(SECRET),
    fc.constant<unknown>([SECRET]),
    fc.constant<unknown>({ any: { name: SECRET } }),
    fc.constant<unknown>(new Map([['k', SECRET]])),
  );

  test('named as such never appear in a line, at whatever depth and in whatever shape', () => {
    fc.assert(
      fc.property(nested.object, paths, fc.constantFrom(...SECRET_KEYS), secrets, (into, path, key, secret) => {
        const { log, lines } = capture();
        const fields = plant(into, path, key, secret);
        log.info(fields, 'as fields');
        log.child(fields).info('as a child');
        log.child({}).child(fields).info({ more: 1 }, 'as a grandchild');
        log.error({ err: Object.assign(new Error('x'), fields) }, 'on an error');
        log.error({ err: new Error('x', { cause: Object.assign(new Error('y'), fields) }) }, 'on a cause');
        expect(lines).toHaveLength(5);
        for (const line of lines) {
          expect(line).not.toContain(SECRET);
          JSON.parse(line);
        }
      }),
      { numRuns: 300 },
    );
  });

  test('of a Kubernetes Secret go under any key', () => {
    const { log, lines } = capture();
    const text = { user: SECRET };
    log.info({ secret: null, object: { kind: 'Secret', metadata: { name: 'x' }, data: text, stringData: text } }, 'x');
    expect(lines[0]).not.toContain(SECRET);
    expect(only(lines)).toMatchObject({ secret: null, object: { metadata: { name: 'x' } } });
  });

  test('as bytes are told by their length only', () => {
    const { log, lines } = capture();
    log.info({ body: Buffer.from(SECRET) }, 'x');
    expect(only(lines)['body']).toBe(`[${SECRET.length} bytes]`);
  });

  test.each([
    [`GET https://user:${SECRET}@host:8443/a/b.qcow2`, 'GET https://host:8443/a/b.qcow2'],
    [`GET https://user:a@${SECRET}@host/x`, 'GET https://host/x'],
    [`GET https://host/x?X-Amz-Signature=${SECRET}#frag`, 'GET https://host/x?[redacted]#frag'],
    [`sent Authorization: Bearer ${SECRET} to it`, 'sent Authorization: Bearer [redacted] to it'],
    [`Basic ${Buffer.from(SECRET).toString('base64')}`, 'Basic [redacted]'],
    [`key -----BEGIN EC PRIVATE KEY-----\n${SECRET}\n-----END EC PRIVATE KEY----- end`, 'key [redacted] end'],
    [`cut -----BEGIN PRIVATE KEY-----\n${SECRET}`, 'cut [redacted]'],
    ['Basic authentication with https://host/path is fine', 'Basic authentication with https://host/path is fine'],
  ])('inside a text are taken out: %s', (text, shown) => {
    const { log, lines } = capture();
    log.info(text);
    log.info({ nested: { text } }, '%s', text);
    log.error(new Error(text));
    log.child({ text }).info('x');
    const parsed = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(lines.join('')).not.toContain(SECRET);
    expect(parsed[0]?.['msg']).toBe(shown);
    expect(parsed[1]).toMatchObject({ msg: shown, nested: { text: shown } });
    expect(parsed[2]).toMatchObject({ msg: shown, err: { message: shown } });
    expect(parsed[3]).toMatchObject({ text: shown });
  });

  test('redaction leaves what only names a secret', () => {
    const { log, lines } = capture();
    log.info({ secretRef: { name: 'origin' }, key: 'default/ubuntu', tokenized: 1 }, 'x');
    expect(only(lines)).toMatchObject({ secretRef: { name: 'origin' }, key: 'default/ubuntu', tokenized: 1 });
  });
});

describe('pretty lines', () => {
  test('show time, level, resource, message and fields', () => {
    const { log, lines } = capture({ pretty: true });
    forResource(log, { kind: 'VMImage', namespace: 'default', name: 'ubuntu' }).info(
      { bytes: 3, to: ['a'] },
      'fetched',
    );
    expect(lines).toEqual(['03:04:05.006 INF VMImage default/ubuntu fetched bytes=3 to=["a"]\n']);
  });

  test('show an error below, with its causes', () => {
    const { log, lines } = capture({ pretty: true });
    log.error({ err: new Error('outer', { cause: new Error('inner') }) }, 'failed');
    expect(lines[0]).toMatch(
      /^03:04:05\.006 ERR failed\n {4}Error: outer\n[^]*\n {4}caused by\n {4}Error: inner\n[^]*\n$/,
    );
  });

  test('hide secrets as well', () => {
    const { log, lines } = capture({ pretty: true });
    log.info({ a: { password: SECRET } }, `https://u:${SECRET}@host/`);
    expect(lines[0]).toBe('03:04:05.006 INF https://host/ a={"password":"[redacted]"}\n');
  });

  test('do not let a stranger steer the terminal', () => {
    const { log, lines } = capture({ pretty: true });
    log.info({ title: '\u001b[2Jx\r\ny' }, 'list says \u001b]0;evil\u0007');
    expect(lines[0]?.trimEnd()).not.toMatch(/\p{Cc}/u);
  });
});
