import { open, readFile, rm } from 'node:fs/promises';
import { type Algorithm, type Digests, provable, sameBytes, strongest } from '../../api/digest.ts';
import { Failure } from '../../api/failure.ts';
import type { Logger } from 'pino';
import type { Blob, Cache, Reservation, Validators } from '../../cache/cache.ts';
import { HEAD_BYTES } from '../../images/recognise.ts';
import type { Images } from '../../images/images.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import type { Recognition } from '../../images/format.ts';
import type { JobHandle } from '../../runtime/jobs.ts';
import type { FetchResult, Transfers } from '../../transfers/transfers.ts';
import { cleanUrl } from '../../sources/url.ts';
import type { SourceSpec } from '../../sources/source.ts';
import { hashOf } from './identity.ts';
import { keepAhead, spaceStep } from './growing.ts';
import type { Part } from './plan.ts';

const MiB = 2 ** 20;
/** A download of the same digest from elsewhere is worth waiting for while it makes this much. */
const RIVAL_BYTES_PER_SECOND = MiB;
/** By then whoever asked for a download has taken its blob, or has gone. */
const HAND_OVER_MS = 60_000;

/** What looking into a file tells of it. */
type Looked = Pick<Blob, 'compression' | 'format' | 'virtualSize'>;

/** What a running download shows. */
export interface DownloadView {
  step: 'Queued' | 'Fetching' | 'Verifying';
  bytes: number;
  totalBytes?: number;
  bytesPerSecond: number;
  /** Cleaned URL of the mirror at hand. */
  source?: string;
  /** The generation that is growing, once its head has been recognised: what an upload may follow. */
  growing?: Growing;
  /** The blob, when it is in the cache. */
  blob: Promise<Blob>;
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

interface Running {
  part: Part;
  view: DownloadView;
  /** Ends the transfer because another has brought the same bytes. */
  supersede: AbortController;
}

export interface DownloadDeps {
  cache: Cache;
  transfers: Transfers;
  images: Images;
  clock: Clock;
  log: Logger;
  metrics: Metrics;
}

/**
 * All downloads of this process. Each is shared by everyone who asks for the same part; two that bring the same bytes from
 * different places know of each other.
 */
export class Downloads {
  readonly #deps: DownloadDeps;
  readonly #running = new Set<Running>();
  /** Mirrors that served wrong bytes for a part: not asked again until somebody asks for a fresh look. */
  readonly #condemned = new Map<string, Map<string, Failure>>();
  /** What the sources of a part said of what they sent last, by part and mirror. */
  readonly #told = new Map<string, Map<string, Validators>>();

  constructor(deps: DownloadDeps) {
    this.#deps = deps;
  }

  static key(part: Part): string {
    return `fetch/${part.key}`;
  }

  static newView(): DownloadView & { done: PromiseWithResolvers<Blob> } {
    const done = Promise.withResolvers<Blob>();
    // Nobody may be following; a rejection without a listener would end the process.
    done.promise.catch(() => undefined);
    return { step: 'Queued', bytes: 0, bytesPerSecond: 0, blob: done.promise, done };
  }

  /** Forgets which mirrors were wrong: an input changed, or somebody asked for another try. */
  forgive(part: Part): void {
    this.#condemned.delete(part.key);
  }

  /** Hash of what the sources said of the bytes that were fetched last; undefined when none has answered. */
  told(part: Part): string | undefined {
    const told = this.#told.get(part.key);
    return told === undefined ? undefined : hashOf(Object.fromEntries(told));
  }

  /**
   * Asks the sources what they have now, without fetching a byte of it; comparable with `told`. Undefined when one of them does not
   * answer: that says nothing about its bytes.
   */
  async look(part: Part, signal: AbortSignal): Promise<string | undefined> {
    const told = new Map<string, Validators>();
    const { directory, nextGeneration } = await this.#deps.cache.partialDirectory(`look/${part.key}`);
    const enough = new Failure('Aborted', 'the answer was all that was wanted');
    for (const source of part.candidates) {
      const request = { source, directory, nextGeneration, declared: {}, also: [], maxBytes: Number.MAX_SAFE_INTEGER };
      const onBegin = async ({ validators }: { validators: Validators }): Promise<void> => {
        told.set(nameOf(source), validators);
        throw enough;
      };
      await this.#deps.transfers.fetch(request, { onBegin }, signal).catch(() => undefined);
    }
    await this.#deps.cache.dropPartial(`look/${part.key}`);
    return told.size === part.candidates.length ? hashOf(Object.fromEntries(told)) : undefined;
  }

