import type { Values } from '../../support/kubernetes/chart.ts';

const directory = { spec: { directory: { path: '/srv/images' } } };

/** What people set, so that every branch of every template is rendered by one of them. */
export const VALUE_SETS: Readonly<Record<string, Values>> = {
  'as it comes': {},
  'one OpenStack site': {
    sites: {
      'nova-east': {
        labels: { region: 'east' },
        annotations: { 'example.org/owner': 'team: "images"' },
        spec: {
          openstack: { cloud: 'east', region: 'RegionOne', secretRef: { name: 'nova-east' } },
          acceptedFormats: ['Qcow2', 'Raw'],
          allowedNamespaces: ['team-*'],
        },
      },
    },
  },
  'sites whose names are words of YAML': { sites: { no: directory, '123': directory } },
  'chosen namespaces': { watchNamespaces: ['team-a', 'team-b'], instance: 'example', sites: { shelf: directory } },
  'chosen namespaces, default among them': { watchNamespaces: ['default'] },
  'a second release': { crds: { enabled: false }, rbac: { aggregate: false }, siteSelector: 'region in (east, west)' },
  'a claim that is there': { persistence: { existingClaim: 'images' } },
  'tools that are children of the controller': { tools: { separate: false } },
  'no volume': { persistence: { enabled: false } },
  'a claim of the release': {
    persistence: { storageClass: 'fast', size: '2Ti', annotations: { 'example.org/tier': 'one' }, retain: false },
  },
  'a claim without a class': { persistence: { storageClass: '-' } },
  'others make the roles': {
    rbac: { create: false },
    serviceAccount: { create: false, name: 'images' },
    service: { enabled: false },
  },
  'everything that can be switched on': {
    nameOverride: 'images',
    commonLabels: { 'example.org/team': 'cloud' },
    image: { repository: 'registry.example.org/imageproxy', digest: `sha256:${'0a'.repeat(32)}`, pullPolicy: 'Always' },
    imagePullSecrets: [{ name: 'registry' }],
    allowNetworks: ['10.0.0.0/8', 'fd00::/8'],
    fileRoots: { archive: '/srv/archive' },
    cache: { quota: '200Gi' },
    log: { level: 'debug', format: 'pretty' },
    serviceAccount: { annotations: { 'example.org/role': 'images' } },
    podLabels: { 'example.org/tier': 'control' },
    podAnnotations: { 'example.org/scan': 'no' },
    priorityClassName: 'system-cluster-critical',
    tolerations: [{ key: 'dedicated', operator: 'Exists', effect: 'NoSchedule' }],
    affinity: {
      nodeAffinity: {
        requiredDuringSchedulingIgnoredDuringExecution: {
          nodeSelectorTerms: [{ matchExpressions: [{ key: 'disk', operator: 'In', values: ['ssd'] }] }],
        },
      },
    },
    topologySpreadConstraints: [
      {
        maxSkew: 1,
        topologyKey: 'topology.kubernetes.io/zone',
        whenUnsatisfiable: 'ScheduleAnyway',
        labelSelector: { matchLabels: { 'app.kubernetes.io/name': 'images' } },
      },
    ],
    hostAliases: [{ ip: '192.0.2.7', hostnames: ['keystone.example.org'] }],
    extraEnv: [{ name: 'HTTPS_PROXY', value: 'http://proxy.example.org:3128' }],
    extraVolumes: [{ name: 'archive', nfs: { server: 'nfs.example.org', path: '/archive' } }],
    extraVolumeMounts: [{ name: 'archive', mountPath: '/srv/archive', readOnly: true }],
    extraArgs: ['--lease-duration=60s'],
    telemetry: { host: '[::]', port: 9100 },
    service: { annotations: { 'example.org/scrape': 'yes' } },
    networkPolicy: {
      enabled: true,
      metricsFrom: [{ namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'monitoring' } } }],
      egress: [{ ports: [{ port: 443, protocol: 'TCP' }] }],
    },
    podDisruptionBudget: { enabled: true, maxUnavailable: 0 },
    sites: { shelf: directory },
  },
  'monitoring as it comes': {
    serviceMonitor: { enabled: true },
    prometheusRule: { enabled: true },
    dashboard: { enabled: true },
  },
  'monitoring as a site wants it': {
    serviceMonitor: {
      enabled: true,
      interval: '1m',
      scrapeTimeout: '20s',
      labels: { release: 'prometheus' },
      metricRelabelings: [{ action: 'drop', regex: 'nodejs_.*', sourceLabels: ['__name__'] }],
    },
    prometheusRule: {
      enabled: true,
      labels: { release: 'prometheus' },
      alertLabels: { team: 'images' },
      disabled: ['ImageProxyDown', 'ImageProxyCacheFull'],
    },
    dashboard: { enabled: true, labels: { dashboards: 'yes' }, annotations: { folder: 'Images' } },
  },
  'a network policy as it comes': { networkPolicy: { enabled: true } },
  'a network policy without ports of its own for the API server': {
    networkPolicy: { enabled: true, apiServerPorts: [] },
  },
};
