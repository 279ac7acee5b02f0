import type { Algorithm } from '../../api/digest.ts';
import { Failure } from '../../api/failure.ts';
import type { Blob, Cache, PartialRecord, Reservation, Validators } from '../../cache/cache.ts';
import type { Recognition } from '../../images/format.ts';
import type { Images } from '../../images/images.ts';
import { HEAD_BYTES } from '../../images/recognise.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { JobHandle } from '../../runtime/jobs.ts';
import type { SourceSpec } from '../../sources/source.ts';
import type { Logger } from '../../telemetry/log.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import type { FetchListener, FetchRequest, Transfers } from '../../transfers/transfers.ts';
import { admit, headOf, type Looked, lookInto } from './admission.ts';
import { spaceStep } from './growing.ts';
import type { Part } from './plan.ts';
import type { Rate } from './rate.ts';
import { nameOf, otherFormat, refuseText } from './verdicts.ts';

/** What a running download shows. */
export interface DownloadView {
  step: 'Queued' | 'Fetching' | 'Verifying';
  bytes: number;
  totalBytes?: number;
  rate: Rate;
  /** Of `rate`, when it is read. */
  readonly bytesPerSecond: number;
  /** Cleaned URL of the mirror at hand. */
  source?: string;
  /** The generation that is growing, once its head has been recognised: what an upload may follow. */
  growing?: Growing;
  /** The blob, when it is in the cache. */
  blob: Promise<Blob>;
  /** Bound of this run; another asker's may be larger. */
  maxBytes: number;
  /** Why the last mirror was left, for people. */
  note?: string;
}

/** One generation of a download. */
export interface Growing {
  directory: string;
  generation: number;
  path: string;
  size: number;
  recognition: Recognition;
  /**
   * Resolves once every declared digest is proven on this very generation and the complete file is inspected: an upload of it may
   * send its last bytes. Another generation's proof says nothing of these bytes.
   */
  proof: Promise<void>;
}

export interface DownloadDeps {
  cache: Cache;
  transfers: Transfers;
  images: Images;
  clock: Clock;
  log: Logger;
  metrics: Metrics;
}

export interface DownloadOptions {
  /** A body that is larger fails with TooLarge. */
  maxBytes: number;
  /** Whose bound that is and what helps, for the message. */
  bound: string;
  /** Digests wanted beside those declared and our own sha256. */
  also: readonly Algorithm[];
}

/** One download of one part from one mirror: its space, its journal, its proof, and what it shows meanwhile. */
export class Download {
  readonly #part: Part;
  readonly #source: SourceSpec;
  readonly #options: DownloadOptions;
  readonly #view: DownloadView;
  readonly #handle: JobHandle;
  readonly #deps: DownloadDeps;
  readonly #name: string;
  readonly #proof = Promise.withResolvers<void>();
  /** Ends the transfer for a reason that its own thread cannot see: no more space, a page of text. */
  readonly #stop = new AbortController();
  readonly #signal: AbortSignal;
  #generation: Pick<Growing, 'directory' | 'generation' | 'path'> | undefined;
  #reservation: Reservation | undefined;
  #ended = false;
  #takesSpace = false;
  #inspection: Promise<Looked> | undefined;
  #headSeen = false;

  constructor(
    work: { part: Part; source: SourceSpec; options: DownloadOptions; view: DownloadView; supersede: AbortSignal },
    handle: JobHandle,
    deps: DownloadDeps,
  ) {
    this.#part = work.part;
    this.#source = work.source;
    this.#options = work.options;
    this.#view = work.view;
    this.#handle = handle;
    this.#deps = deps;
    this.#name = nameOf(work.source);
    this.#signal = AbortSignal.any([handle.signal, work.supersede, this.#stop.signal]);
    // Nobody may be following; a rejection without a listener would end the process.
    this.#proof.promise.catch(() => undefined);
  }

