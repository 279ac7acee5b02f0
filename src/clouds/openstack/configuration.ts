import { parse, YAMLParseError } from 'yaml';
import { z } from 'zod';
import { Failure } from '../../api/failure.ts';

/** `spec.openstack` of an ImageSite, as far as this client needs it. */
export interface OpenStackSpec {
  /** Name of the entry in clouds.yaml; may be left out where the file has one entry. */
  cloud?: string;
  region?: string;
  interface?: string;
}

export interface NamedOrId {
  id?: string;
  name?: string;
}

export interface User extends NamedOrId {
  domain?: NamedOrId;
}

export type Credentials =
  | { method: 'password'; user: User; password: string; project: NamedOrId & { domain?: NamedOrId } }
  | { method: 'applicationCredential'; id?: string; name?: string; secret: string; user?: User };

/** One entry of clouds.yaml, checked and complete. */
export interface CloudConfiguration {
  cloud: string;
  /** Ends with `/v3`. */
  authUrl: string;
  credentials: Credentials;
  region?: string;
  interface: string;
  /** `image_endpoint_override`: used in place of the catalog's. */
  imageEndpoint?: string;
  tls: { ca?: string; insecure?: boolean };
  /** What works as written but should not stay so. */
  warnings: string[];
}

const FILE_KEY = 'clouds.yaml';
const MAX_BYTES = 256 * 1024;

const text = z.string().max(4096);
const Auth = z.looseObject({
  auth_url: text,
  username: text.optional(),
  user_id: text.optional(),
  password: text.optional(),
  user_domain_name: text.optional(),
  user_domain_id: text.optional(),
  project_name: text.optional(),
  project_id: text.optional(),
  tenant_name: text.optional(),
  project_domain_name: text.optional(),
  project_domain_id: text.optional(),
  domain_name: text.optional(),
  domain_id: text.optional(),
  system_scope: text.optional(),
  application_credential_id: text.optional(),
  application_credential_name: text.optional(),
  application_credential_secret: text.optional(),
});
const Entry = z.looseObject({
  auth: Auth,
  auth_type: text.optional(),
  region_name: text.optional(),
  interface: text.optional(),
  endpoint_type: text.optional(),
  cacert: z.string().max(MAX_BYTES).optional(),
  verify: text.optional(),
  image_endpoint_override: text.optional(),
  profile: text.optional(),
});
const File = z.looseObject({ clouds: z.record(z.string(), z.unknown()) });

/**
 * Reads the usual clouds.yaml of os-client-config out of the site's Secret. Messages name fields and lines, never values: the
 * file is full of passwords. `siteCa` is the PEM of the site's own `caRef`, and goes before what the file names.
 * @throws Failure SecretNotFound | InvalidSecret
 */
export function readConfiguration(
  spec: OpenStackSpec,
  secret: ReadonlyMap<string, Uint8Array> | undefined,
  siteCa?: string,
): CloudConfiguration {
  if (secret === undefined) {
    throw new Failure(
      'SecretNotFound',
      'spec.openstack.secretRef: the Secret with clouds.yaml is not there: create it',
    );
  }
  const { cloud, entry } = chooseEntry(readFile(secret), spec.cloud);
  if (entry.profile !== undefined) {
    throw invalid(cloud, 'profile', 'vendor profiles are not read: write auth_url and the rest into the entry itself');
  }
  const warnings: string[] = [];
  const tls: CloudConfiguration['tls'] = {};
  const ca = siteCa ?? certificates(cloud, entry.cacert, secret);
  if (ca !== undefined) tls.ca = ca;
  if (entry.verify !== undefined && isFalse(entry.verify)) {
    tls.insecure = true;
    warnings.push(
      `clouds.yaml says "verify: false" for cloud ${cloud}: the server's certificate is not checked, and anybody on the way can ` +
        "read the credentials; put the CA's certificate into the Secret as ca.crt and remove the line",
    );
  }
  const configuration: CloudConfiguration = {
    cloud,
    authUrl: authUrl(cloud, entry.auth.auth_url),
    credentials: credentialsOf(cloud, entry),
    interface: (spec.interface ?? entry.interface ?? entry.endpoint_type ?? 'public').toLowerCase().replace(/url$/, ''),
    tls,
    warnings,
  };
  const region = spec.region ?? entry.region_name;
  if (region !== undefined) configuration.region = region;
  if (entry.image_endpoint_override !== undefined) {
    configuration.imageEndpoint = httpUrl(cloud, 'image_endpoint_override', entry.image_endpoint_override);
  }
  return configuration;
}

