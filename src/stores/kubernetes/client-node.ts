/**
 * All that is taken from client-node, named, so that a bundle holds what these need and not the sixteen megabytes of the whole. Itself
 * it is imported lazily, by `credentials.ts`: in memory it costs some 80 MiB, which a directory of manifests must not pay.
 */
export { HttpMethod, KubeConfig, RequestContext } from '@kubernetes/client-node';
