import { createHash } from 'node:crypto';
import { Failure } from '../../api/failure.ts';
import { ANNOTATIONS } from '../../api/types.ts';
import type { Secret, Store } from '../../stores/store.ts';

/** What a source sends or trusts beside its URL. Lives in memory only. */
export interface Credentials {
  authorization?: string;
  secretHeaders?: Record<string, string>;
  tls?: { ca?: string; cert?: string; key?: string };
  /** Hosts that the Secret may be sent to; absent when there is no Secret. */
  hosts?: readonly string[];
  /** Names this set of credentials without telling it; undefined for an anonymous source. */
  fingerprint?: string;
}

interface References {
  secretRef?: { name: string };
  caRef?: { kind: string; name: string; key?: string };
}

/**
 * Reads the Secret and CA that a source refers to, in the image's own namespace.
 *
 * A Secret is sent nowhere but to the hosts that its own annotation names: who may write a VMImage but not read Secrets could
 * otherwise have any Secret of the namespace sent to himself.
 *
 * @throws Failure SecretNotFound | ConfigMapNotFound | InvalidSecret | SecretHostsMissing
 */
export async function readCredentials(
  namespace: string,
  references: References,
  field: string,
  deps: { store: Store },
): Promise<Credentials> {
  const credentials: Credentials = {};
  if (references.secretRef !== undefined) {
    const { name } = references.secretRef;
    const secret = await deps.store.secret({ namespace, name });
    if (secret === undefined) {
      throw new Failure(
        'SecretNotFound',
        `${field}.secretRef: there is no Secret ${namespace}/${name}; create it, or remove the reference`,
      );
    }
    Object.assign(credentials, fromSecret(secret, field));
  }
  if (references.caRef !== undefined) {
    credentials.tls = { ...credentials.tls, ca: await readCa(namespace, references.caRef, field, deps) };
  }
  return credentials;
}

/** @throws Failure SecretHostsMissing when the Secret may not be sent to the URL's host. */
export function permitHost(credentials: Credentials, url: string, field: string): void {
  if (credentials.hosts === undefined) return;
  const host = new URL(url).hostname.toLowerCase();
  if (credentials.hosts.some((pattern) => matches(pattern, host))) return;
  throw new Failure(
    'SecretHostsMissing',
    `${field}: its Secret may not be sent to ${host}; name the host in the Secret's annotation ${ANNOTATIONS.hosts} ("${host}")`,
  );
}

function fromSecret(secret: Secret, field: string): Credentials {
  const where = `${secret.metadata.namespace}/${secret.metadata.name}`;
  const text = (key: string): string | undefined => {
    const value = secret.data[key];
    return value === undefined ? undefined : new TextDecoder().decode(value).trimEnd();
  };
  const hosts = (secret.metadata.annotations?.[ANNOTATIONS.hosts] ?? '')
    .split(/[\s,]+/)
    .filter((host) => host !== '')
    .map((host) => host.toLowerCase());
  if (hosts.length === 0) {
    throw new Failure(
      'SecretHostsMissing',
      `${field}.secretRef: the Secret ${where} does not say where it may be sent; set its annotation ${ANNOTATIONS.hosts}: "HOST[,HOST…]"`,
    );
  }
  const refuse = (fact: string): never => {
    throw new Failure('InvalidSecret', `${field}.secretRef: the Secret ${where} ${fact}`);
  };
  const [username, password, token] = [text('username'), text('password'), text('token')];
  const [cert, key, ca] = [text('tls.crt'), text('tls.key'), text('ca.crt')];
  // A control character would end the header and begin another.
  for (const [name, value] of Object.entries({ username, password, token })) {
    if (value !== undefined && hasControl(value)) refuse(`has a line break or control character in ${name}`);
  }
  // RFC 7617 §2: what comes after the first colon is the password.
  if (username?.includes(':') === true) refuse('has a colon in username, which Basic authentication cannot send');
  const secretHeaders = readHeaders(text('headers') ?? '', refuse);
  const authorization =
    token !== undefined
      ? `Bearer ${token}`
      : username !== undefined && password !== undefined
        ? `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`
        : undefined;
  if (authorization === undefined && cert === undefined && Object.keys(secretHeaders).length === 0) {
    refuse('has none of the keys username and password, token, headers, tls.crt and tls.key');
  }
  if ((cert === undefined) !== (key === undefined)) refuse('needs both tls.crt and tls.key');
  const credentials: Credentials = {
    hosts,
    fingerprint: createHash('sha256')
      .update(JSON.stringify([authorization, cert, key, secretHeaders]))
      .digest('hex')
      .slice(0, 32),
  };
  if (authorization !== undefined) credentials.authorization = authorization;
  if (Object.keys(secretHeaders).length > 0) credentials.secretHeaders = secretHeaders;
  if (cert !== undefined && key !== undefined) credentials.tls = { cert, key };
  if (ca !== undefined) credentials.tls = { ...credentials.tls, ca };
  return credentials;
}

/** One `Name: value` a line. What is wrong is told by the number of the line: any part of it may be secret. */
function readHeaders(text: string, refuse: (fact: string) => never): Record<string, string> {
  const headers = new Map<string, string>();
  text.split(/\r?\n/).forEach((line, index) => {
    if (line.trim() === '') return;
    const colon = line.indexOf(':');
    const name = line.slice(0, Math.max(colon, 0)).trim().toLowerCase();
    const value = line.slice(colon + 1).trim();
    if (!/^[-!#$%&'*+.^_`|~0-9a-z]+$/.test(name) || hasControl(value)) {
      refuse(`has in line ${index + 1} of headers something else than "Name: value"`);
    }
    if (headers.has(name)) refuse(`has in line ${index + 1} of headers a name for the second time`);
    headers.set(name, value);
  });
  return Object.fromEntries(headers);
}

/** As the HTTP source judges values: a tab is none. */
function hasControl(text: string): boolean {
  // oxlint-disable-next-line no-control-regex -- they are what is looked for
  return /[\x00-\x08\x0a-\x1f\x7f]/.test(text);
}

/** @throws Failure ConfigMapNotFound | SecretNotFound | InvalidSecret */
export async function readCa(
  namespace: string,
  caRef: { kind: string; name: string; key?: string },
  field: string,
  deps: { store: Store },
): Promise<string> {
  const { kind, name, key = 'ca.crt' } = caRef;
  const found =
    kind === 'Secret' ? await deps.store.secret({ namespace, name }) : await deps.store.configMap({ namespace, name });
  if (found === undefined) {
    const reason = kind === 'Secret' ? 'SecretNotFound' : 'ConfigMapNotFound';
    throw new Failure(
      reason,
      `${field}.caRef: there is no ${kind} ${namespace}/${name}; create it with the key ${key}`,
    );
  }
  const value = found.data[key];
  if (value === undefined) {
    throw new Failure('InvalidSecret', `${field}.caRef: the ${kind} ${namespace}/${name} has no key ${key}`);
  }
  return typeof value === 'string' ? value : new TextDecoder().decode(value);
}

/** `host`, or `*.domain` for everything below it. */
function matches(pattern: string, host: string): boolean {
  return pattern.startsWith('*.') ? host.endsWith(pattern.slice(1)) : pattern === host;
}
