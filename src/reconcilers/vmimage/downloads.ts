import { contradicted, type Digests, sameBytes, uncompared } from '../../api/digest.ts';
import { Failure } from '../../api/failure.ts';
import type { Blob, Validators } from '../../cache/cache.ts';
import type { JobHandle } from '../../runtime/jobs.ts';
import type { SourceSpec } from '../../sources/source.ts';
import { HAND_OVER_MS, inspected } from './admission.ts';
import { Download, type DownloadDeps, type DownloadOptions, type DownloadView } from './download.ts';
import { hashOf } from './identity.ts';
import { withDigests } from './intact.ts';
import { Memories } from './memory.ts';
import type { Part } from './plan.ts';
import { Rate } from './rate.ts';
import { isVerdictOnBytes, nameOf, verdictOf } from './verdicts.ts';

/** A download of the same digest from elsewhere is worth waiting for while it makes this much. */
const RIVAL_BYTES_PER_SECOND = 2 ** 20;
const RIVAL_LOOK_MS = 3000;

/** A mirror that was cut again is stayed with where it has brought this part of the whole: so many pauses at most, then all is there. */
const LEAST_ADVANCE = 16;

type View = DownloadView & { done: PromiseWithResolvers<Blob> };

interface Running {
  part: Part;
  view: DownloadView;
  /** Ends the transfer because another has brought the same bytes. */
  supersede: AbortController;
}

/**
 * All downloads of this process. Each is shared by everyone who asks for the same part; two that bring the same bytes from
 * different places know of each other.
 */
export class Downloads {
  readonly #deps: DownloadDeps;
  readonly #running = new Set<Running>();
  readonly #memories = new Memories();

  constructor(deps: DownloadDeps) {
    this.#deps = deps;
  }

  static key(part: Part): string {
    return `fetch/${part.key}`;
  }

