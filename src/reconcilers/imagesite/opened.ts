import type { ImageSite } from '../../api/types.ts';
import type { Cloud, CloudContext, Probe } from '../../clouds/cloud.ts';
import type { Deps } from '../deps.ts';

/** Opens a cloud; `clouds/index.ts` in the program, something of their own in tests. */
export type OpenCloud = (spec: ImageSite['spec'], context: CloudContext) => Promise<Cloud>;

export type SiteDeps = Deps & { openCloud: OpenCloud };

export interface Opened {
  cloud: Cloud;
  inputsHash: string;
  probe: Probe;
}

/** What the jobs of a site know it by. */
export function siteKey(name: string): string {
  return `ImageSite/${name}`;
}

/** Ends all that is open there: the connection, and the probe that is opening another. */
export function leave(name: string, deps: SiteDeps): void {
  deps.jobs.leaveAll(siteKey(name));
  close(name, deps);
}

export function close(name: string, deps: SiteDeps): void {
  const open = deps.sites.get(name);
  if (open === undefined) return;
  deps.sites.delete(name);
  void open.cloud
    .close()
    .catch((error: unknown) => deps.log.warn({ err: error, site: name }, 'the connection to a site did not close'));
}
