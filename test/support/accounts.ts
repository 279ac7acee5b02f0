import { type ApiServer, eventually } from './apiserver.ts';

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

/** Resolves when a right that was granted counts: the API server's authorizer follows its own watch of roles and bindings. */
export async function rightCounts(server: ApiServer, user: string, right: Rule, namespace?: string): Promise<void> {
  const [group = '', resource = '', verb = ''] = [right.apiGroups[0], right.resources[0], right.verbs[0]];
  const [name] = right.resourceNames ?? [];
  const [plural = '', subresource] = resource.split('/');
  const resourceAttributes = { group, resource: plural, subresource, verb, name, namespace };
  await eventually(`${user} may ${verb} ${resource}`, async () => {
    const { status } = await server.request<{ status: { allowed: boolean; reason?: string } }>({
      method: 'POST',
      path: '/apis/authorization.k8s.io/v1/subjectaccessreviews',
      body: {
        apiVersion: 'authorization.k8s.io/v1',
        kind: 'SubjectAccessReview',
        spec: { user, resourceAttributes },
      },
    });
    if (!status.allowed) throw new Error(`not yet: ${status.reason}`);
  });
}

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

  /** In one namespace by a Role, else everywhere by a ClusterRole. Resolves when it counts. */
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
    const [first] = rules;
    const user = `system:serviceaccount:${this.#namespace}:${account}`;
    // One is enough: where a binding and its role are seen, all of the role's rules are.
    if (first !== undefined) await rightCounts(this.#server, user, first, namespace);
  }
}
