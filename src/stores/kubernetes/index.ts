export { type KubernetesStore, type KubernetesStoreOptions, openKubernetesStore } from './store.ts';
