import { ApiError } from '../../src/runtime/api-error.ts';
import type { Lease, LeaseClient, LeaseSpec } from '../../src/runtime/lease.ts';

/** One Lease with optimistic locking, as the API server has it. */
export class LeaseServer {
  lease: Lease | undefined;
  /** For all; one alone is cut off by its link. */
  down = false;
  hangs = false;
  /** Writes are carried out, and their answers never come. */
  losesAnswers = false;
  /** Writes are carried out, and their answers are lost on the way. */
  dropsAnswers = false;
  /** Links that end before this Lease, though others get through by them. */
  readonly cutOff = new Set<object>();
  #version = 0;

  /** @param link is cut and mended by the test */
  client(link: { cut: boolean } = { cut: false }): LeaseClient {
    const answer = <T>(work: () => T): Promise<T> => {
      if (this.hangs) return new Promise(() => undefined);
      if (this.down || link.cut || this.cutOff.has(link)) return Promise.reject(new Error('connect ECONNREFUSED'));
      try {
        return Promise.resolve(work());
      } catch (error) {
        return Promise.reject(error);
      }
    };
    const write = (spec: LeaseSpec, annotations?: Record<string, string>): Lease => {
      this.lease = {
        metadata: { resourceVersion: String(++this.#version), ...(annotations && { annotations }) },
        spec,
      };
      return this.lease;
    };
    const unheard = (signal: AbortSignal, work: () => Lease): Promise<Lease> => {
      if (this.dropsAnswers) return answer(work).then(() => Promise.reject(new Error('read ECONNRESET')));
      if (!this.losesAnswers) return answer(work);
      void answer(work);
      return new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true }));
    };
    const conflict = new ApiError(409, 'Conflict', 'the object has been modified');
    return {
      read: () => answer(() => this.lease),
      create: (spec, signal, annotations) =>
        unheard(signal, () => {
          if (this.lease !== undefined) throw conflict;
          return write(spec, annotations);
        }),
      update: (lease, spec, signal) =>
        unheard(signal, () => {
          if (lease.metadata.resourceVersion !== this.lease?.metadata.resourceVersion) throw conflict;
          return write(spec, lease.metadata.annotations);
        }),
    };
  }
}
