import type { AuditEvent } from '../../support/apiserver.ts';
import type { Rendered } from '../../support/kubernetes/chart.ts';

interface Rule {
  apiGroups: string[];
  resources: string[];
  verbs: string[];
  resourceNames?: string[];
}

interface Binding extends Rendered {
  roleRef: { kind: string; name: string };
  subjects: { name: string; namespace: string }[];
}

/** One right of the controller: `patch vmimages.imageproxy.dev/status everywhere`. */
export interface Right {
  verb: string;
  group: string;
  resource: string;
  name?: string;
  namespace?: string;
}

/** Every single right that these objects give to the ServiceAccount. */
export function granted(objects: readonly Rendered[], account: { name: string; namespace: string }): Right[] {
  const bindings = objects.filter(({ kind }) => kind.endsWith('RoleBinding')) as Binding[];
  return bindings
    .filter(({ subjects }) =>
      subjects.some(({ name, namespace }) => name === account.name && namespace === account.namespace),
    )
    .flatMap(({ roleRef, metadata: { namespace } }) => {
      const role = objects.find(
        ({ kind, metadata }) =>
          kind === roleRef.kind && metadata.name === roleRef.name && metadata.namespace === namespace,
      ) as (Rendered & { rules: Rule[] }) | undefined;
      if (role === undefined) throw new Error(`the binding names ${roleRef.kind} ${roleRef.name}, which is not there`);
      return role.rules.flatMap((rule) => each(rule, namespace));
    });
}

function each({ apiGroups, resources, verbs, resourceNames = [''] }: Rule, namespace: string | undefined): Right[] {
  return apiGroups.flatMap((group) =>
    resources.flatMap((resource) =>
      verbs.flatMap((verb) =>
        resourceNames.map((name) => ({
          verb,
          group,
          resource,
          ...(name === '' ? {} : { name }),
          ...(namespace === undefined ? {} : { namespace }),
        })),
      ),
    ),
  );
}

/** Whether this request needed this right. */
export function needed({ verb, objectRef, responseStatus }: AuditEvent, right: Right): boolean {
  if (objectRef === undefined) return false;
  const { apiGroup = '', resource, subresource, namespace, name } = objectRef;
  // An apply of what is not there yet is allowed to those only who may create it (audited as the patch that it is).
  const made = verb === 'patch' && responseStatus?.code === 201;
  return (
    (right.verb === verb || (made && right.verb === 'create')) &&
    right.group === apiGroup &&
    right.resource === (subresource === undefined ? resource : `${resource}/${subresource}`) &&
    (right.name === undefined || right.name === name) &&
    (right.namespace === undefined || right.namespace === namespace)
  );
}

export function wordsOf({ verb, group, resource, name, namespace }: Right): string {
  const what = `${resource}${group === '' ? '' : `.${group}`}${name === undefined ? '' : ` ${name}`}`;
  return `${verb} ${what} ${namespace === undefined ? 'everywhere' : `in ${namespace}`}`;
}
