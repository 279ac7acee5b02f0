import type { ApiServer } from './apiserver.ts';

/** A rule of a Role. */
export interface Rule {
  apiGroups: string[];
  resources: string[];
  verbs: string[];
  resourceNames?: string[];
}

export const rule = (group: string, resources: string[], verbs: string[]): Rule => ({
  apiGroups: [group],
  resources,
  verbs,
});

const RBAC = '/apis/rbac.authorization.k8s.io/v1';

/** ServiceAccounts of one namespace, with the rights that a test gives them. */
export class Accounts {
  readonly #server: ApiServer;
  readonly #namespace: string;

  constructor(server: ApiServer, namespace: string) {
    this.#server = server;
    this.#namespace = namespace;
  }

  /** A kubeconfig of a new account, by a token as the kubelet projects it; `namespace` is that of its context. */
  async make(name: string, options: { namespace?: string } = {}): Promise<string> {
    const metadata = { name, namespace: this.#namespace };
    const path = `/api/v1/namespaces/${this.#namespace}/serviceaccounts/${name}`;
    await this.#server.apply(path, { apiVersion: 'v1', kind: 'ServiceAccount', metadata });
    const { status } = await this.#server.request<{ status: { token: string } }>({
      method: 'POST',
      path: `${path}/token`,
      body: { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec: { expirationSeconds: 600 } },
    });
    return this.#server.writeConfig(name, { token: status.token, ...options });
  }

  /** In one namespace by a Role, else everywhere by a ClusterRole. */
  async grant(account: string, rules: readonly Rule[], namespace?: string): Promise<void> {
    const scope = namespace === undefined ? 'Cluster' : '';
    const home = namespace === undefined ? '' : `/namespaces/${namespace}`;
    const [roles, bindings] = [`${scope.toLowerCase()}roles`, `${scope.toLowerCase()}rolebindings`];
    const head = (kind: string) => ({
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: `${scope}${kind}`,
      metadata: { name: account, ...(namespace === undefined ? {} : { namespace }) },
    });
    await this.#server.apply(`${RBAC}${home}/${roles}/${account}`, { ...head('Role'), rules });
    await this.#server.apply(`${RBAC}${home}/${bindings}/${account}`, {
      ...head('RoleBinding'),
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: `${scope}Role`, name: account },
      subjects: [{ kind: 'ServiceAccount', name: account, namespace: this.#namespace }],
    });
  }
}
