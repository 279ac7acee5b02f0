import type { Dispatcher } from 'undici';
import { Failure } from '../../api/failure.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { KubeConfig } from './client-node.ts';

/** Where the API server is, and how one proves who one is. */
export interface Credentials {
  /** Without a slash at the end; may hold a path (Rancher, proxies). */
  readonly server: string;
  /** Namespace of the context, or of the pod. */
  readonly namespace: string | undefined;
  /** What every request needs now. */
  current(): Promise<Access>;
  /** The server did not like what it was given: reads files, plug-ins and certificates again. */
  renew(): Promise<void>;
  close(): Promise<void>;
}

export interface Access {
  headers: Record<string, string>;
  dispatcher: Dispatcher | undefined;
}

/** A projected token is renewed by the kubelet at 80 % of its life (at least 10 minutes): looked at this often, it never ends in our hands. */
const HEADERS_GOOD_FOR_MS = 30_000;

export interface CredentialsOptions {
  /** A kubeconfig file. Default, as kubectl has it: KUBECONFIG, ~/.kube/config, the pod's ServiceAccount. */
  kubeconfig?: string;
  /** Default: the file's current one. */
  context?: string;
  clock: Clock;
}

/**
 * Takes kubeconfig, tokens, plug-ins, client certificates and proxies from client-node, and nothing else: its own
 * `applySecurityAuthentication` makes a new connection pool (and a TLS handshake) for every request, so the pool is kept here.
 * @throws Failure InvalidSpec when there is no usable configuration
 */
export async function loadCredentials(options: CredentialsOptions): Promise<Credentials> {
  const loaded = await CredentialsImpl.load(options);
  await loaded.current();
  return loaded;
}

class CredentialsImpl implements Credentials {
  readonly #options: CredentialsOptions;
  #config: KubeConfig;
  #dispatcher: Dispatcher | undefined;
  #access: { value: Access; until: number } | undefined;
  #pending: Promise<Access> | undefined;

  constructor(options: CredentialsOptions, config: KubeConfig) {
    this.#options = options;
    this.#config = config;
  }

  static async load(options: CredentialsOptions): Promise<CredentialsImpl> {
    return new CredentialsImpl(options, await readConfig(options));
  }

  get server(): string {
    return (this.#config.getCurrentCluster()?.server ?? '').replace(/\/+$/, '');
  }

  get namespace(): string | undefined {
    return this.#config.getContextObject(this.#config.getCurrentContext())?.namespace;
  }

  current(): Promise<Access> {
    const { clock } = this.#options;
    if (this.#access !== undefined && clock.now() < this.#access.until) return Promise.resolve(this.#access.value);
    this.#pending ??= this.#authenticate().finally(() => {
      this.#pending = undefined;
    });
    return this.#pending;
  }

  async renew(): Promise<void> {
    const config = await readConfig(this.#options);
    this.#config = config;
    this.#access = undefined;
    const old = this.#dispatcher;
    this.#dispatcher = undefined;
    // Ends when the requests on it have; nobody waits for a watch's end.
    old?.close().catch(() => undefined);
  }

  async close(): Promise<void> {
    await this.#dispatcher?.destroy();
  }

  async #authenticate(): Promise<Access> {
    const { RequestContext, HttpMethod } = await import('./client-node.ts');
    const { clock } = this.#options;
    const context = new RequestContext(this.server, HttpMethod.GET);
    try {
      await this.#config.applySecurityAuthentication(context);
    } catch (error) {
      throw new Failure('Unauthorized', `the kubeconfig's credentials cannot be used: ${textOf(error)}`, {
        cause: error,
      });
    }
    // The first one is kept; those of later rounds were never connected, and go with the garbage.
    this.#dispatcher ??= overHttp1(context.getDispatcher());
    const value = { headers: context.getHeaders(), dispatcher: this.#dispatcher };
    this.#access = { value, until: clock.now() + HEADERS_GOOD_FOR_MS };
    return value;
  }
}

/**
 * A connection for each watch. In HTTP/2 the answer to a request that was stopped meanwhile becomes a stream that nobody listens to
 * (Node.js 24 takes it for a push), and its error at the end of the connection would end the process: `imageproxy wait a b` ended so.
 */
function overHttp1(dispatcher: Dispatcher | undefined): Dispatcher | undefined {
  return dispatcher?.compose((dispatch) => (options, handler) => {
    // Of this one request, as undici's Agent reads it; its types do not have it.
    const http1: Dispatcher.DispatchOptions & { allowH2: false } = { ...options, allowH2: false };
    return dispatch(http1, handler);
  });
}

/** Names of the kubeconfig's contexts. @throws Failure InvalidSpec when it cannot be read */
export async function contextsOf(kubeconfig: string | undefined): Promise<string[]> {
  return (await loadConfig(kubeconfig)).getContexts().map(({ name }) => name);
}

async function loadConfig(kubeconfig: string | undefined): Promise<KubeConfig> {
  const { KubeConfig } = await import('./client-node.ts');
  const config = new KubeConfig();
  try {
    if (kubeconfig === undefined) config.loadFromDefault();
    else config.loadFromFile(kubeconfig);
  } catch (error) {
    const file = kubeconfig ?? process.env['KUBECONFIG'] ?? 'the kubeconfig';
    throw new Failure('InvalidSpec', `${file} cannot be read: ${textOf(error)}`, { cause: error });
  }
  return config;
}

async function readConfig({ kubeconfig, context }: CredentialsOptions): Promise<KubeConfig> {
  const config = await loadConfig(kubeconfig);
  if (context !== undefined) {
    if (config.getContextObject(context) === null) {
      const known = config.getContexts().map(({ name }) => name);
      throw new Failure(
        'InvalidSpec',
        `the kubeconfig has no context ${context}; it has ${known.join(', ') || 'none'}`,
      );
    }
    config.setCurrentContext(context);
  }
  const cluster = config.getCurrentCluster();
  // client-node's last resort when nothing is configured: nobody's API server has been there for years.
  if (cluster === null || cluster.server === 'http://localhost:8080') {
    throw new Failure(
      'InvalidSpec',
      'no cluster is configured: give --kubeconfig FILE, set KUBECONFIG, or run in a pod with a ServiceAccount',
    );
  }
  return config;
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
