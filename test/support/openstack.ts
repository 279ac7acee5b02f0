import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { cp, mkdir, mkdtemp, open, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { DatabaseSync, backup } from 'node:sqlite';
import { request } from 'undici';
import { configurationFiles, type Knobs, type Places } from './openstack/configuration.ts';
import { freePorts } from './ports.ts';

/**
 * A real Keystone and a real Glance on loopback unless told otherwise, private to one temporary directory, from Debian's python3-keystone and
 * python3-glance. Several may run side by side.
 */

/** Not the first python3 of PATH: only the system's own sees the Debian modules. */
const PYTHON = '/usr/bin/python3';
const SCRIPTS = join(import.meta.dirname, 'openstack');
/** Seconds of a processor's time, which a loaded machine gives in minutes; less than what a hook has. */
const PATIENCE_MS = 240_000;

export type Account = 'demo' | 'other' | 'admin';

/** What Glance tells of an image, as far as tests look at it. */
export interface Image {
  id: string;
  name: string;
  status: string;
  os_hidden: boolean;
  os_hash_value: string;
  [property: string]: unknown;
}

export interface OpenStackOptions extends Knobs {
  /** Where everything is kept; default a new temporary directory, which `stop` removes. */
  directory?: string;
  /** Where both listen; default loopback. Pods need one that they reach. */
  address?: string;
}

export interface CloudsOptions {
  /** Default `password`. */
  auth?: 'password' | 'applicationCredential';
  /** Sends the image calls elsewhere (through a fault proxy): `image_endpoint_override`. */
  imageEndpoint?: string;
  /** Further lines of the cloud's entry, as YAML with four spaces of indentation. */
  extra?: string;
}

/** Whether both servers can run on this machine. */
export function openstackAvailable(): boolean {
  const packages = '/usr/lib/python3/dist-packages';
  return existsSync(PYTHON) && ['keystone', 'glance'].every((name) => existsSync(join(packages, name)));
}

export async function startOpenStack(options: OpenStackOptions = {}): Promise<OpenStack> {
  const own = options.directory === undefined;
  const root = options.directory ?? (await mkdtemp(join(tmpdir(), 'imageproxy-openstack-')));
  for (const name of ['fernet', 'credential', 'policy.d', 'images', 'staging', 'tasks', 'lock']) {
    await mkdir(join(root, name), { recursive: true });
  }
  const { address = '127.0.0.1' } = options;
  const [keystone, glance] = (await freePorts(2, address)) as [number, number];
  const places: Places = { address, keystone, glance };
  for (const [name, text] of Object.entries(configurationFiles(root, places, options))) {
    await writeFile(join(root, name), text);
  }
  const template = await templateDirectory();
  const fresh = !existsSync(join(root, 'keystone.db'));
  if (fresh && existsSync(template)) await cp(template, root, { recursive: true });
  else if (fresh) await makeFernetKeys(join(root, 'fernet'));

  const openstack = new OpenStack(root, places, own);
  try {
    await openstack.start();
    if (fresh && !existsSync(template)) await saveTemplate(root, template);
  } catch (error) {
    await openstack.stop();
    throw error;
  }
  return openstack;
}

export class OpenStack {
  readonly directory: string;
  readonly authUrl: string;
  readonly glanceUrl: string;
  readonly #places: Places;
  readonly #ownsDirectory: boolean;
  #keystone: ChildProcess | undefined;
  #glance: ChildProcess | undefined;
  readonly #tokens = new Map<Account, string>();
  readonly #credentials = new Map<Account, { id: string; secret: string }>();

  constructor(directory: string, places: Places, ownsDirectory: boolean) {
    this.directory = directory;
    this.#places = places;
    this.#ownsDirectory = ownsDirectory;
    this.authUrl = `http://${places.address}:${places.keystone}/v3`;
    this.glanceUrl = `http://${places.address}:${places.glance}`;
  }

  async start(): Promise<void> {
    const { address, keystone, glance } = this.#places;
    this.#keystone = await this.#spawn('keystone', [this.directory, address, String(keystone), String(glance)]);
    await Promise.all([this.#ready('keystone', this.#keystone, this.authUrl), this.startGlance()]);
  }

  /** After `killGlance`: the same data, the same port. */
  async startGlance(): Promise<void> {
    this.#glance = await this.#spawn('glance', [this.directory]);
    await this.#ready('glance', this.#glance, `${this.glanceUrl}/healthcheck`);
  }

  /** As a power cut would: SIGKILL, nothing is tidied up. */
  async killGlance(): Promise<void> {
    await kill(this.#glance);
    this.#glance = undefined;
  }

  /** Stops both. A directory that was made for this run is removed. */
  async stop(): Promise<void> {
    await Promise.all([this.killGlance(), kill(this.#keystone)]);
    this.#keystone = undefined;
    if (this.#ownsDirectory) await rm(this.directory, { recursive: true, force: true });
  }

  /** The text of a clouds.yaml whose cloud has the account's name. */
  async clouds(account: Account, options: CloudsOptions = {}): Promise<string> {
    const credential =
      options.auth === 'applicationCredential' ? await this.#applicationCredential(account) : undefined;
    const auth =
      credential === undefined
        ? [
            `username: ${account}`,
            `password: ${account}-password`,
            'user_domain_name: Default',
            `project_name: ${account}`,
            'project_domain_name: Default',
          ]
        : [`application_credential_id: ${credential.id}`, `application_credential_secret: ${credential.secret}`];
    return [
      'clouds:',
      `  ${account}:`,
      `    auth_type: ${credential === undefined ? 'v3password' : 'v3applicationcredential'}`,
      '    auth:',
      `      auth_url: ${this.authUrl}`,
      ...auth.map((line) => `      ${line}`),
      '    region_name: RegionOne',
      '    interface: public',
      ...(options.imageEndpoint === undefined ? [] : [`    image_endpoint_override: ${options.imageEndpoint}`]),
      ...(options.extra === undefined ? [] : [options.extra]),
      '',
    ].join('\n');
  }

  /** A token of the account, with what Keystone says of it. */
  async token(account: Account): Promise<{ token: string; projectId: string; userId: string }> {
    const domain = { name: 'Default' };
    const user = { name: account, password: `${account}-password`, domain };
    const answer = await request(`${this.authUrl}/auth/tokens`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({
        auth: {
          identity: { methods: ['password'], password: { user } },
          scope: { project: { name: account, domain } },
        },
      }),
    });
    const body = (await answer.body.json()) as { token: { project: { id: string }; user: { id: string } } };
    const token = answer.headers['x-subject-token'];
    if (typeof token !== 'string') throw new Error(`Keystone gave no token: ${JSON.stringify(body)}`);
    return { token, projectId: body.token.project.id, userId: body.token.user.id };
  }

  /** One plain call of the image API as that account, past the code under test: what a cloud's own people would do. */
  async image(
    account: Account,
    method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE',
    path: string,
    body?: unknown,
  ): Promise<{ status: number; body: unknown }> {
    const answer = await this.#imageCall(this.#tokens.get(account) ?? (await this.#renew(account)), method, path, body);
    if (answer.status !== 401) return answer;
    return await this.#imageCall(await this.#renew(account), method, path, body);
  }

  async #renew(account: Account): Promise<string> {
    const { token } = await this.token(account);
    this.#tokens.set(account, token);
    return token;
  }

  async #imageCall(
    token: string,
    method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE',
    path: string,
    body: unknown,
  ): Promise<{ status: number; body: unknown }> {
    const raw = typeof body === 'string' || body instanceof Uint8Array;
    const contentType = raw
      ? 'application/octet-stream'
      : method === 'PATCH'
        ? 'application/openstack-images-v2.1-json-patch'
        : 'application/json';
    const answer = await request(`${this.glanceUrl}/v2${path}`, {
      method,
      headers: { 'x-auth-token': token, ...(body === undefined ? {} : { 'content-type': contentType }) },
      body: body === undefined ? null : raw ? Buffer.from(body) : JSON.stringify(body),
    });
    const text = await answer.body.text();
    let parsed: unknown = text;
    try {
      parsed = JSON.parse(text);
    } catch {
      // Glance tells errors as HTML.
    }
    return { status: answer.statusCode, body: parsed };
  }

  /** The names of the files in Glance's store: what is left of images, half-made ones too. */
  get store(): string {
    return join(this.directory, 'images');
  }

  async #applicationCredential(account: Account): Promise<{ id: string; secret: string }> {
    const known = this.#credentials.get(account);
    if (known !== undefined) return known;
    const { token, userId } = await this.token(account);
    const answer = await request(`${this.authUrl}/users/${userId}/application_credentials`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'x-auth-token': token },
      body: JSON.stringify({ application_credential: { name: `imageproxy-${randomBytes(4).toString('hex')}` } }),
    });
    const body = (await answer.body.json()) as { application_credential: { id: string; secret: string } };
    this.#credentials.set(account, body.application_credential);
    return body.application_credential;
  }

  async #spawn(name: 'keystone' | 'glance', args: string[]): Promise<ChildProcess> {
    const log = await open(join(this.directory, `${name}.log`), 'a');
    // Its own process group: a signal to the test run, or Glance's kill of its group, stays apart.
    const child = spawn(PYTHON, [join(SCRIPTS, `serve_${name}.py`), ...args], {
      detached: true,
      stdio: ['ignore', log.fd, log.fd],
      env: { PATH: '/usr/bin:/bin', LANG: 'C.UTF-8', HOME: this.directory },
    });
    child.unref();
    await log.close();
    return child;
  }

  async #ready(name: string, child: ChildProcess, url: string): Promise<void> {
    const end = Date.now() + PATIENCE_MS;
    while (Date.now() < end) {
      if (child.exitCode !== null || child.signalCode !== null) break;
      const answer = await request(url).catch(() => undefined);
      await answer?.body.dump();
      if (answer !== undefined && answer.statusCode < 400) return;
      await pause(50);
    }
    const log = await readFile(join(this.directory, `${name}.log`), 'utf8');
    throw new Error(`${name} did not start; the end of its log:\n${log.split('\n').slice(-20).join('\n')}`);
  }
}