function readFile(secret: ReadonlyMap<string, Uint8Array>): z.infer<typeof File> {
  const bytes = secret.get(FILE_KEY);
  if (bytes === undefined) {
    throw new Failure(
      'InvalidSecret',
      `the site's Secret has no key ${FILE_KEY} (it has: ${[...secret.keys()].join(', ')})`,
    );
  }
  if (bytes.byteLength > MAX_BYTES) throw new Failure('InvalidSecret', `${FILE_KEY} is larger than ${MAX_BYTES} bytes`);
  let content: unknown;
  try {
    // With the failsafe schema every scalar stays a string: a password of digits is not turned into a number.
    content = parse(new TextDecoder().decode(bytes), { schema: 'failsafe', prettyErrors: true });
  } catch (error) {
    // The parser's own message quotes the line, and with it the password.
    const line = error instanceof YAMLParseError ? error.linePos?.[0].line : undefined;
    throw new Failure('InvalidSecret', `${FILE_KEY} is not valid YAML${line === undefined ? '' : ` (line ${line})`}`);
  }
  const file = File.safeParse(content);
  if (!file.success) throw new Failure('InvalidSecret', `${FILE_KEY} has no map "clouds"`);
  return file.data;
}

function chooseEntry(
  file: z.infer<typeof File>,
  wanted: string | undefined,
): { cloud: string; entry: z.infer<typeof Entry> } {
  const names = Object.keys(file.clouds);
  const cloud = wanted ?? (names.length === 1 ? names[0] : undefined);
  if (cloud === undefined) {
    throw new Failure(
      'InvalidSecret',
      `spec.openstack.cloud: say which cloud of ${FILE_KEY} is meant: ${names.join(', ')}`,
    );
  }
  if (!Object.hasOwn(file.clouds, cloud)) {
    throw new Failure('InvalidSecret', `${FILE_KEY} has no cloud ${cloud} (it has: ${names.join(', ')})`);
  }
  const entry = Entry.safeParse(file.clouds[cloud]);
  if (entry.success) return { cloud, entry: entry.data };
  const issue = entry.error.issues[0];
  throw invalid(cloud, issue?.path.join('.') ?? '', issue?.message ?? 'is not valid');
}

function credentialsOf(cloud: string, entry: z.infer<typeof Entry>): Credentials {
  const { auth } = entry;
  const byApplication = auth.application_credential_id !== undefined || auth.application_credential_name !== undefined;
  const type = entry.auth_type ?? (byApplication ? 'v3applicationcredential' : 'password');
  switch (type) {
    case 'v3applicationcredential':
      return applicationCredential(cloud, auth);
    case 'password':
    case 'v3password':
      return passwordCredentials(cloud, auth);
    default:
      throw invalid(cloud, 'auth_type', `${type} is not supported: use v3password or v3applicationcredential`);
  }
}

function applicationCredential(cloud: string, auth: z.infer<typeof Auth>): Credentials {
  const secret = required(cloud, auth, 'application_credential_secret');
  if (auth.application_credential_id !== undefined) {
    return { method: 'applicationCredential', id: auth.application_credential_id, secret };
  }
  const name = required(cloud, auth, 'application_credential_name');
  return { method: 'applicationCredential', name, secret, user: userOf(cloud, auth) };
}