  /** The proven and admitted blob. `told` hears what the mirror says of its bytes. */
  async run(told: (validators: Validators) => void): Promise<Blob> {
    const { transfers, metrics, clock } = this.#deps;
    const started = clock.now();
    this.#view.step = 'Fetching';
    this.#view.source = this.#name;
    delete this.#view.growing;
    try {
      const fetched = await transfers.fetch(await this.#request(), this.#listener(told), this.#signal);
      const seconds = (clock.now() - started) / 1000;
      metrics.transferred({ step: 'Fetch', source: this.#source.kind, bytes: fetched.size, seconds });
      this.#view.step = 'Verifying';
      this.#handle.changed('Soon');
      const arrival = {
        part: this.#part,
        fetched,
        source: this.#name,
        inspection: this.#inspection,
        maxBytes: this.#options.maxBytes,
      };
      return await admit(arrival, this.#deps, this.#handle.signal);
    } catch (error) {
      this.#proof.reject(error);
      if (this.#stop.signal.aborted) throw this.#stop.signal.reason;
      await this.#refusePage(error);
      throw error;
    } finally {
      this.#ended = true;
      this.#reservation?.release();
    }
  }

  async #request(): Promise<FetchRequest> {
    const { cache } = this.#deps;
    const earlier = cache.partial(this.#part.key);
    const { directory, nextGeneration } = await cache.partialDirectory(this.#part.key);
    const content = Object.keys(this.#part.content) as Algorithm[];
    return {
      source: this.#source,
      directory,
      nextGeneration,
      ...(earlier !== undefined && this.#continues(earlier) ? { resume: earlier } : {}),
      declared: this.#part.declared,
      also: [...new Set<Algorithm>(['sha256', ...this.#options.also, ...content])],
      maxBytes: this.#options.maxBytes,
      bound: this.#options.bound,
    };
  }

  /** Another mirror's bytes are another generation, whatever its ETag says. */
  #continues(earlier: PartialRecord): boolean {
    return earlier.watermark > 0 && earlier.source === this.#name;
  }

  #listener(told: (validators: Validators) => void): FetchListener {
    const { cache } = this.#deps;
    const { rate } = this.#view;
    const { key } = this.#part;
    return {
      onBegin: async ({ validators, generation, offset, path }) => {
        told(validators);
        const { totalBytes } = validators;
        await this.#setAside(totalBytes ?? spaceStep(cache.stats().quotaBytes));
        // Until then it was anybody's to evict. What is written to its file now would be nobody's.
        if (offset > 0 && cache.partial(key)?.generation !== generation)
          throw new Failure(
            'SourceChanged',
            `${this.#name}: what had come before was evicted; it is fetched from the start`,
          );
        if (offset === 0) await cache.newPartial(key, this.#name, validators, generation);
        const { directory } = await cache.partialDirectory(key);
        this.#generation = { directory, generation, path };
        if (totalBytes === undefined) delete this.#view.totalBytes;
        else this.#view.totalBytes = totalBytes;
        this.#view.bytes = offset;
        rate.reset(offset);
        this.#handle.changed('Soon');
      },
      onProgress: ({ bytes, durable }) => {
        const knewRate = rate.bytesPerSecond > 0;
        this.#view.bytes = bytes;
        rate.note(bytes);
        if (this.#generation === undefined) return;
        cache.recordWatermark(key, this.#generation.generation, durable);
        this.#takeSpace(bytes);
        this.#lookAtHead(this.#generation, bytes);
        // Whether an upload may follow is decided by the head and the rate: the later of the two must not wait its second out.
        this.#handle.changed(knewRate || rate.bytesPerSecond === 0 ? 'Soon' : 'Now');
      },
      onProven: () => {
        if (this.#generation === undefined) return;
        this.#view.step = 'Verifying';
        this.#inspection = lookInto(this.#part, this.#generation.path, this.#deps, this.#signal);
        this.#inspection.then((found) => {
          // A fixed VHD begins like a raw disk: what was promised to the cloud by the head alone must not be kept.
          const promised = this.#view.growing?.recognition.format;
          if (promised === undefined || promised === found.format) this.#proof.resolve();
          else this.#proof.reject(otherFormat(promised, found.format));
        }, this.#proof.reject);
      },
    };
  }

  /** Room is made by unlinking files, which takes its time: who was stopped meanwhile has nobody left to give it back. */
  async #setAside(bytes: number): Promise<void> {
    const { key } = this.#part;
    const reservation = await this.#deps.cache.reserve(bytes, key, key);
    if (this.#ended) {
      reservation.release();
      throw new Failure('Aborted', 'stopped');
    }
    this.#reservation = reservation;
  }

  /** A body of unknown length takes its space in steps. */
  #takeSpace(bytes: number): void {
    const reservation = this.#reservation;
    if (reservation === undefined || this.#view.totalBytes !== undefined || bytes < reservation.bytes) return;
    // A step that waits for others to give space back is not asked for a second time.
    if (this.#takesSpace) return;
    this.#takesSpace = true;
    const step = spaceStep(this.#deps.cache.stats().quotaBytes);
    reservation
      .resize(reservation.bytes + step)
      .catch((error: unknown) => this.#stop.abort(error))
      .finally(() => (this.#takesSpace = false));
  }

  /** A page of text is given up at once; an image whose head says all lets uploads begin. */
  #lookAtHead(generation: Pick<Growing, 'directory' | 'generation' | 'path'>, bytes: number): void {
    const { totalBytes } = this.#view;
    if (this.#headSeen || bytes < Math.min(HEAD_BYTES, totalBytes ?? HEAD_BYTES)) return;
    this.#headSeen = true;
    const look = async (): Promise<void> => {
      const recognition = this.#deps.images.recognise(await headOf(generation.path));
      refuseText(this.#part, recognition, this.#name);
      if (totalBytes !== undefined)
        this.#view.growing = { ...generation, size: totalBytes, recognition, proof: this.#proof.promise };
      this.#handle.changed('Now');
    };
    look().catch((error: unknown) => this.#stop.abort(error));
  }

  /** A page that ends before anybody has looked at its head is no image either, and that helps more than two digests. */
  async #refusePage(cause: unknown): Promise<void> {
    if (!(cause instanceof Failure) || cause.reason !== 'DigestMismatch' || this.#generation === undefined) return;
    const head = await headOf(this.#generation.path).catch(() => undefined);
    if (head !== undefined) refuseText(this.#part, this.#deps.images.recognise(head), this.#name);
  }
}