async function kill(child: ChildProcess | undefined): Promise<void> {
  if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once('exit', resolve));
  child.ref();
  child.kill('SIGKILL');
  await gone;
}

/** What `keystone-manage fernet_setup` makes: 0 is the next key, 1 the one in use. */
async function makeFernetKeys(directory: string): Promise<void> {
  for (const name of ['0', '1']) {
    const key = randomBytes(32).toString('base64').replaceAll('+', '-').replaceAll('/', '_');
    await writeFile(join(directory, name), key, { mode: 0o600 });
  }
}

/** Seeded databases are kept for the next start; another version of the packages or of the scripts is another template. */
async function templateDirectory(): Promise<string> {
  const hash = createHash('sha256');
  for (const name of ['serve_keystone.py', 'serve_glance.py', 'configuration.ts'])
    hash.update(await readFile(join(SCRIPTS, name)));
  hash.update(execFileSync('dpkg-query', ['-Wf', '${Version} ', 'python3-keystone', 'python3-glance']));
  return join(tmpdir(), `imageproxy-openstack-template-${process.getuid?.() ?? 0}-${hash.digest('hex').slice(0, 16)}`);
}

async function saveTemplate(root: string, template: string): Promise<void> {
  const making = await mkdtemp(`${template}-`);
  for (const name of ['keystone.db', 'glance.db']) {
    // SQLite's own backup takes along what is still in the write-ahead log.
    const database = new DatabaseSync(join(root, name));
    await backup(database, join(making, name));
    database.close();
    const copy = new DatabaseSync(join(making, name));
    copy.exec('pragma journal_mode=wal');
    copy.close();
  }
  await cp(join(root, 'fernet'), join(making, 'fernet'), { recursive: true });
  // Another start may have been quicker; both are as good.
  await rename(making, template).catch(() => rm(making, { recursive: true, force: true }));
}
