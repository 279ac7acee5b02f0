import { type ChildProcess, spawn } from 'node:child_process';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { Agent, request } from 'undici';
import { parse } from 'yaml';
import { API_KINDS, readCrd } from '../../src/api/crds.ts';
import { ApiError } from '../../src/runtime/api-error.ts';
import { systemClock } from '../../src/runtime/clock.ts';
import { ApiClient, type ApiRequest, PATCH } from '../../src/stores/kubernetes/client.ts';
import { loadCredentials } from '../../src/stores/kubernetes/credentials.ts';
import { type Binaries, findBinaries, type Part } from './kubernetes/binaries.ts';
import { freePorts } from './ports.ts';

const CRDS = join(import.meta.dirname, '..', '..', 'crds');

export interface ApiServerOptions {
  /** Also the controllers that make a cluster of an API server: garbage collection, ServiceAccount tokens. */
  controllerManager?: boolean;
  /** Whether our CRDs are installed; default true. */
  crds?: boolean;
  /** Whether it keeps a log of who asked for what: `ApiServer.audit`. */
  audit?: boolean;
}

/** A hook that starts one needs this long at the most: where nothing is cached, Kubernetes is built first. */
export const API_SERVER_PATIENCE_MS = 15 * 60_000;

/**
 * A real kube-apiserver and etcd on loopback, private to one temporary directory, with our CRDs. With TEST_KUBECONFIG, the cluster
 * that it names instead, which is not ours to stop.
 */
export async function startApiServer(options: ApiServerOptions = {}): Promise<ApiServer> {
  const named = process.env['TEST_KUBECONFIG'];
  const server =
    named === undefined || named === ''
      ? await ApiServer.start(
          await findBinaries(options.controllerManager === true ? WITH_CONTROLLERS : undefined),
          options.audit === true,
        )
      : await ApiServer.at(named);
  try {
    if (options.crds !== false) await server.installCrds();
    if (options.controllerManager === true) await server.startControllers();
  } catch (error) {
    await server.stop();
    throw error;
  }
  return server;
}

const WITH_CONTROLLERS: readonly Part[] = ['etcd', 'kube-apiserver', 'kube-controller-manager', 'kubectl'];

interface Own {
  binaries: Binaries;
  directory: string;
  ports: { api: number; etcd: number; peer: number };
  tokens: { admin: string; controllers: string };
  audit: boolean;
}

/** Who asked for what, and with which outcome; the end of each request only. */
const AUDIT_POLICY = {
  apiVersion: 'audit.k8s.io/v1',
  kind: 'Policy',
  rules: [{ level: 'Metadata' }],
  omitStages: ['RequestReceived'],
};

/** One answered request, as far as tests look at it (audit.k8s.io/v1). */
export interface AuditEvent {
  /** Of the server's clock, to the microsecond (RFC 3339): events are logged in the order in which requests end, a moment after that. */
  requestReceivedTimestamp: string;
  verb: string;
  requestURI: string;
  user: { username: string };
  objectRef?: { apiGroup?: string; resource: string; subresource?: string; namespace?: string; name?: string };
  responseStatus?: { code: number };
  annotations?: Record<string, string>;
}

interface ConfigOptions {
  tokenFile?: string;
  server?: string;
  namespace?: string;
}

interface Named {
  kind?: string;
  metadata: { name: string; namespace?: string; resourceVersion?: string };
}

export class ApiServer {
  /** For clients that may do everything. */
  readonly kubeconfig: string;
  readonly #own: Own | undefined;
  readonly #processes = new Map<Part, ChildProcess>();
  #client: ApiClient | undefined;
  readonly #end = new AbortController();

  private constructor(kubeconfig: string, own?: Own) {
    this.kubeconfig = kubeconfig;
    this.#own = own;
  }

  static async at(kubeconfig: string): Promise<ApiServer> {
    const server = new ApiServer(kubeconfig);
    await server.#connect();
    return server;
  }