  /**
   * Brings one part into the cache: from the cache itself, from another download of the same bytes, or from its mirrors in
   * order. The returned blob is proven and, where it is a disk as published, inspected.
   */
  async run(
    part: Part,
    options: { maxBytes: number; also: readonly Algorithm[] },
    handle: JobHandle,
    view: ReturnType<typeof Downloads.newView>,
  ): Promise<Blob> {
    const running: Running = { part, view, supersede: new AbortController() };
    this.#running.add(running);
    try {
      const blob = (await this.#cached(part, handle.signal)) ?? (await this.#fetch(running, options, handle));
      view.done.resolve(blob);
      this.#condemned.delete(part.key);
      this.#told.delete(part.key);
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
    const wanted = provable(part.declared) || Object.keys(part.declared).length > 0 ? part.declared : part.content;
    if (Object.keys(wanted).length === 0) return undefined;
    const blob = await cache.find(wanted, part.scope);
    if (blob === undefined) return undefined;
    return this.#inspected(part, blob, signal);
  }

  async #fetch(
    running: Running,
    options: { maxBytes: number; also: readonly Algorithm[] },
    handle: JobHandle,
  ): Promise<Blob> {
    const { part, view } = running;
    await this.#waitForRival(running, handle.signal);
    const cached = await this.#cached(part, handle.signal);
    if (cached !== undefined) return cached;

    const failures: Failure[] = [];
    for (const source of part.candidates) {
      const name = nameOf(source);
      const condemned = this.#condemned.get(part.key)?.get(name);
      if (condemned !== undefined) {
        failures.push(condemned);
        continue;
      }
      try {
        return await this.#fetchFrom(running, source, options, handle);
      } catch (error) {
        handle.signal.throwIfAborted();
        const { aborted, reason } = running.supersede.signal;
        if (aborted) {
          const brought = await this.#cached(part, handle.signal);
          if (brought !== undefined) return brought;
          running.supersede = new AbortController();
        }
        const failure = Failure.from(aborted && reason instanceof Failure ? reason : error);
        this.#deps.log.info({ source: name, reason: failure.reason, err: failure.cause }, failure.message);
        failures.push(failure);
        view.note = failure.message;
        if (isVerdictOnBytes(failure)) this.#condemn(part, name, failure);
        // Nothing can be made of these bytes: they would only take room until they are stale.
        if (isVerdictOnBytes(failure) || failure.reason === 'TooLarge') await this.#forget(part, name);
        // Another mirror gives no more space.
        if (failure.failureClass === 'Waiting') break;
      }
    }
    throw verdictOf(failures);
  }

  async #fetchFrom(
    running: Running,
    source: SourceSpec,
    options: { maxBytes: number; also: readonly Algorithm[] },
    handle: JobHandle,
  ): Promise<Blob> {
    const { part } = running;
    try {
      return await this.#fetchOnce(running, source, options, handle);
    } catch (error) {
      // Bytes of an earlier run may have been lost below the journalled offset (a power cut): only a clean fetch from zero can
      // condemn the origin.
      if (!(error instanceof Failure) || error.reason !== 'SourceChanged' || handle.signal.aborted) throw error;
      await this.#deps.cache.dropPartial(part.key);
      return this.#fetchOnce(running, source, options, handle);
    }
  }

