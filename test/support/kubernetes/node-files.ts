import { randomBytes } from 'node:crypto';
import { join } from 'node:path';

/** What the parts of a node are told. JSON is YAML, so both kinds of files are written as JSON. */

/** The node's own address, and the gateway of its pods: what listens here is reached by pods and by tests. */
export const ADDRESS = '10.88.0.1';
export const NAME = 'node';
const PODS = '10.88.0.0/16';
const SERVICES = '10.96.0.0/16';
const API = `https://${ADDRESS}:6443`;
const ETCD = 'http://127.0.0.1:2379';
const ETCD_PEERS = 'http://127.0.0.1:2380';

/** Who the parts are to the API server. A token for each is enough where nobody else is. */
const USERS = {
  admin: { user: 'admin', group: 'system:masters' },
  controllers: { user: 'system:kube-controller-manager' },
  scheduler: { user: 'system:kube-scheduler' },
  kubelet: { user: `system:node:${NAME}`, group: 'system:nodes' },
  proxy: { user: 'system:kube-proxy' },
} as const satisfies Record<string, { user: string; group?: string }>;
type User = keyof typeof USERS;

export interface NodePlan {
  /** By name, in the node's folder. */
  files: Record<string, string>;
  /** Arguments of each part, in the order of starting. */
  parts: Record<
    'containerd' | 'etcd' | 'kube-apiserver' | 'kube-controller-manager' | 'kube-scheduler' | 'kubelet' | 'kube-proxy',
    string[]
  >;
}

export interface NodeTraits {
  /** Of all pods; below it nothing else is. */
  cgroup: string;
  /** Name of the image that keeps a pod's namespaces. */
  pause: string;
  /** How containerd lays layers upon each other. */
  snapshotter: 'overlayfs' | 'native';
}

export function planNode(directory: string, { cgroup, pause, snapshotter }: NodeTraits): NodePlan {
  const at = (name: string) => join(directory, name);
  const token = Object.fromEntries(Object.keys(USERS).map((user) => [user, randomBytes(16).toString('hex')]));
  const tokens = Object.entries(USERS).map(([name, entry]) =>
    [token[name], entry.user, name, ...('group' in entry ? [`"${entry.group}"`] : [])].join(','),
  );
  const kubeconfig = (user: User) => at(`${user}.kubeconfig`);
  const clients = Object.keys(USERS).map((user) => [
    `${user}.kubeconfig`,
    config(at('pki/apiserver.crt'), token[user] ?? ''),
  ]);
  return {
    files: {
      ...(Object.fromEntries(clients) as Record<string, string>),
      'tokens.csv': `${tokens.join('\n')}\n`,
      'containerd.toml': containerd(directory, pause, snapshotter),
      'cni/10-pods.conflist': json(network(directory)),
      'kubelet.yaml': json(kubelet(directory, cgroup)),
    },
    parts: {
      containerd: ['--config', at('containerd.toml')],
      etcd: [
        `--data-dir=${at('etcd')}`,
        `--listen-client-urls=${ETCD}`,
        `--advertise-client-urls=${ETCD}`,
        `--listen-peer-urls=${ETCD_PEERS}`,
        `--initial-advertise-peer-urls=${ETCD_PEERS}`,
        `--initial-cluster=default=${ETCD_PEERS}`,
        '--unsafe-no-fsync',
        '--log-level=error',
      ],
      'kube-apiserver': [
        `--etcd-servers=${ETCD}`,
        `--bind-address=${ADDRESS}`,
        `--advertise-address=${ADDRESS}`,
        // It signs its own certificate, for the service's address and name too.
        `--cert-dir=${at('pki')}`,
        `--token-auth-file=${at('tokens.csv')}`,
        `--service-account-key-file=${at('sa.pub')}`,
        `--service-account-signing-key-file=${at('sa.key')}`,
        '--service-account-issuer=https://kubernetes.default.svc',
        `--service-cluster-ip-range=${SERVICES}`,
        '--authorization-mode=Node,RBAC',
        '--allow-privileged=true',
        '--kubelet-preferred-address-types=InternalIP',
      ],
      'kube-controller-manager': [
        `--kubeconfig=${kubeconfig('controllers')}`,
        `--service-account-private-key-file=${at('sa.key')}`,
        `--root-ca-file=${at('pki/apiserver.crt')}`,
        // Without it each controller would need rights that RBAC gives to its own ServiceAccount only.
        '--use-service-account-credentials=true',
        '--leader-elect=false',
        '--secure-port=0',
      ],
      'kube-scheduler': [
        `--kubeconfig=${kubeconfig('scheduler')}`,
        `--authentication-kubeconfig=${kubeconfig('scheduler')}`,
        `--authorization-kubeconfig=${kubeconfig('scheduler')}`,
        '--leader-elect=false',
        '--secure-port=0',
      ],
      kubelet: [
        `--config=${at('kubelet.yaml')}`,
        `--kubeconfig=${kubeconfig('kubelet')}`,
        `--hostname-override=${NAME}`,
        // It refuses one on loopback.
        `--node-ip=${ADDRESS}`,
        `--root-dir=${at('kubelet')}`,
        `--cert-dir=${at('pki')}`,
      ],
      'kube-proxy': [
        `--kubeconfig=${kubeconfig('proxy')}`,
        '--proxy-mode=nftables',
        `--hostname-override=${NAME}`,
        `--cluster-cidr=${PODS}`,
        // These belong to the machine, not to a network namespace.
        '--conntrack-max-per-core=0',
        '--conntrack-tcp-timeout-established=0',
        '--conntrack-tcp-timeout-close-wait=0',
      ],
    },
  };
}

