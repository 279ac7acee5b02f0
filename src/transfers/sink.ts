import { rm } from 'node:fs/promises';
import type { Algorithm } from '../api/digest.ts';
import { Failure } from '../api/failure.ts';
import type { Validators } from '../cache/cache.ts';
import type { Sink } from '../sources/source.ts';
import { Generation, type Generations } from './generation.ts';
import { PrimaryHash } from './primary-hash.ts';
import type { Begun } from './protocol.ts';
import type { FetchRequest } from './transfers.ts';

/** What the sink tells while it is filled. */
export interface SinkListener {
  /** Resolves when bytes may be written (space is reserved). */
  begin(begun: Begun): Promise<void>;
  /** The generation is there, empty or resumed; the first byte comes after. */
  opened(generation: Generation): Promise<void>;
}

/** Writes a download into a generation, hashing in the same pass; checks every bound before a byte is kept. */
export class FileSink implements Sink {
  resume: Sink['resume'];
  readonly #request: FetchRequest;
  readonly #generations: Generations;
  readonly #listener: SinkListener;
  readonly #algorithm: Algorithm | undefined;
  #partial: Generation | undefined;
  #opened: { generation: Generation; hash: PrimaryHash | undefined; begun: Begun } | undefined;

  constructor(
    request: FetchRequest,
    algorithm: Algorithm | undefined,
    generations: Generations,
    listener: SinkListener,
  ) {
    this.#request = request;
    this.#algorithm = algorithm;
    this.#generations = generations;
    this.#listener = listener;
  }

  /** Looks for what an earlier run left. Call it before the fetch. */
  async prepare(): Promise<void> {
    const { directory, resume } = this.#request;
    if (resume === undefined || resume.watermark === 0) return;
    this.#partial = await Generation.reopen(directory, resume.generation, resume.watermark);
    if (this.#partial === undefined) return;
    this.resume = { offset: resume.watermark, validators: resume.validators, source: resume.source };
  }

  /** What has been begun; undefined before. */
  get opened(): { generation: Generation; hash: PrimaryHash | undefined; begun: Begun } | undefined {
    return this.#opened;
  }

  async begin(answer: { source: string; validators: Validators; offset: number; contentType?: string }): Promise<void> {
    const { directory, maxBytes, nextGeneration, resume } = this.#request;
    const { source, offset, validators } = answer;
    if (this.#opened !== undefined) throw new Failure('InternalError', `${source}: the source began twice`);
    const { totalBytes } = validators;
    if (totalBytes !== undefined && totalBytes > maxBytes) throw tooLarge(source, this.#request, totalBytes);
    const resumed = offset > 0 ? this.#partial : undefined;
    if (offset > 0 && (resumed === undefined || resumed.watermark !== offset)) {
      throw new Failure('InternalError', `${source}: the source goes on at ${offset}, where nothing ends`);
    }
    const number = resumed === undefined ? nextGeneration : (resume?.generation ?? nextGeneration);
    const generation = resumed ?? (await Generation.create(directory, number));
    if (resumed !== undefined) this.#partial = undefined;
    const begun: Begun = { ...answer, generation: number, path: generation.path };
    generation.totalBytes = totalBytes;
    const hash = this.#algorithm === undefined ? undefined : new PrimaryHash(this.#algorithm, generation);
    this.#opened = { generation, hash, begun };
    this.#generations.add(generation);
    try {
      await this.#listener.begin(begun);
    } catch (error) {
      // Nobody has journalled this file.
      if (resumed === undefined) await rm(generation.path, { force: true });
      throw error;
    }
    await this.#listener.opened(generation);
  }

  async write(offset: number, bytes: Uint8Array): Promise<void | 'Lent'> {
    if (this.#opened === undefined) throw new Failure('InternalError', 'the source wrote before it began');
    const { generation, hash, begun } = this.#opened;
    const end = offset + bytes.length;
    const { maxBytes } = this.#request;
    const { totalBytes } = begun.validators;
    if (totalBytes !== undefined && end > totalBytes) {
      throw new Failure(
        'LengthMismatch',
        `${begun.source}: the body is longer than the ${totalBytes} bytes that were announced`,
      );
    }
    if (end > maxBytes) throw tooLarge(begun.source, this.#request);
    hash?.feed(offset, bytes);
    const memory = await generation.write(offset, bytes);
    hash?.written();
    return memory;
  }

  /** Lets go of files. The partial stays. */
  async close(outcome: 'complete' | Failure): Promise<void> {
    await this.#partial?.release();
    if (this.#opened === undefined) return;
    const { generation, hash } = this.#opened;
    await hash?.stop();
    generation.end(outcome);
    if (outcome === 'complete') this.#generations.linger(generation);
    else this.#generations.remove(generation);
    await generation.release();
  }
}

function tooLarge(source: string, { maxBytes, bound = 'that are allowed' }: FetchRequest, size?: number): Failure {
  const fact = size === undefined ? `more than the ${maxBytes} bytes` : `${size} bytes, more than the ${maxBytes}`;
  return new Failure('TooLarge', `${source}: the file has ${fact} ${bound}`);
}