  async #fetchOnce(
    running: Running,
    source: SourceSpec,
    options: { maxBytes: number; also: readonly Algorithm[] },
    handle: JobHandle,
  ): Promise<Blob> {
    const { part, view } = running;
    const { cache, transfers, clock, metrics } = this.#deps;
    const name = nameOf(source);
    const signal = AbortSignal.any([handle.signal, running.supersede.signal]);
    let reservation: Reservation | undefined;
    let generation: { directory: string; generation: number; path: string } | undefined;
    let looked = false;
    const proof = Promise.withResolvers<void>();
    proof.promise.catch(() => undefined);
    let inspection: Promise<Looked> | undefined;
    const rate = new Rate(clock.now());
    const started = clock.now();
    view.step = 'Fetching';
    view.source = name;
    delete view.growing;
    const earlier = cache.partial(part.key);
    const { directory, nextGeneration } = await cache.partialDirectory(part.key);
    try {
      const fetched = await transfers.fetch(
        {
          source,
          directory,
          ...(earlier === undefined || earlier.watermark === 0 || earlier.source !== name
            ? {}
            : {
                resume: {
                  generation: earlier.generation,
                  watermark: earlier.watermark,
                  validators: earlier.validators,
                  source: earlier.source,
                },
              }),
          nextGeneration,
          declared: part.declared,
          also: [...new Set<Algorithm>(['sha256', ...options.also, ...(Object.keys(part.content) as Algorithm[])])],
          maxBytes: options.maxBytes,
        },
        {
          onBegin: async (begun) => {
            const total = begun.validators.totalBytes;
            this.#tell(part, name, begun.validators);
            reservation = await cache.reserve(total ?? spaceStep(cache.stats().quotaBytes), part.key, part.key);
            if (begun.offset === 0) await cache.newPartial(part.key, name, begun.validators, begun.generation);
            if (total !== undefined) view.totalBytes = total;
            else delete view.totalBytes;
            view.bytes = begun.offset;
            generation = { directory, generation: begun.generation, path: begun.path };
            rate.reset(clock.now(), begun.offset);
            handle.changed('Soon');
          },
          onProgress: (progress) => {
            view.bytes = progress.bytes;
            view.bytesPerSecond = rate.at(clock.now(), progress.bytes);
            if (generation === undefined) return;
            cache.recordWatermark(part.key, generation.generation, progress.durable);
            this.#grow(reservation, progress.bytes, running);
            if (!looked && progress.bytes >= Math.min(HEAD_BYTES, view.totalBytes ?? HEAD_BYTES)) {
              looked = true;
              this.#lookAtHead(running, { ...generation, proof: proof.promise }).then(
                () => handle.changed('Now'),
                (error: unknown) => running.supersede.abort(error),
              );
            }
            handle.changed('Soon');
          },
          onProven: () => {
            if (generation === undefined) return;
            view.step = 'Verifying';
            inspection = this.#look(part, generation.path, true, signal);
            inspection.then((found) => {
              // A fixed VHD begins like a raw disk: what was promised to the cloud by the head alone must not be kept.
              const promised = view.growing?.recognition.format;
              if (promised === undefined || promised === found.format) proof.resolve();
              else proof.reject(otherFormat(promised, found.format));
            }, proof.reject);
          },
        },
        signal,
      );
      metrics.transferred({
        step: 'Fetch',
        source: source.kind,
        bytes: fetched.size,
        seconds: (clock.now() - started) / 1000,
      });
      view.step = 'Verifying';
      handle.changed('Soon');
      return await this.#admit(part, fetched, name, { inspection, maxBytes: options.maxBytes }, handle.signal);
    } catch (error) {
      proof.reject(error);
      // A page that ends before anybody has looked at its head is no image either, and that helps more than two digests.
      if (error instanceof Failure && error.reason === 'DigestMismatch' && generation !== undefined) {
        const head = await headOf(generation.path).catch(() => undefined);
        if (head !== undefined) refuseText(part, this.#deps.images.recognise(head), name);
      }
      throw error;
    } finally {
      reservation?.release();
    }
  }

