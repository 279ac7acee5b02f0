import { createHash, randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { Claims } from '../reconcilers/imagesite/claims.ts';
import { matchesSelector } from '../reconcilers/vmimage/targets.ts';
import { Agreement, Candidacy, JointCandidacy, type Standing } from '../runtime/candidacy.ts';
import { systemClock } from '../runtime/clock.ts';
import { LeaseElector, type LeaseElectorOptions } from '../runtime/lease.ts';
import { type KubernetesStore, openKubernetesStore } from '../stores/kubernetes/index.ts';
import { createMetrics } from '../telemetry/metrics.ts';
import { type RunningController, startControllerOn } from './controller.ts';
import { CommandError, EXIT } from './exit.ts';
import { watchHearing } from './hearing.ts';
import type { Hub } from './hub.ts';
import type { LabelSelector } from './label-selector.ts';
import { OwnSites, readSites } from './own-sites.ts';
import type { Setting, Started } from './setting.ts';
import { termsOf, whyOpposed } from './terms.ts';
import { VERSION } from './version.ts';

/** Options of `imageproxy run --kubernetes`. */
export interface ClusterOptions {
  kubernetes?: boolean;
  kubeconfig?: string;
  context?: string;
  controllerNamespace?: string;
  watchNamespaces?: string[];
  leaseName?: string;
  leaseDuration?: number;
  siteSelector?: LabelSelector;
  summaryNamespace?: string;
  identity?: string;
  sites?: string;
}

/** Where the chart installs, and where a site's Secrets are in a directory. */
const HOME = 'imageproxy';
const FIELD_OWNER = 'imageproxy';
const LEASE_NAME = 'imageproxy';
/** All controllers of a cluster must mean the same one: a namespace that every cluster has, and where events of ImageSites are too. */
const SUMMARY = { name: 'imageproxy-summary', namespace: 'default' };
/** As long as Flux's; a third of it is never used, a fifth of it lies between two renewals. */
const LEASE_MS = 40_000;
/** A pod that was replaced has 30 s to leave the volume, and some to be killed in. */
const CACHE_PATIENCE_MS = 90_000;
const REPLACED_LOOK_MS = 5_000;

/**
 * Starts the controllers on an API server: asks the cluster for what they need, reads everything, waits for the Lease, then takes
 * the cache and works. Metrics and health are there from the first moment on.
 * @throws Failure that says what the cluster lacks, and how to mend it
 */
export async function startOnCluster(cluster: ClusterOptions, setting: Setting): Promise<Started> {
  const { options, env, health, signal } = setting;
  const { log, clock = systemClock } = options;
  const controllerNamespace = cluster.controllerNamespace ?? wordOf(env['POD_NAMESPACE']) ?? HOME;
  const leaseName = cluster.leaseName ?? LEASE_NAME;
  const metrics = createMetrics({ version: VERSION });
  let step: string | undefined = 'it asks the cluster for what it needs';
  health.ready('cluster', () => step);
  const telemetry = await setting.serve(metrics);

  const sites = cluster.sites === undefined ? [] : await readSites(cluster.sites);
  let lease: Standing | undefined;
  const store = await openKubernetesStore({
    controllerNamespace,
    fieldOwner: FIELD_OWNER,
    ...(cluster.siteSelector === undefined ? {} : { statusOwner: statusOwnerOf(controllerNamespace, leaseName) }),
    ...(cluster.kubeconfig === undefined ? {} : { kubeconfig: cluster.kubeconfig }),
    ...(cluster.context === undefined ? {} : { context: cluster.context }),
    ...(cluster.watchNamespaces === undefined ? {} : { namespaces: cluster.watchNamespaces }),
    ...(options.instance === undefined ? {} : { instance: options.instance }),
    mayWrite: () => lease?.goodForMs(0) === true,
    log,
    clock,
  });
  const summaryNamespace = cluster.summaryNamespace ?? SUMMARY.namespace;
  const facts = {
    server: store.server,
    lease: `${controllerNamespace}/${leaseName}`,
    summary: `${summaryNamespace}/${SUMMARY.name}`,
  };
  const identity = identityOf(cluster.identity ?? wordOf(env['POD_NAME']));
  const leaseMs = cluster.leaseDuration ?? LEASE_MS;
  const candidacy = (name: string, namespace: string, more: Partial<LeaseElectorOptions> = {}): Candidacy =>
    new Candidacy(
      new LeaseElector({
        client: store.lease(name, namespace),
        identity,
        clock,
        leaseMs,
        log: log.child({ lease: `${namespace}/${name}` }),
        ...more,
      }),
    );
  const own = candidacy(leaseName, controllerNamespace);
  const terms = termsOf(cluster);
  const summary = candidacy(SUMMARY.name, summaryNamespace, { after: own, terms });
  const { siteSelector } = cluster;
  // Who serves every site must summarize too, so that there is no other such one in the cluster, and no hub beside it.
  lease = new JointCandidacy(own, siteSelector === undefined ? summary : new Agreement(summary));
  const hub: Hub | undefined =
    siteSelector === undefined
      ? undefined
      : {
          summary,
          claims: new Claims({
            name: facts.lease,
            matches: (labels) => matchesSelector(labels, siteSelector),
            patienceMs: leaseMs,
            clock,
          }),
        };
  health.ready('site selectors', () => hub?.claims.fault);
  health.ready('other controllers', () => whyOpposed(terms, summary, facts.summary));
  try {
    await store.preflight({
      leases: [
        { namespace: controllerNamespace, name: leaseName },
        { namespace: summaryNamespace, name: SUMMARY.name },
      ],
      sites: sites.map(({ metadata }) => metadata.name),
    });
    step = 'it reads all objects for the first time';
    await store.start(signal);
    // Ready also while it waits for the Lease: a standby is as it should be, and a rollout that waited for it would wait for ever.
    step = undefined;
    watchHearing(health, store, clock, signal);
    lease.stand();
    log.info({ ...facts, identity, ...(telemetry === undefined ? {} : { telemetry }) }, 'waits for the Lease');
    await lease.held(signal);
    const ownSites = new OwnSites({ sites, store, log, clock, signal });
    health.ready('sites', () => ownSites.fault);
    await ownSites.apply();
  } catch (error) {
    await lease.withdraw();
    await store.close();
    throw error;
  }
  const controller = await startControllerOn(
    store,
    {
      ...options,
      controllerNamespace,
      metrics,
      lease,
      ...(hub === undefined ? {} : { hub }),
      cachePatienceMs: CACHE_PATIENCE_MS,
    },
    signal,
  );
  endWhenReplaced(controller, lease, identity, setting);
  return { controller, facts: { ...facts, identity } };
}

/** Field manager of the rows of one of several controllers: the same for all pods that follow each other under one Lease. */
function statusOwnerOf(namespace: string, leaseName: string): string {
  const name = `${FIELD_OWNER}/${namespace}/${leaseName}`;
  // The API server takes 128 characters.
  return name.length <= 128 ? name : `${FIELD_OWNER}/${createHash('sha256').update(name).digest('hex')}`;
}

/** Ours alone: a pod's name may be that of a container before us, whose last requests are still under way. */
function identityOf(name: string | undefined): string {
  return `${name ?? `${hostname()}-${process.pid}`}_${randomBytes(4).toString('hex')}`;
}

/** A variable that is set to nothing is not set. */
function wordOf(text: string | undefined): string | undefined {
  return text === '' ? undefined : text;
}

/**
 * Another one holds the Lease, so the cache is to be his as soon as nothing is being downloaded here any more: ends this process,
 * which then starts anew and waits for its turn.
 */
function endWhenReplaced(
  controller: RunningController<KubernetesStore>,
  lease: Standing,
  identity: string,
  { options, end, signal }: Setting,
): void {
  const { clock = systemClock } = options;
  const look = (): void => {
    if (signal.aborted) return;
    const { holder } = lease;
    if (!lease.goodForMs(0) && holder !== undefined && holder !== identity && controller.jobsRunning === 0) {
      end(
        new CommandError(
          EXIT.failed,
          `the Lease was lost to ${holder}: this process ends, to start anew and wait for it`,
        ),
      );
      return;
    }
    clock.after(REPLACED_LOOK_MS, look);
  };
  clock.after(REPLACED_LOOK_MS, look);
}
