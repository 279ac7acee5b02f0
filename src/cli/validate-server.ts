import { readFile } from 'node:fs/promises';
import { isApiKind } from '../api/schema.ts';
import { lineOfField, type ManifestObject, type Problem } from '../stores/directory/manifest.ts';
import { type ClusterObjects, type ClusterObjectsOptions, openClusterObjects } from '../stores/kubernetes/objects.ts';
import type { Draft } from '../stores/store.ts';

/**
 * Judges objects of manifests by dry runs on an API server: what the schemas alone cannot know (immutable fields of what is there,
 * rights, namespaces, the cluster's own admission). Secrets and ConfigMaps are not sent.
 */
export class ServerJudge implements AsyncDisposable {
  readonly #objects: ClusterObjects;

  private constructor(objects: ClusterObjects) {
    this.#objects = objects;
  }

  /** @throws Failure where no cluster is configured */
  static async open(options: ClusterObjectsOptions): Promise<ServerJudge> {
    return new ServerJudge(await openClusterObjects(options));
  }

  /** Of what names none, as for `kubectl apply`. */
  get namespace(): string {
    return this.#objects.namespace;
  }

  /** @throws Failure where the API server cannot be asked */
  async problemsOf(file: string, objects: readonly ManifestObject[]): Promise<Problem[]> {
    const problems: Problem[] = [];
    for (const object of objects) {
      if (!isApiKind(object.kind)) continue;
      for (const { path, message } of await this.#objects.judge(object.content as Draft)) {
        const line = await lineOfField(object, await readFile(file, 'utf8'), path);
        const { document } = object;
        problems.push({ file, document, line, field: path, message: `the API server: ${message}`, severity: 'error' });
      }
    }
    return problems;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#objects.close();
  }
}