  /** The proven file becomes a blob; whether it may be used as an image is a question of its own, asked before anyone else can. */
  async #admit(
    part: Part,
    fetched: FetchResult,
    name: string,
    { inspection, maxBytes }: { inspection: Promise<Looked> | undefined; maxBytes: number },
    signal: AbortSignal,
  ): Promise<Blob> {
    const { cache, clock } = this.#deps;
    const { sha256 } = fetched.digests;
    if (sha256 === undefined) throw new Failure('InternalError', 'the transfer told no sha256');
    if (Object.keys(part.declared).length === 0 && Object.keys(part.content).length > 0) {
      return this.#admitContent(part, fetched, name, maxBytes, signal);
    }
    let inspected: Partial<Blob> = {};
    let verdict: Failure | undefined;
    try {
      inspected = await (inspection ?? this.#look(part, fetched.path, Object.keys(part.declared).length > 0, signal));
    } catch (error) {
      verdict = Failure.from(error);
    }
    this.#keep(part, sha256);
    const blob = await cache.admit(
      fetched.path,
      sha256,
      {
        digests: fetched.digests,
        size: fetched.size,
        source: name,
        fetchedAt: new Date(clock.now()).toISOString(),
        ...inspected,
      },
      part.scope,
    );
    await cache.dropPartial(part.key);
    // The bytes are what was promised, so they stay; but they are no image that may be used.
    if (verdict !== undefined) throw verdict;
    return blob;
  }

  /** Only the digest of the content is declared: the file proves nothing until it is unpacked, so only the result is admitted. */
  async #admitContent(
    part: Part,
    fetched: FetchResult,
    name: string,
    maxBytes: number,
    signal: AbortSignal,
  ): Promise<Blob> {
    const { cache, images, clock } = this.#deps;
    const compression = part.compression === 'Auto' ? await this.#compressionOf(fetched.path) : part.compression;
    let path = fetched.path;
    let { digests, size } = fetched;
    if (compression !== 'None') {
      const reservation = await cache.reserve(Math.max(size, MiB), part.key);
      path = cache.scratch('.content');
      reservation.cover(path);
      const { quotaBytes } = cache.stats();
      const space = keepAhead(reservation, path, clock, { quotaBytes, besideBytes: size });
      try {
        const produced = await images.decompress(
          {
            from: fetched.path,
            to: path,
            compression,
            maxOutputBytes: maxBytes,
            digests: Object.keys(part.content) as Algorithm[],
          },
          AbortSignal.any([signal, space.signal]),
        );
        space.signal.throwIfAborted();
        ({ digests, size } = produced);
      } catch (error) {
        await rm(path, { force: true });
        throw space.signal.aborted ? space.signal.reason : error;
      } finally {
        space.stop();
        reservation.release();
      }
    }
    if (!sameBytes(digests, part.content)) {
      await rm(path, { force: true });
      await cache.dropPartial(part.key);
      throw contentMismatch(part, digests, name);
    }
    const sha256 = digests.sha256 ?? '';
    const inspected = await this.#look(part, path, true, signal);
    this.#keep(part, sha256);
    const blob = await cache.admit(
      path,
      sha256,
      { digests, size, source: name, fetchedAt: new Date(clock.now()).toISOString(), ...inspected },
      part.scope,
    );
    await cache.dropPartial(part.key);
    return blob;
  }

  async #inspected(part: Part, blob: Blob, signal: AbortSignal): Promise<Blob> {
    if (
      blob.compression !== undefined &&
      (blob.compression !== 'None' || blob.format !== undefined || part.role !== 'Disk' || part.metafile === true)
    )
      return blob;
    const found = await this.#look(part, blob.path, true, signal);
    await this.#deps.cache.annotate(blob.sha256, found);
    return { ...blob, ...found };
  }

  /** Compression and, where there is none, the facts of a safe image. */
  async #look(part: Part, path: string, checksumDeclared: boolean, signal: AbortSignal): Promise<Looked> {
    if (part.metafile === true) return { compression: 'None' };
    const compression = part.compression === 'Auto' ? await this.#compressionOf(path) : part.compression;
    if (compression !== 'None') return { compression };
    if (part.role !== 'Disk') {
      await this.#deps.images.inspect(path, { format: 'Raw', role: part.role, checksumDeclared }, signal);
      return { compression };
    }
    const facts = await this.#deps.images.inspect(
      path,
      { format: part.format, role: part.role, checksumDeclared },
      signal,
    );
    return { compression, format: facts.format, virtualSize: facts.virtualSize };
  }

  async #compressionOf(path: string) {
    return this.#deps.images.recognise(await headOf(path)).compression;
  }

  /** A body of unknown length takes its space in steps. */
  #grow(reservation: Reservation | undefined, bytes: number, running: Running): void {
    if (reservation === undefined || running.view.totalBytes !== undefined || bytes < reservation.bytes) return;
    const step = spaceStep(this.#deps.cache.stats().quotaBytes);
    reservation.resize(reservation.bytes + step).catch((error: unknown) => running.supersede.abort(error));
  }

  /** A page of text is given up at once; an image whose head says all lets uploads begin. */
  async #lookAtHead(running: Running, generation: Omit<Growing, 'size' | 'recognition'>): Promise<void> {
    const { part, view } = running;
    const recognition = this.#deps.images.recognise(await headOf(generation.path));
    refuseText(part, recognition, view.source ?? '');
    if (view.totalBytes !== undefined) view.growing = { ...generation, size: view.totalBytes, recognition };
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
    for (let found = rival(); found !== undefined; found = rival()) {
      running.view.note = `the same bytes are being fetched from ${found.view.source}`;
      await Promise.race([
        found.view.blob.then(
          () => undefined,
          () => undefined,
        ),
        new Promise<void>((resolve) => {
          this.#deps.clock.after(3000, resolve);
          signal.addEventListener('abort', () => resolve(), { once: true });
        }),
      ]);
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

  #tell(part: Part, name: string, validators: Validators): void {
    const told = this.#told.get(part.key) ?? new Map<string, Validators>();
    this.#told.set(part.key, told.set(name, validators));
  }

  /** Until those who asked have pinned it, a new blob is nobody's, and the next who wants room would evict it. */
  #keep(part: Part, sha256: string): void {
    const { cache, clock } = this.#deps;
    cache.pin(sha256, part.key);
    clock.after(HAND_OVER_MS, () => cache.unpinAll(part.key));
  }

  /** Removes what has come from this mirror, and nothing that came from another. */
  async #forget(part: Part, name: string): Promise<void> {
    const { cache } = this.#deps;
    if (cache.partial(part.key)?.source === name) await cache.dropPartial(part.key);
  }

  #condemn(part: Part, name: string, failure: Failure): void {
    const mirrors = this.#condemned.get(part.key) ?? new Map<string, Failure>();
    mirrors.set(name, failure);
    this.#condemned.set(part.key, mirrors);
  }
}

