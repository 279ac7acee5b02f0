import { Failure } from '../api/failure.ts';
import type { Cloud, CloudContext } from './cloud.ts';
import type { DirectorySpec } from './directory/index.ts';
import type { OpenStackSpec } from './openstack/configuration.ts';

/** `spec` of an ImageSite, as far as opening its cloud needs it: exactly one branch is there. */
export interface CloudSpec {
  directory?: DirectorySpec;
  openstack?: OpenStackSpec;
}

/**
 * Opens the cloud of a site. Each kind is loaded when the first site of it is opened, so that a directory costs no HTTP client.
 * @throws Failure InvalidSpec | NotSupported | SecretNotFound | InvalidSecret
 */
export async function openCloud(spec: CloudSpec, context: CloudContext): Promise<Cloud> {
  if (spec.directory !== undefined) {
    const { openDirectory } = await import('./directory/index.ts');
    return openDirectory(spec.directory, context);
  }
  if (spec.openstack !== undefined) {
    const { openOpenStack } = await import('./openstack/index.ts');
    return openOpenStack(spec.openstack, context);
  }
  throw new Failure(
    'NotSupported',
    `site ${context.site}: this version has no cloud for spec.${Object.keys(spec).join(', ')}: use directory or openstack`,
  );
}
