import { Failure } from '../../api/failure.ts';
import type { Schemas } from '../../api/schema.ts';
import type { ApiClient } from './client.ts';
import { failureOf } from './errors.ts';
import { missingRights, type RightsScope, rightsOf, type Tasks } from './rights.ts';
import { unknownToCluster } from './served-schema.ts';

/** A message that names more is read by nobody. */
const NAMED = 5;

/**
 * Asks the cluster, before work begins, for what the work would miss one thing after the other.
 * @throws Failure NotSupported when its CRDs are older than this program, Forbidden with all the rights that are missing
 */
export async function preflight(client: ApiClient, schemas: Schemas, scope: RightsScope, tasks: Tasks): Promise<void> {
  let unknown: string[];
  let missing: string[];
  try {
    unknown = await unknownToCluster(client, schemas);
    missing = await missingRights(client, rightsOf(scope, tasks));
  } catch (error) {
    throw failureOf(error, 'ask the cluster what it has');
  }
  if (unknown.length > 0) {
    const more = unknown.length > NAMED ? ` and ${unknown.length - NAMED} more` : '';
    throw new Failure(
      'NotSupported',
      `the CRDs of the cluster are older than this program, which needs ${unknown.slice(0, NAMED).join(', ')}${more}: upgrade them (helm upgrade, where the chart keeps them, or kubectl apply --server-side -f crds/)`,
    );
  }
  if (missing.length > 0) {
    throw new Failure(
      'Forbidden',
      `this ServiceAccount or user may not: ${missing.join('; ')}. Grant it by (Cluster)Roles as the chart's (helm upgrade brings them)`,
    );
  }
}
