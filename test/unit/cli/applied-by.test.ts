import { describe, expect, it } from 'vitest';
import { appliedBy } from '../../../src/cli/applied-by.ts';
import type { ObjectMeta } from '../../../src/stores/store.ts';

function written(marks: Partial<ObjectMeta>): string | undefined {
  const metadata = { name: 'a', uid: 'u', generation: 1, resourceVersion: '1', creationTimestamp: '', ...marks };
  return appliedBy({ metadata });
}

describe('what writes an object again', () => {
  it.each<[string, Partial<ObjectMeta>, string | undefined]>([
    ['nothing', {}, undefined],
    ['a person with labels', { labels: { team: 'a' } }, undefined],
    [
      'a Kustomization',
      {
        labels: {
          'kustomize.toolkit.fluxcd.io/name': 'images',
          'kustomize.toolkit.fluxcd.io/namespace': 'flux-system',
        },
      },
      'Flux Kustomization flux-system/images',
    ],
    ['a HelmRelease', { labels: { 'helm.toolkit.fluxcd.io/name': 'images' } }, 'Flux HelmRelease images'],
    [
      'Argo CD by annotation',
      { annotations: { 'argocd.argoproj.io/tracking-id': 'images:imageproxy.dev/VMImage:default/a' } },
      'Argo CD Application images',
    ],
    ['Argo CD by label', { labels: { 'argocd.argoproj.io/instance': 'images' } }, 'Argo CD Application images'],
    [
      'Helm',
      {
        labels: { 'app.kubernetes.io/managed-by': 'Helm' },
        annotations: { 'meta.helm.sh/release-name': 'imageproxy' },
      },
      'Helm release imageproxy',
    ],
    [
      'a subscription',
      { annotations: { 'imageproxy.dev/subscription': 'egi', 'imageproxy.dev/subscription-uid': 'u' } },
      'ImageSubscription egi',
    ],
    ['a subscription that has gone', { annotations: { 'imageproxy.dev/subscription': 'egi' } }, undefined],
    [
      'an owner',
      {
        ownerReferences: [
          { apiVersion: 'imageproxy.dev/v1beta1', kind: 'ImageSubscription', name: 'egi', uid: 'u', controller: true },
        ],
      },
      'ImageSubscription egi',
    ],
    [
      'one that only holds on to it',
      { ownerReferences: [{ apiVersion: 'v1', kind: 'ConfigMap', name: 'other', uid: 'u' }] },
      undefined,
    ],
  ])('%s', (_, marks, expected) => expect(written(marks)).toBe(expected));
});
