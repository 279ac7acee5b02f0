import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Algorithm, Digests } from '../src/api/digest.ts';
import type { FetchListener, FetchResult, Transfers } from '../src/transfers/transfers.ts';

export interface Wanted {
  declared: Digests;
  /** Computed beside those declared, at low priority. */
  also: readonly Algorithm[];
}

/** The transfer thread alone, without controllers: one URL, fetched again and again. */
export class Way {
  readonly #transfers: Transfers;
  readonly #url: string;
  readonly #directory: string;
  readonly #forever = new AbortController().signal;
  #generation = 0;

  constructor(transfers: Transfers, url: string, folder: string) {
    this.#transfers = transfers;
    this.#url = url;
    this.#directory = join(folder, 'partials');
    mkdirSync(this.#directory, { recursive: true });
  }

  /** Downloads it, and removes what came. */
  async fetch(wanted: Wanted): Promise<void> {
    rmSync((await this.#fetch(wanted, {})).path);
  }

  /** Downloads it while an upload follows, which ends with the proof; without a declared digest there is nothing to wait for. */
  async follow(
    wanted: Wanted,
    put: { url: string; headers: Record<string, string>; totalBytes: number },
  ): Promise<void> {
    const isProven = Object.keys(wanted.declared).length > 0;
    const proof = Promise.withResolvers<void>();
    let sent: Promise<{ status: number }> | undefined;
    const { path } = await this.#fetch(wanted, {
      onBegin: async (begun) => {
        const follow = { directory: this.#directory, generation: begun.generation };
        const request = { ...put, path: begun.path, follow, holdBackBytes: isProven ? 64 * 1024 : 0, stallMs: 30_000 };
        sent = this.#transfers.upload(request, { mayFinish: () => proof.promise }, this.#forever);
      },
      onProven: () => proof.resolve(),
    });
    const { status } = (await sent) ?? { status: 0 };
    if (status !== 204) throw new Error(`the receiver answered ${status}`);
    rmSync(path);
  }

  #fetch({ declared, also }: Wanted, listener: FetchListener): Promise<FetchResult> {
    return this.#transfers.fetch(
      {
        source: {
          kind: 'http',
          url: this.#url,
          headers: {},
          network: { allow: ['127.0.0.0/8'] },
          timeouts: { connectMs: 5000, headersMs: 5000, stallMs: 30_000 },
        },
        directory: this.#directory,
        nextGeneration: ++this.#generation,
        declared,
        also,
        maxBytes: 2 ** 40,
      },
      listener,
      this.#forever,
    );
  }
}
