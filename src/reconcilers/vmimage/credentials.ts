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
  const [username, password, token] = [text('username'), text('password'), text('token')];
  const [cert, key, ca] = [text('tls.crt'), text('tls.key'), text('ca.crt')];
  const secretHeaders: Record<string, string> = {};
  for (const name of Object.keys(secret.data)) {
    const header = /^header\.([A-Za-z0-9-]+)$/.exec(name)?.[1];
    if (header !== undefined) secretHeaders[header] = text(name) ?? '';
  }
  const authorization =
    token !== undefined
      ? `Bearer ${token}`
      : username !== undefined && password !== undefined
        ? `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`
        : undefined;
  if (authorization === undefined && cert === undefined && Object.keys(secretHeaders).length === 0) {
    throw new Failure(
      'InvalidSecret',
      `${field}.secretRef: the Secret ${where} has none of the keys username and password, token, tls.crt and tls.key, header.NAME`,
    );
  }
  if ((cert === undefined) !== (key === undefined)) {
    throw new Failure('InvalidSecret', `${field}.secretRef: the Secret ${where} needs both tls.crt and tls.key`);
  }
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