  static async start(binaries: Binaries, audit = false): Promise<ApiServer> {
    const directory = await mkdtemp(join(tmpdir(), 'imageproxy-apiserver-'));
    const [api, etcd, peer] = (await freePorts(3)) as [number, number, number];
    const tokens = { admin: randomBytes(16).toString('hex'), controllers: randomBytes(16).toString('hex') };
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    await writeFile(join(directory, 'sa.pub'), publicKey.export({ type: 'spki', format: 'pem' }));
    await writeFile(join(directory, 'sa.key'), privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
    await writeFile(
      join(directory, 'tokens.csv'),
      `${tokens.admin},admin,admin,"system:masters"\n${tokens.controllers},system:kube-controller-manager,controllers\n`,
      { mode: 0o600 },
    );
    const server = new ApiServer(join(directory, 'kubeconfig'), {
      binaries,
      directory,
      ports: { api, etcd, peer },
      tokens,
      audit,
    });
    try {
      await server.startEtcd();
      await server.startServer();
      await server.#writeConfig('kubeconfig', tokens.admin);
      await server.#connect();
    } catch (error) {
      await server.stop();
      throw error;
    }
    return server;
  }

  /** Whether its processes are ours, so that they may be stopped and started. */
  get isOwn(): boolean {
    return this.#own !== undefined;
  }

  get url(): string {
    return `https://127.0.0.1:${this.#mine().ports.api}`;
  }

  /** What a client of ours must send to be an administrator. */
  get token(): string {
    return this.#mine().tokens.admin;
  }

  /** PEM of what the server's certificate is verified by. */
  async ca(): Promise<string> {
    return readFile(join(this.#mine().directory, 'pki', 'apiserver.crt'), 'utf8');
  }

  /** Requests as an administrator: what a user does with kubectl. */
  request<T = Named>(call: ApiRequest): Promise<T> {
    if (this.#client === undefined) throw new Error('the API server was not started');
    return this.#client.request<T>(call);
  }

  /** Server-side apply of one object, as `kubectl apply --server-side` does it. */
  async apply<T = Named>(path: string, object: object): Promise<T> {
    const query = { fieldManager: 'kubectl', force: 'true', fieldValidation: 'Strict' };
    return this.request<T>({ method: 'PATCH', path, query, contentType: PATCH.apply, body: object });
  }

  async namespace(name: string): Promise<void> {
    const body = { apiVersion: 'v1', kind: 'Namespace', metadata: { name } };
    await this.apply(`/api/v1/namespaces/${name}`, body);
  }

  /** Resolves when the kinds can be used. */
  async installCrds(): Promise<void> {
    const path = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions';
    for (const kind of API_KINDS) {
      const { group, version } = readCrd(kind, CRDS);
      const definition = await crdFile(kind);
      await this.apply(`${path}/${definition.metadata.name}`, definition);
      const plural = definition.metadata.name.split('.')[0];
      await eventually(`the API server serves ${kind}`, () =>
        this.request({ method: 'GET', path: `/apis/${group}/${version}/${plural}`, query: { limit: '1' } }),
      );
    }
  }

  async startEtcd(): Promise<void> {
    const { directory, ports } = this.#mine();
    const [client, peer] = [`http://127.0.0.1:${ports.etcd}`, `http://127.0.0.1:${ports.peer}`];
    await this.#spawn('etcd', [
      `--data-dir=${join(directory, 'etcd')}`,
      `--listen-client-urls=${client}`,
      `--advertise-client-urls=${client}`,
      `--listen-peer-urls=${peer}`,
      `--initial-advertise-peer-urls=${peer}`,
      `--initial-cluster=default=${peer}`,
      '--unsafe-no-fsync',
      '--log-level=error',
    ]);
  }

  /** Resolves when it is ready. After `killServer`: the same port, the same data, the same certificate. */
  async startServer(args: readonly string[] = []): Promise<void> {
    const { directory, ports, audit } = this.#mine();
    if (audit) await writeFile(join(directory, 'audit-policy.json'), JSON.stringify(AUDIT_POLICY));
    await this.#spawn('kube-apiserver', [
      `--etcd-servers=http://127.0.0.1:${ports.etcd}`,
      '--bind-address=127.0.0.1',
      '--advertise-address=127.0.0.1',
      `--secure-port=${ports.api}`,
      // It signs its own certificate for the addresses it listens on.
      `--cert-dir=${join(directory, 'pki')}`,
      `--token-auth-file=${join(directory, 'tokens.csv')}`,
      `--service-account-key-file=${join(directory, 'sa.pub')}`,
      `--service-account-signing-key-file=${join(directory, 'sa.key')}`,
      '--service-account-issuer=https://kubernetes.default.svc',
      '--service-cluster-ip-range=10.96.0.0/16',
      '--authorization-mode=RBAC',
      '--endpoint-reconciler-type=none',
      ...(audit
        ? [
            `--audit-policy-file=${join(directory, 'audit-policy.json')}`,
            `--audit-log-path=${join(directory, 'audit.log')}`,
          ]
        : []),
      ...args,
    ]);
    const insecure = new Agent({ connect: { rejectUnauthorized: false } });
    try {
      await eventually(
        'the API server is ready',
        async () => {
          const { statusCode, body } = await request(`${this.url}/readyz`, {
            dispatcher: insecure,
            headers: { authorization: `Bearer ${this.token}` },
          });
          await body.dump();
          if (statusCode !== 200) throw new Error(`/readyz answered ${statusCode}`);
        },
        async () => (await this.#obituary('etcd')) ?? this.#obituary('kube-apiserver'),
      );
    } finally {
      await insecure.close();
    }
  }

  /** It waits for the API server: started before, it would cache "forbidden" and back off. */
  async startControllers(): Promise<void> {
    if (this.#own === undefined) return;
    const { directory, tokens } = this.#own;
    await this.#writeConfig('controllers.kubeconfig', tokens.controllers);
    await this.#spawn('kube-controller-manager', [
      `--kubeconfig=${join(directory, 'controllers.kubeconfig')}`,
      `--service-account-private-key-file=${join(directory, 'sa.key')}`,
      // Without it each controller would need rights that RBAC gives to its own ServiceAccount only.
      '--use-service-account-credentials=true',
      '--leader-elect=false',
      '--secure-port=0',
    ]);
  }

