import { z } from 'zod';
import { Failure } from '../../api/failure.ts';
import type { CloudConfiguration } from './configuration.ts';
import { failureOf } from './errors.ts';
import type { Http } from './http.ts';

/** What a token says: who we are, and where Glance is. */
export interface Session {
  token: string;
  projectId: string;
  projectName: string;
  userName: string;
  region: string;
  /** Glance's endpoint without version, e.g. `https://glance:9292`. */
  imageEndpoint: string;
  /** Every URL of Keystone and Glance that is known: the internal and admin ones of the catalog too. */
  endpoints: readonly string[];
}

const Named = z.looseObject({ id: z.string(), name: z.string() });
const Endpoint = z.looseObject({
  interface: z.string(),
  region: z.string().nullish(),
  region_id: z.string().nullish(),
  url: z.string(),
});
const Answer = z.looseObject({
  token: z.looseObject({
    issued_at: z.string(),
    expires_at: z.string(),
    user: Named,
    project: Named.optional(),
    catalog: z.array(z.looseObject({ type: z.string(), endpoints: z.array(Endpoint) })).optional(),
  }),
});

/** As many as the status has room for; a catalog has three for each service and region. */
const MAX_ENDPOINTS = 64;

/** A token is renewed this long before it ends, or after three quarters of a short life. */
const MARGIN_MS = 120_000;

/** Tokens of one account in one project. One request for a token at a time, however many ask. */
export class Keystone {
  readonly #configuration: CloudConfiguration;
  readonly #http: Http;
  readonly #now: () => number;
  #current: { session: Session; renewAt: number } | undefined;
  #pending: Promise<Session> | undefined;

  constructor(configuration: CloudConfiguration, http: Http, now: () => number) {
    this.#configuration = configuration;
    this.#http = http;
    this.#now = now;
  }

  /** A session whose token is good for a while yet. @throws Failure */
  async session(signal: AbortSignal): Promise<Session> {
    // Before anything is asked: nobody would hear how that ends, and a rejection that nobody hears ends the process.
    if (signal.aborted) throw new Failure('Aborted', 'stopped');
    if (this.#current !== undefined && this.#now() < this.#current.renewAt) return this.#current.session;
    // Not bound to one asker's signal: his end is not the others'. The call itself has a deadline.
    this.#pending ??= this.#authenticate(new AbortController().signal).finally(() => {
      this.#pending = undefined;
    });
    return await unlessAborted(this.#pending, signal);
  }

  /** A service refused this token (revoked, or its key rotated away): the next `session` asks for a new one. */
  forget(token: string): void {
    if (this.#current?.session.token === token) this.#current = undefined;
  }

  async #authenticate(signal: AbortSignal): Promise<Session> {
    const { authUrl, cloud } = this.#configuration;
    const what = `Keystone at ${authUrl} gives no token for cloud ${cloud} of clouds.yaml`;
    const answer = await this.#http.call(
      {
        method: 'POST',
        url: `${authUrl}/auth/tokens`,
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ auth: authBody(this.#configuration) }),
      },
      signal,
    );
    if (answer.status !== 201 && answer.status !== 200) throw failureOf(what, answer, this.#now());
    const token = answer.headers['x-subject-token'];
    const parsed = Answer.safeParse(parseJson(answer.body));
    if (token === undefined || !parsed.success) {
      throw new Failure('ServerError', `${what}: the answer is not Keystone's (is auth_url right?)`);
    }
    const { issued_at, expires_at, project, user, catalog } = parsed.data.token;
    if (project === undefined) {
      throw new Failure(
        'Unauthorized',
        `${what}: the credentials are not scoped to a project: add project_name or project_id`,
      );
    }
    const place = imageEndpoint(this.#configuration, catalog ?? []);
    const session = {
      token,
      projectId: project.id,
      projectName: project.name,
      userName: user.name,
      ...place,
      endpoints: [...new Set([authUrl, place.imageEndpoint, ...ownEndpoints(catalog ?? [])])].slice(0, MAX_ENDPOINTS),
    };
    // Lifetime by Keystone's own two times: a clock that differs from ours does no harm.
    const life = Math.max(Date.parse(expires_at) - Date.parse(issued_at), 0) || 60_000;
    this.#current = { session, renewAt: this.#now() + life - Math.min(MARGIN_MS, life / 4) };
    return session;
  }
}

function authBody({ credentials }: CloudConfiguration): object {
  if (credentials.method === 'password') {
    return {
      identity: { methods: ['password'], password: { user: { ...credentials.user, password: credentials.password } } },
      scope: { project: credentials.project },
    };
  }
  const { id, name, secret, user } = credentials;
  // An application credential is bound to its project: Keystone refuses a scope beside it.
  return {
    identity: {
      methods: ['application_credential'],
      application_credential: id === undefined ? { name, secret, user } : { id, secret },
    },
  };
}

type Catalog = NonNullable<z.infer<typeof Answer>['token']['catalog']>;

/** Where the catalog has Keystone and Glance. Other services are no concern of ours; an object store may well hold images to fetch. */
function ownEndpoints(catalog: Catalog): string[] {
  return catalog
    .filter(({ type }) => type === 'identity' || type === 'image')
    .flatMap(({ endpoints }) => endpoints.map(({ url }) => url))
    .filter((url) => URL.canParse(url));
}

/** The catalog's word on where Glance is, by region and interface. */
export function imageEndpoint(
  configuration: Pick<CloudConfiguration, 'cloud' | 'region' | 'interface' | 'imageEndpoint'>,
  catalog: Catalog,
): { region: string; imageEndpoint: string } {
  if (configuration.imageEndpoint !== undefined) {
    return { region: configuration.region ?? '', imageEndpoint: withoutVersion(configuration.imageEndpoint) };
  }
  const all = catalog
    .filter((service) => service.type === 'image')
    .flatMap((service) => service.endpoints)
    .map((endpoint) => ({ ...endpoint, region: endpoint.region_id ?? endpoint.region ?? '' }));
  const fitting = all.filter(
    (endpoint) =>
      endpoint.interface === configuration.interface &&
      (configuration.region === undefined || endpoint.region === configuration.region),
  );
  const [found, second] = fitting;
  if (found !== undefined && (configuration.region !== undefined || second === undefined)) {
    return { region: found.region, imageEndpoint: withoutVersion(found.url) };
  }
  const there = [...new Set(all.map((endpoint) => `${endpoint.region} ${endpoint.interface}`))].sort().join(', ');
  if (found !== undefined) {
    throw new Failure('InvalidSecret', `spec.openstack.region: say which region is meant; the catalog has: ${there}`);
  }
  const asked = `${configuration.region ?? 'any region'} ${configuration.interface}`;
  throw new Failure(
    'SiteNotReady',
    all.length === 0
      ? `the catalog of cloud ${configuration.cloud} names no image service: has the account a role in the project?`
      : `the catalog of cloud ${configuration.cloud} has no image service at "${asked}"; it has: ${there} ` +
          '(spec.openstack.region and interface, or region_name and interface in clouds.yaml)',
  );
}

/** Catalogs tell `http://glance:9292`, `…/v2`, `…/v2.9/`: the version is ours to choose. */
function withoutVersion(url: string): string {
  return url.replace(/\/+$/, '').replace(/\/v[12](\.\d+)?$/, '');
}

async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise: stopped, reject } = Promise.withResolvers<never>();
  const stop = (): void => reject(new Failure('Aborted', 'stopped'));
  signal.addEventListener('abort', stop, { once: true });
  try {
    return await Promise.race([promise, stopped]);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