/** Objects that every cluster has from those who install it: rights of kube-proxy, and storage. */
export function clusterObjects(directory: string, volumes: readonly string[]): object[] {
  return [
    {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRoleBinding',
      metadata: { name: 'kube-proxy' },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'system:node-proxier' },
      subjects: [{ apiGroup: 'rbac.authorization.k8s.io', kind: 'User', name: USERS.proxy.user }],
    },
    {
      apiVersion: 'storage.k8s.io/v1',
      kind: 'StorageClass',
      metadata: { name: 'standard', annotations: { 'storageclass.kubernetes.io/is-default-class': 'true' } },
      provisioner: 'kubernetes.io/no-provisioner',
      volumeBindingMode: 'WaitForFirstConsumer',
    },
    // Of the kind `local`, for which the kubelet gives a volume to a pod's fsGroup. It does not for hostPath.
    ...volumes.map((name) => ({
      apiVersion: 'v1',
      kind: 'PersistentVolume',
      metadata: { name },
      spec: {
        storageClassName: 'standard',
        accessModes: ['ReadWriteOnce'],
        capacity: { storage: '100Gi' },
        persistentVolumeReclaimPolicy: 'Retain',
        local: { path: join(directory, 'volumes', name) },
        nodeAffinity: {
          required: {
            nodeSelectorTerms: [
              { matchExpressions: [{ key: 'kubernetes.io/hostname', operator: 'In', values: [NAME] }] },
            ],
          },
        },
      },
    })),
  ];
}

function json(value: object): string {
  return `${JSON.stringify(value, undefined, 2)}\n`;
}

function config(authority: string, token: string): string {
  return json({
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'node', cluster: { server: API, 'certificate-authority': authority } }],
    users: [{ name: 'node', user: { token } }],
    contexts: [{ name: 'node', context: { cluster: 'node', user: 'node' } }],
    'current-context': 'node',
  });
}

function containerd(directory: string, pause: string, snapshotter: string): string {
  return `version = 2
root = "${directory}/containerd/root"
state = "${directory}/containerd/state"
[grpc]
  address = "${directory}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "${pause}"
  # In a container nobody may lower its own.
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "${snapshotter}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "${directory}/cni"
`;
}

function network(directory: string): object {
  const ipam = {
    type: 'host-local',
    dataDir: join(directory, 'cni', 'state'),
    ranges: [[{ subnet: PODS }]],
    routes: [{ dst: '0.0.0.0/0' }],
  };
  return {
    cniVersion: '1.0.0',
    name: 'pods',
    plugins: [
      { type: 'bridge', bridge: BRIDGE, isGateway: true, ipMasq: true, hairpinMode: true, ipam },
      { type: 'portmap', capabilities: { portMappings: true } },
    ],
  };
}

const BRIDGE = 'pods';

/** What makes a machine of empty namespaces. */
export const SETUP: readonly (readonly [string, ...string[]])[] = [
  // Some paths are fixed in containerd, CNI and the kubelet. Written there, the files end with the mounts.
  ...['/run', '/var/lib', '/var/log'].map((path) => ['mount', '-t', 'tmpfs', 'tmpfs', path] as const),
  // Pods' network namespaces are handed on by mounts below it.
  ['mkdir', '/run/netns'],
  ['mount', '--bind', '--make-shared', '/run/netns', '/run/netns'],
  ['ip', 'link', 'set', 'lo', 'up'],
  ['ip', 'link', 'add', BRIDGE, 'type', 'bridge'],
  ['ip', 'address', 'add', `${ADDRESS}/16`, 'dev', BRIDGE],
  ['ip', 'link', 'set', BRIDGE, 'up'],
  // The kubelet and the API server look for a default route; nothing beyond answers.
  ['ip', 'route', 'add', 'default', 'via', ADDRESS],
  ['sh', '-c', 'echo 1 >/proc/sys/net/ipv4/ip_forward'],
];

function kubelet(directory: string, cgroup: string): object {
  return {
    apiVersion: 'kubelet.config.k8s.io/v1beta1',
    kind: 'KubeletConfiguration',
    address: ADDRESS,
    healthzPort: 0,
    // Nobody but the API server and the tests can come to it.
    authentication: { anonymous: { enabled: true }, webhook: { enabled: false } },
    authorization: { mode: 'AlwaysAllow' },
    containerRuntimeEndpoint: `unix://${directory}/containerd.sock`,
    // There is no cluster DNS. Asked here, a pod is refused at once; elsewhere it would wait.
    clusterDNS: [ADDRESS],
    volumePluginDir: join(directory, 'volume-plugins'),
    podLogsDir: join(directory, 'pod-logs'),
    cgroupDriver: 'cgroupfs',
    cgroupRoot: cgroup,
    enforceNodeAllocatable: [],
    failCgroupV1: false,
    failSwapOn: false,
    // Where tests run as root of a container, sysctls and oom_score_adj are refused: it goes on without.
    featureGates: { KubeletInUserNamespace: true },
    evictionHard: { 'memory.available': '50Mi', 'nodefs.available': '1%', 'imagefs.available': '1%' },
    shutdownGracePeriod: '0s',
  };
}
