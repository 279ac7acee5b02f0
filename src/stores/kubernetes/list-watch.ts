import type { ListPage, ListWatch } from '../../runtime/reflector.ts';
import type { Resource } from '../store.ts';
import type { ApiClient } from './client.ts';
import { slim } from './copy.ts';
import { collectionPath, type ResourceType } from './resources.ts';

const METADATA_LIST = 'application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1';
const METADATA = 'application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1';

/** What a reflector of this kind asks: of all of them, of one namespace, or of one object. Items of a list carry no kind of their own, and those of a metadata list the wrong one. */
export function listWatch(client: ApiClient, type: ResourceType, namespace?: string, name?: string): ListWatch {
  const path = collectionPath(type, namespace);
  // One object alone, so that rights to it by its name (`resourceNames`) are enough.
  const only: Record<string, string> = name === undefined ? {} : { fieldSelector: `metadata.name=${name}` };
  const { apiVersion, kind, metadataOnly } = type;
  const named = <T extends object>(object: T): T => ({ ...object, apiVersion, kind });
  return {
    async list(query, signal) {
      const accept = metadataOnly ? { accept: METADATA_LIST } : {};
      const page = await client.request<ResourceList>({
        method: 'GET',
        path,
        query: { ...query, ...only },
        signal,
        ...accept,
      });
      // Made small here, page by page: a list of ten thousand is not held twice.
      const items = (page.items ?? []).map((item) => slim(small(type, named(item))));
      return { items, ...page.metadata };
    },
    async *watch(query, signal) {
      for await (const { type: change, object } of client.watch(
        path,
        { ...query, ...only },
        signal,
        metadataOnly ? METADATA : undefined,
      )) {
        const told = change !== 'ERROR' && typeof object === 'object' && object !== null;
        yield { type: change, object: told ? small(type, named(object) as Resource) : object };
      }
    },
  };
}

interface ResourceList {
  /** Null, and not an empty list, where there is no Secret: Go's nil of PartialObjectMetadataList. */
  items: readonly Resource[] | null;
  metadata: Pick<ListPage, 'resourceVersion' | 'continue'>;
}

/** Of metadata only what tells one version of an object from another is kept: annotations of Secrets can be as large as they are. */
function small(type: ResourceType, object: Resource): Resource {
  if (!type.metadataOnly) return object;
  const { name, namespace, uid, resourceVersion, creationTimestamp } = object.metadata;
  const { apiVersion, kind } = object;
  return {
    apiVersion,
    kind,
    metadata: {
      name,
      ...(namespace === undefined ? {} : { namespace }),
      uid,
      generation: 0,
      resourceVersion,
      creationTimestamp,
    },
  };
}
