import { Failure } from '../../api/failure.ts';
import type { ImageSubscription } from '../../api/types.ts';
import { type HttpSourceSpec } from '../../sources/source.ts';
import { type ObjectKey, type Store } from '../../stores/store.ts';
import { anchorsOf } from '../../trust/index.ts';
import type { NamedFile, Trust } from '../../trust/trust.ts';
import { networkOf } from '../network.ts';
import type { Settings } from '../settings.ts';
import { permitHost, readCredentials } from '../vmimage/credentials.ts';
import { hashOf } from '../vmimage/identity.ts';

type Reference = { readonly kind: 'ConfigMap' | 'Secret'; readonly name: string };

/** Secrets and ConfigMaps that reading the list needs. */
export function referencesOf({ spec }: ImageSubscription): Reference[] {
  const { secretRef, caRef, trust } = spec;
  const all = [
    secretRef === undefined ? undefined : { kind: 'Secret' as const, name: secretRef.name },
    caRef,
    trust.x509?.caRef,
    trust.x509?.directoryRef,
    trust.openpgp?.keyringRef,
  ];
  return all.filter((reference) => reference !== undefined).map(({ kind, name }) => ({ kind, name }));
}

/** Changes with everything that decides how the list is read and judged. Secrets count by their versions: nothing of them is hashed. */
export function inputsOf(subscription: ImageSubscription, store: Store): string {
  const { url, format, secretRef, caRef, trust, rollback } = subscription.spec;
  const { namespace = 'default' } = subscription.metadata;
  const versions = referencesOf(subscription).map(
    ({ kind, name }) => store.get(kind, { namespace, name })?.metadata.resourceVersion,
  );
  return hashOf([url, format, secretRef, caRef, trust, rollback, versions]);
}

/**
 * Where the list is, with the credentials that may be sent there.
 * @throws Failure SecretNotFound | ConfigMapNotFound | InvalidSecret | SecretHostsMissing
 */
export async function listSource(
  { metadata, spec }: ImageSubscription,
  deps: { store: Store; settings: Settings },
): Promise<HttpSourceSpec> {
  const { namespace = 'default' } = metadata;
  const credentials = await readCredentials(namespace, spec, 'spec', deps);
  permitHost(credentials, spec.url, 'spec.url');
  const { authorization, secretHeaders, tls } = credentials;
  return {
    kind: 'http',
    url: spec.url,
    headers: {},
    ...(authorization === undefined ? {} : { authorization }),
    ...(secretHeaders === undefined ? {} : { secretHeaders }),
    ...(tls === undefined ? {} : { tls }),
    network: networkOf(deps),
    timeouts: deps.settings.timeouts,
  };
}

/**
 * Whose word is taken for the list, with what the spec refers to.
 * @throws Failure SecretNotFound | ConfigMapNotFound | InvalidSecret
 */
export async function trustOf({ metadata, spec }: ImageSubscription, deps: { store: Store }): Promise<Trust> {
  const { namespace = 'default' } = metadata;
  const { x509, openpgp, minisign } = spec.trust;
  if (x509 !== undefined) {
    const { caRef, directoryRef } = x509;
    const field = 'spec.trust.x509';
    const files =
      caRef !== undefined
        ? await filesOf(namespace, caRef, `${field}.caRef`, deps, caRef.key)
        : directoryRef !== undefined
          ? await filesOf(namespace, directoryRef, `${field}.directoryRef`, deps)
          : [];
    return {
      kind: 'x509',
      endorsers: x509.endorsers,
      anchors: anchorsOf(files),
      crl: x509.crl,
      signingPolicy: x509.signingPolicy,
      allowSha1: x509.allowSha1,
    };
  }
  if (openpgp !== undefined) {
    const { keyringRef, allowSha1 } = openpgp;
    const files = await filesOf(namespace, keyringRef, 'spec.trust.openpgp.keyringRef', deps, keyringRef.key);
    return { kind: 'openpgp', keyring: Buffer.concat(files.map(({ bytes }) => bytes)), allowSha1 };
  }
  if (minisign !== undefined) return { kind: 'minisign', publicKeys: minisign.publicKeys };
  return { kind: 'unsigned' };
}

/** One key of a Secret or ConfigMap, or all of them. */
async function filesOf(
  namespace: string,
  { kind, name }: Reference,
  field: string,
  { store }: { store: Store },
  key?: string,
): Promise<NamedFile[]> {
  const where: Required<ObjectKey> = { namespace, name };
  const found = kind === 'Secret' ? await store.secret(where) : await store.configMap(where);
  if (found === undefined) {
    throw new Failure(
      kind === 'Secret' ? 'SecretNotFound' : 'ConfigMapNotFound',
      `${field}: there is no ${kind} ${namespace}/${name}; create it${key === undefined ? '' : ` with the key ${key}`}`,
    );
  }
  const files = Object.entries(found.data).map(([file, value]) => ({
    name: file,
    bytes: typeof value === 'string' ? new TextEncoder().encode(value) : value,
  }));
  if (key === undefined) return files;
  const wanted = files.filter((file) => file.name === key);
  if (wanted.length === 0) {
    throw new Failure('InvalidSecret', `${field}: the ${kind} ${namespace}/${name} has no key ${key}; add it`);
  }
  return wanted;
}