/** The first bytes of a file, as many as recognition needs. */
export async function headOf(path: string): Promise<Uint8Array> {
  await using file = await open(path);
  const { bytesRead, buffer } = await file.read(Buffer.alloc(HEAD_BYTES), 0, HEAD_BYTES, 0);
  return buffer.subarray(0, bytesRead);
}

/** Reads a small blob whole. */
export async function contentOf(blob: Blob, maxBytes: number): Promise<Uint8Array> {
  if (blob.size > maxBytes)
    throw new Failure('TooLarge', `${blob.source ?? 'the file'} has ${blob.size} bytes; at most ${maxBytes} are read`);
  return readFile(blob.path);
}

function refuseText(part: Part, recognition: Recognition, name: string): void {
  if (recognition.text === undefined || part.role !== 'Disk' || part.metafile === true) return;
  throw new Failure(
    'NotAnImage',
    `${name} sent ${recognition.text} instead of an image: check the URL in a browser, and that it needs no log-in`,
  );
}

function otherFormat(head: string, whole: string | undefined): Failure {
  return new Failure(
    'UploadCut',
    `the image began as ${head} and is ${whole ?? 'something else'} by all of its bytes; it is sent again as that`,
  );
}

function nameOf(source: SourceSpec): string {
  return source.kind === 'http' ? cleanUrl(source.url) : `file:${source.path}`;
}

function isVerdictOnBytes(failure: Failure): boolean {
  return (
    failure.failureClass === 'VerificationFailed' ||
    failure.failureClass === 'UnsafeImage' ||
    failure.reason === 'NotAnImage'
  );
}

/**
 * One verdict of all mirrors. While one of them may still come right it is that one's failure that decides (the others are told);
 * only when none can, the image is stalled.
 */
function verdictOf(failures: readonly Failure[]): Failure {
  const [first] = failures;
  if (first === undefined) return new Failure('InternalError', 'there is no mirror to fetch from');
  const decisive =
    failures.find((failure) => failure.failureClass === 'Waiting' || failure.failureClass === 'Transient') ?? first;
  const others = failures.filter((failure) => failure !== decisive);
  if (others.length === 0) return decisive;
  const message = [decisive.message, ...others.map((failure) => `also ${failure.reason}: ${failure.message}`)].join(
    '; ',
  );
  return new Failure(decisive.reason, message, {
    cause: decisive,
    ...(decisive.retryAfterMs === undefined ? {} : { retryAfterMs: decisive.retryAfterMs }),
  });
}

function contentMismatch(part: Part, actual: Digests, name: string): Failure {
  const algorithm = (strongest(part.content) ?? '').split(':')[0] as Algorithm;
  return new Failure(
    'DigestMismatch',
    `${part.field}.contentChecksums.${algorithm}: the content of ${name} has ${algorithm} ${actual[algorithm] ?? '(not computed)'}, not ${part.content[algorithm]}`,
  );
}

/** Bytes per second, smoothed over some seconds. */
class Rate {
  #since: number;
  #bytes = 0;
  #rate = 0;

  constructor(now: number) {
    this.#since = now;
  }

  reset(now: number, bytes: number): void {
    this.#since = now;
    this.#bytes = bytes;
    this.#rate = 0;
  }

  at(now: number, bytes: number): number {
    const seconds = (now - this.#since) / 1000;
    if (seconds < 0.2) return Math.round(this.#rate);
    const latest = (bytes - this.#bytes) / seconds;
    this.#rate = this.#rate === 0 ? latest : 0.7 * this.#rate + 0.3 * latest;
    this.#since = now;
    this.#bytes = bytes;
    return Math.round(this.#rate);
  }
}