  /** Every request that has been answered so far, watches included; the last ones may be missing yet. */
  async audit(): Promise<AuditEvent[]> {
    const text = await readFile(join(this.#mine().directory, 'audit.log'), 'utf8');
    const lines = text.slice(0, text.lastIndexOf('\n')).split('\n');
    return lines.filter((line) => line !== '').map((line) => JSON.parse(line) as AuditEvent);
  }

  /** As when its machine is gone: SIGKILL. */
  async killServer(): Promise<void> {
    await this.#kill('kube-apiserver');
  }

  /** SIGSTOP or SIGCONT for etcd: a disk that hangs. */
  pauseEtcd(paused: boolean): void {
    this.#processes.get('etcd')?.kill(paused ? 'SIGSTOP' : 'SIGCONT');
  }

  /** A kubeconfig of ours with another address, token, or namespace of its context. */
  async writeConfig(name: string, options: ConfigOptions & { token?: string }): Promise<string> {
    return this.#writeConfig(name, options.token ?? this.token, options);
  }

  /** Stops what was started; the API server before its etcd, without which it would hang in its own shutdown. */
  async stop(): Promise<void> {
    this.#end.abort();
    for (const part of ['kube-controller-manager', 'kube-apiserver', 'etcd'] as const) await this.#kill(part);
    if (this.#own !== undefined) await rm(this.#own.directory, { recursive: true, force: true, maxRetries: 3 });
  }

  #mine(): Own {
    if (this.#own === undefined) throw new Error('this cluster is not ours: TEST_KUBECONFIG names it');
    return this.#own;
  }

  async #connect(): Promise<void> {
    const credentials = await loadCredentials({ kubeconfig: this.kubeconfig, clock: systemClock });
    this.#client = new ApiClient(credentials, systemClock, this.#end.signal);
    this.#end.signal.addEventListener('abort', () => void credentials.close(), { once: true });
  }

  async #writeConfig(
    name: string,
    token: string,
    { tokenFile, server = this.url, namespace }: ConfigOptions = {},
  ): Promise<string> {
    const { directory } = this.#mine();
    const ca = join(directory, 'pki', 'apiserver.crt');
    // A fault proxy in front speaks plain HTTP; client-node allows that only where nobody expects TLS.
    const trust = server.startsWith('https:') ? { 'certificate-authority': ca } : { 'insecure-skip-tls-verify': true };
    const user =
      tokenFile === undefined ? { token } : { 'auth-provider': { name: 'tokenFile', config: { tokenFile } } };
    const config = {
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [{ name: 'test', cluster: { server, ...trust } }],
      users: [{ name: 'test', user }],
      contexts: [{ name: 'test', context: { cluster: 'test', user: 'test', ...(namespace && { namespace }) } }],
      'current-context': 'test',
    };
    const path = join(directory, name);
    await writeFile(path, JSON.stringify(config), { mode: 0o600 });
    return path;
  }

  async #spawn(part: Part, args: readonly string[]): Promise<void> {
    const { binaries, directory } = this.#mine();
    const log = await open(join(directory, `${part}.log`), 'a');
    const program = join(binaries.directory, part);
    // Where util-linux is, the kernel ends it with us, whatever ends us.
    const [command, ...rest] = existsSync(SETPRIV) ? [SETPRIV, '--pdeathsig=KILL', program] : [program];
    const child = spawn(command, [...rest, ...args], { stdio: ['ignore', log.fd, log.fd] });
    await log.close();
    this.#processes.set(part, child);
    RUNNING.add(child);
    child.once('exit', () => RUNNING.delete(child));
  }