  /** What a download shows of itself before it has begun. `maxBytes` is its bound. */
  newView(maxBytes: number): View {
    const done = Promise.withResolvers<Blob>();
    // Nobody may be following; a rejection without a listener would end the process.
    done.promise.catch(() => undefined);
    const rate = new Rate(this.#deps.clock);
    return {
      step: 'Queued',
      bytes: 0,
      rate,
      get bytesPerSecond() {
        return rate.bytesPerSecond;
      },
      maxBytes,
      blob: done.promise,
      done,
    };
  }

  /** What is learnt of these parts is remembered while the asker (a resource's key) wants them. */
  ask(asker: string, parts: readonly Part[]): void {
    this.#memories.ask(asker, parts.map(keyOfPart));
  }

  /** The asker wants no parts but these any more; what nobody wants is forgotten, and waits for no space. */
  leave(asker: string, keep: readonly Part[] = []): void {
    for (const key of this.#memories.leave(asker, keep.map(keyOfPart))) this.#deps.cache.giveUp(key);
  }

  /** Forgets which mirrors were wrong: an input changed, or somebody asked for another try. */
  forgive(part: Part): void {
    this.#memories.of(part.key).condemned.clear();
  }

  /** True once for each generation and upload: an upload that fell behind is not begun a second time beside the same file. */
  mayFollow(part: Part, upload: string, generation: number): boolean {
    const { followed } = this.#memories.of(part.key);
    if (followed.get(upload) === generation) return false;
    followed.set(upload, generation);
    return true;
  }

  /** What the mirrors of these parts said of the bytes that they sent last; empty when none has answered. */
  told(parts: readonly Part[]): Told {
    return toldOf(new Map(parts.flatMap((part) => [...this.#memories.of(part.key).told])));
  }

  /** Asks the mirrors what they have now, without fetching a byte of it. One that does not answer says nothing of its bytes. */
  async look(part: Part, signal: AbortSignal): Promise<Told> {
    const told = new Map<string, Validators>();
    for (const source of part.candidates) {
      const validators = await this.#ask(`look/${part.key}`, source, signal);
      if (validators !== undefined) told.set(nameOf(source), validators);
    }
    return toldOf(told);
  }

  /**
   * Brings one part into the cache: from the cache itself, from another download of the same bytes, or from its mirrors in
   * turn. The returned blob is proven and, where it is a disk as published, inspected.
   */
  async run(part: Part, options: DownloadOptions, handle: JobHandle, view: View): Promise<Blob> {
    const running: Running = { part, view, supersede: new AbortController() };
    this.#running.add(running);
    try {
      const blob = (await this.#cached(part, handle.signal)) ?? (await this.#fetch(running, options, handle));
      view.done.resolve(blob);
      this.#memories.clear(part.key);
      this.#endRivals(running, blob);
      return blob;
    } catch (error) {
      view.done.reject(error);
      // Who will not come back must not keep its place in the queue for space.
      if (handle.signal.aborted) this.#deps.cache.giveUp(part.key);
      throw error;
    } finally {
      this.#running.delete(running);
    }
  }

  async #cached(part: Part, signal: AbortSignal): Promise<Blob | undefined> {
    const { cache } = this.#deps;
    const wanted = Object.keys(part.declared).length > 0 ? part.declared : part.content;
    if (Object.keys(wanted).length === 0) return undefined;
    const blob = await cache.find(wanted, part.scope);
    const compared = blob === undefined ? undefined : await this.#compared(blob, wanted, part, signal);
    return compared === undefined ? undefined : inspected(part, compared, this.#deps, signal);
  }

  /**
   * The blob, if it has every digest that is declared; those that nobody has asked of it yet are computed. If not, the part is fetched
   * as it would be without the blob, and fails as it would.
   */
  async #compared(blob: Blob, wanted: Digests, part: Part, signal: AbortSignal): Promise<Blob | undefined> {
    if (uncompared(wanted, blob.digests).length === 0) return blob;
    const { cache, clock } = this.#deps;
    cache.pin(blob.sha256, part.key);
    try {
      const known = await withDigests(blob, uncompared(wanted, blob.digests), this.#deps, signal);
      return known !== undefined && contradicted(wanted, known.digests) === undefined ? known : undefined;
    } finally {
      clock.after(HAND_OVER_MS, () => cache.unpinAll(part.key));
    }
  }

  async #fetch(running: Running, options: DownloadOptions, handle: JobHandle): Promise<Blob> {
    const { part, view } = running;
    await this.#waitForRival(running, handle.signal);
    const cached = await this.#cached(part, handle.signal);
    if (cached !== undefined) return cached;

    const failures: Failure[] = [];
    for (const source of this.#inTurn(part)) {
      const name = nameOf(source);
      const { condemned } = this.#memories.of(part.key);
      const before = condemned.get(name);
      if (before !== undefined) {
        if (!(await this.#hasOthers(part, source, handle.signal))) {
          failures.push(before);
          continue;
        }
        condemned.delete(name);
      }
      const come = this.#comeFrom(part, name);
      try {
        return await this.#fetchFrom(running, source, options, handle);
      } catch (error) {
        handle.signal.throwIfAborted();
        if (running.supersede.signal.aborted) {
          const brought = await this.#cached(part, handle.signal);
          if (brought !== undefined) return brought;
          running.supersede = new AbortController();
        }
        const failure = Failure.from(error);
        this.#deps.log.info({ source: name, reason: failure.reason, err: failure.cause }, failure.message);
        failures.push(failure);
        view.note = failure.message;
        if (isVerdictOnBytes(failure)) this.#memories.of(part.key).condemned.set(name, failure);
        // Nothing can be made of these bytes: they would only take room until they are stale.
        if (isVerdictOnBytes(failure) || failure.reason === 'TooLarge') await this.#forget(part, name);
        // Another mirror gives no more space.
        if (failure.failureClass === 'Waiting') break;
        // Another mirror would begin from zero, and what has come from this one would go: two that cut would never end.
        if (come > 0 && this.#comeFrom(part, name) - come >= (view.totalBytes ?? Infinity) / LEAST_ADVANCE) break;
      }
    }
    throw verdictOf(failures);
  }

  /** The mirrors in the order of the manifest, but first the one whose bytes are there in part: no other can go on with them. */
  #inTurn(part: Part): readonly SourceSpec[] {
    const begun = this.#deps.cache.partial(part.key)?.source;
    return [...part.candidates].sort((a, b) => Number(nameOf(b) === begun) - Number(nameOf(a) === begun));
  }

  /** Bytes from this mirror that a next try goes on with. */
  #comeFrom(part: Part, name: string): number {
    const partial = this.#deps.cache.partial(part.key);
    return partial?.source === name ? partial.watermark : 0;
  }

  /** Whether a mirror of wrong bytes has others now. Another mirror that fails for a time would else keep it condemned for as long. */
  async #hasOthers(part: Part, source: SourceSpec, signal: AbortSignal): Promise<boolean> {
    const validators = await this.#ask(`again/${part.key}`, source, signal);
    signal.throwIfAborted();
    const before = this.#memories.of(part.key).told.get(nameOf(source));
    return validators !== undefined && hashOf(validators) !== hashOf(before);
  }

  /** What the source says of the bytes that it would send; undefined when it does not answer. */
  async #ask(partial: string, source: SourceSpec, signal: AbortSignal): Promise<Validators | undefined> {
    const { cache, transfers } = this.#deps;
    let told: Validators | undefined;
    const { directory, nextGeneration } = await cache.partialDirectory(partial);
    const request = { source, directory, nextGeneration, declared: {}, also: [], maxBytes: Number.MAX_SAFE_INTEGER };
    const onBegin = async ({ validators }: { validators: Validators }): Promise<void> => {
      told = validators;
      throw new Failure('Aborted', 'the answer was all that was wanted');
    };
    await transfers.fetch(request, { onBegin }, signal).catch(() => undefined);
    await cache.dropPartial(partial);
    return told;
  }

  async #fetchFrom(running: Running, source: SourceSpec, options: DownloadOptions, handle: JobHandle): Promise<Blob> {
    const { part } = running;
    try {
      return await this.#download(running, source, options, handle);
    } catch (error) {
      // Bytes of an earlier run may have been lost below the journalled offset (a power cut): only a clean fetch from zero can
      // condemn the origin.
      if (!(error instanceof Failure) || error.reason !== 'SourceChanged' || handle.signal.aborted) throw error;
      await this.#deps.cache.dropPartial(part.key);
      return this.#download(running, source, options, handle);
    }
  }

  #download(running: Running, source: SourceSpec, options: DownloadOptions, handle: JobHandle): Promise<Blob> {
    const { part, view, supersede } = running;
    const work = { part, source, options, view, supersede: supersede.signal };
    const { told } = this.#memories.of(part.key);
    return new Download(work, handle, this.#deps).run((validators) => void told.set(nameOf(source), validators));
  }

  /** Waits while another download brings the same bytes for everybody, and quickly. */
  async #waitForRival(running: Running, signal: AbortSignal): Promise<void> {
    const rival = () =>
      [...this.#running].find(
        (other) =>
          other !== running &&
          other.part.scope === 'public' &&
          sameBytes(other.part.declared, running.part.declared) &&
          other.view.bytesPerSecond >= RIVAL_BYTES_PER_SECOND,
      );
    const aborted = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
    for (let found = rival(); found !== undefined; found = rival()) {
      running.view.note = 'the same bytes are being fetched for another image';
      const ended = found.view.blob.then(
        () => undefined,
        () => undefined,
      );
      const paused = new Promise<void>((resolve) => this.#deps.clock.after(RIVAL_LOOK_MS, resolve));
      await Promise.race([ended, paused, aborted]);
      signal.throwIfAborted();
    }
  }

  /** The first proven blob ends the other downloads of the same bytes that may use it. */
  #endRivals(winner: Running, blob: Blob): void {
    if (winner.part.scope !== 'public') return;
    for (const other of this.#running) {
      if (other !== winner && sameBytes(other.part.declared, blob.digests)) other.supersede.abort();
    }
  }

  /** Removes what has come from this mirror, and nothing that came from another. */
  async #forget(part: Part, name: string): Promise<void> {
    const { cache } = this.#deps;
    if (cache.partial(part.key)?.source === name) await cache.dropPartial(part.key);
  }
}

/** Places and what they said, each as a hash: kept in statuses, compared, never read. */
export type Told = Readonly<Record<string, string>>;

function toldOf(told: ReadonlyMap<string, Validators>): Told {
  return Object.fromEntries([...told].map(([name, validators]) => [hashOf(name), hashOf(validators)]));
}

function keyOfPart({ key }: Part): string {
  return key;
}
