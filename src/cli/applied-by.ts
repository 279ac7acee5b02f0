import { makerMarks } from '../api/maker.ts';
import type { Resource } from '../stores/store.ts';

const FLUX = ['kustomize', 'helm'] as const;
const FLUX_KINDS = { kustomize: 'Kustomization', helm: 'HelmRelease' } as const;

/**
 * What writes an object again and again, as its marks say: a subscription of ours, Flux
 * (https://fluxcd.io/flux/components/kustomize/kustomizations/), Argo CD
 * (https://argo-cd.readthedocs.io/en/stable/user-guide/resource_tracking/), Helm. Undefined for what people apply themselves.
 * Who deletes or edits such an object by hand sees it come back.
 */
export function appliedBy({ metadata }: Pick<Resource, 'metadata'>): string | undefined {
  const { labels = {}, annotations = {}, ownerReferences = [] } = metadata;
  const maker = makerMarks(metadata);
  if (maker !== undefined) return `ImageSubscription ${maker.name}`;
  const owner = ownerReferences.find(({ controller }) => controller === true);
  if (owner !== undefined) return `${owner.kind} ${owner.name}`;
  for (const part of FLUX) {
    const name = labels[`${part}.toolkit.fluxcd.io/name`];
    const namespace = labels[`${part}.toolkit.fluxcd.io/namespace`];
    if (name !== undefined) return `Flux ${FLUX_KINDS[part]} ${namespace === undefined ? '' : `${namespace}/`}${name}`;
  }
  // `APPLICATION:GROUP/KIND:NAMESPACE/NAME`
  const application = annotations['argocd.argoproj.io/tracking-id']?.split(':')[0];
  const argo = application ?? labels['argocd.argoproj.io/instance'];
  if (argo !== undefined) return `Argo CD Application ${argo}`;
  const release = annotations['meta.helm.sh/release-name'];
  return labels['app.kubernetes.io/managed-by'] === 'Helm' && release !== undefined
    ? `Helm release ${release}`
    : undefined;
}