  async #kill(part: Part): Promise<void> {
    const child = this.#processes.get(part);
    this.#processes.delete(part);
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await gone;
  }

  /** Why it will never be ready, when it has ended. */
  async #obituary(part: Part): Promise<string | undefined> {
    const child = this.#processes.get(part);
    if (child === undefined || (child.exitCode === null && child.signalCode === null)) return undefined;
    const log = await readFile(join(this.#mine().directory, `${part}.log`), 'utf8');
    return `${part} ended; the end of its log:\n${log.split('\n').slice(-20).join('\n')}`;
  }
}

const SETPRIV = '/usr/bin/setpriv';
/** What a loaded machine needs longer for (an API server's start takes a processor for seconds) has not failed. */
const PATIENCE_MS = 240_000;

/** A worker that dies takes its servers along. */
const RUNNING = new Set<ChildProcess>();
process.once('exit', () => {
  for (const child of RUNNING) child.kill('SIGKILL');
});

async function crdFile(kind: string): Promise<{ metadata: { name: string } }> {
  const plural = `${kind.toLowerCase()}s`;
  const text = await readFile(join(CRDS, `imageproxy.dev_${plural}.yaml`), 'utf8');
  return parse(text, { merge: true, maxAliasCount: -1 }) as { metadata: { name: string } };
}

/** Asks until it works; what still fails in the end is thrown. */
export async function eventually<T>(
  what: string,
  ask: () => Promise<T>,
  hopeless: () => Promise<string | undefined> = () => Promise.resolve(undefined),
): Promise<T> {
  const end = performance.now() + PATIENCE_MS;
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      const why = await hopeless();
      if (why !== undefined) throw new Error(why, { cause: error });
      if (performance.now() > end || (error instanceof ApiError && error.status === 403)) {
        throw new Error(`it never came to pass that ${what}`, { cause: error });
      }
    }
    await wait(25);
  }
}
