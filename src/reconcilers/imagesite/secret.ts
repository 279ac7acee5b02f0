import { Failure } from '../../api/failure.ts';
import type { ImageSite } from '../../api/types.ts';
import type { Secret } from '../../stores/store.ts';
import type { Deps } from '../deps.ts';
import { readCa } from '../vmimage/credentials.ts';
import { hashOf } from '../vmimage/identity.ts';

/** The site's Secret, in the controller's own namespace. @throws Failure SecretNotFound | InvalidSecret */
export async function secretOf(site: ImageSite, deps: Deps): Promise<Secret | undefined> {
  const { spec } = site;
  const reference = (spec.openstack ?? spec.ec2 ?? spec.opennebula)?.secretRef;
  if (reference === undefined) return undefined;
  const { name, namespace = deps.settings.controllerNamespace } = reference;
  if (namespace !== deps.settings.controllerNamespace) {
    throw new Failure(
      'InvalidSecret',
      `spec.${kindOf(site)}.secretRef.namespace: a site's Secret is read from the controller's own namespace, ${deps.settings.controllerNamespace}, not from ${namespace}`,
    );
  }
  const secret = await deps.store.secret({ namespace, name });
  if (secret === undefined)
    throw new Failure(
      'SecretNotFound',
      `spec.${kindOf(site)}.secretRef: there is no Secret ${namespace}/${name}; create it`,
    );
  return secret;
}

/** Certificates that the site's endpoint is trusted by. @throws Failure ConfigMapNotFound | SecretNotFound | InvalidSecret */
export async function caOf(site: ImageSite, deps: Deps): Promise<string | undefined> {
  const reference = (site.spec.openstack ?? site.spec.ec2 ?? site.spec.opennebula)?.caRef;
  if (reference === undefined) return undefined;
  return readCa(deps.settings.controllerNamespace, reference, `spec.${kindOf(site)}`, deps);
}

export function fingerprint(secret: Secret): string {
  return hashOf(
    Object.fromEntries(Object.entries(secret.data).map(([key, value]) => [key, Buffer.from(value).toString('base64')])),
  );
}

export function kindOf(site: ImageSite): string {
  return (
    (['directory', 'openstack', 'ec2', 'opennebula', 'handler'] as const).find(
      (kind) => site.spec[kind] !== undefined,
    ) ?? 'site'
  );
}