function passwordCredentials(cloud: string, auth: z.infer<typeof Auth>): Credentials {
  if (auth.system_scope !== undefined) {
    throw invalid(
      cloud,
      'auth.system_scope',
      'images belong to a project: give project_name or project_id in its place',
    );
  }
  const password = required(cloud, auth, 'password');
  const projectName = auth.project_name ?? auth.tenant_name;
  if (auth.project_id !== undefined) {
    return { method: 'password', user: userOf(cloud, auth), password, project: { id: auth.project_id } };
  }
  if (projectName === undefined) throw invalid(cloud, 'auth.project_name', 'is missing (or project_id)');
  const domain = domainOf(auth.project_domain_id ?? auth.domain_id, auth.project_domain_name ?? auth.domain_name);
  if (domain === undefined) {
    throw invalid(cloud, 'auth.project_domain_name', 'is missing: a project name is unique only in its domain');
  }
  return { method: 'password', user: userOf(cloud, auth), password, project: { name: projectName, domain } };
}

function userOf(cloud: string, auth: z.infer<typeof Auth>): User {
  if (auth.user_id !== undefined) return { id: auth.user_id };
  const name = required(cloud, auth, 'username');
  const domain = domainOf(auth.user_domain_id ?? auth.domain_id, auth.user_domain_name ?? auth.domain_name);
  if (domain === undefined) {
    throw invalid(cloud, 'auth.user_domain_name', 'is missing: a user name is unique only in its domain');
  }
  return { name, domain };
}

function domainOf(id: string | undefined, name: string | undefined): NamedOrId | undefined {
  if (id !== undefined) return { id };
  return name === undefined ? undefined : { name };
}

function required(cloud: string, auth: z.infer<typeof Auth>, field: string): string {
  const value = auth[field];
  if (typeof value !== 'string' || value === '') throw invalid(cloud, `auth.${field}`, 'is missing');
  return value;
}

/** `cacert` is the PEM text itself or the name of a key of the Secret; a path means nothing where the controller runs. */
function certificates(
  cloud: string,
  cacert: string | undefined,
  secret: ReadonlyMap<string, Uint8Array>,
): string | undefined {
  if (cacert?.includes('-----BEGIN CERTIFICATE-----')) return cacert;
  const bytes = secret.get(cacert ?? 'ca.crt');
  if (bytes === undefined) {
    if (cacert === undefined) return undefined;
    throw invalid(cloud, 'cacert', 'names neither PEM text nor a key of the Secret: add the CA certificate as ca.crt');
  }
  const pem = new TextDecoder().decode(bytes);
  if (!pem.includes('-----BEGIN CERTIFICATE-----')) {
    throw new Failure('InvalidSecret', `key ${cacert ?? 'ca.crt'} of the site's Secret holds no PEM certificate`);
  }
  return pem;
}

function authUrl(cloud: string, given: string): string {
  const base = httpUrl(cloud, 'auth.auth_url', given).replace(/\/v(2\.0|3)$/, '');
  return `${base}/v3`;
}

function httpUrl(cloud: string, field: string, given: string): string {
  const url = URL.parse(given);
  if (url === null || (url.protocol !== 'https:' && url.protocol !== 'http:')) {
    throw invalid(cloud, field, 'is not an http or https URL');
  }
  if (url.username !== '' || url.password !== '') throw invalid(cloud, field, 'must not hold credentials');
  return `${url.origin}${url.pathname.replace(/\/+$/, '')}`;
}

/** What PyYAML and os-client-config take for false. */
function isFalse(value: string): boolean {
  return ['false', 'no', 'off', '0'].includes(value.toLowerCase());
}

function invalid(cloud: string, field: string, fact: string): Failure {
  return new Failure('InvalidSecret', `${FILE_KEY}: clouds.${cloud}.${field}: ${fact}`);
}
