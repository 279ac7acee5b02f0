import { type FileHandle, open } from 'node:fs/promises';
import { Failure } from '../api/failure.ts';
import type { Generation, Generations } from './generation.ts';
import type { UploadRequest } from './transfers.ts';
import type { Piece } from './window.ts';

/** A follower that has had nothing to send for this long gives way: servers cut pauses of 5 s (uWSGI) and longer anyway. */
export const DRY_MS = 3000;

const BLOCK_BYTES = 512 * 1024;

/** The bytes of an upload: a file that is complete, or one that still grows. */
export interface UploadBody {
  /**
   * Some of the next `length` bytes, `position` being the first that was not sent yet; waits for them where they have not come. They
   * stay what they are until they are given back, or the body is closed.
   * @throws Failure UploadCut when they do not come, because the download is dry or has failed; its own failure when they are wrong
   */
  next(length: number, position: number, signal: AbortSignal): Promise<Piece>;
  /** Nothing is wanted until the next call of `next`, however long that takes: what comes meanwhile need not be kept for this upload. */
  rest(): void;
  /** Calls when the download that is followed has failed. Returns the way to stop it. */
  onFailure(listener: (failure: Failure) => void): () => void;
  close(): Promise<void>;
}

/**
 * Opens it once: the file may be renamed into the cache while it is sent.
 * @throws Failure UploadCut | TooLarge
 */
export async function openBody(request: UploadRequest, generations: Generations): Promise<UploadBody> {
  const { follow, path, totalBytes } = request;
  if (follow !== undefined) {
    const generation = generations.find(follow.directory, follow.generation);
    if (generation === undefined) {
      // Its file may have holes where bytes were still to come, so it is not read on the strength of its size.
      throw new Failure(
        'UploadCut',
        'the download to follow has ended; the upload starts again from the complete file',
      );
    }
    if (generation.totalBytes !== totalBytes) {
      throw new Failure(
        'InternalError',
        `an upload of ${totalBytes} bytes cannot follow a download of ${generation.totalBytes}`,
      );
    }
    return new GrowingBody(generation);
  }
  const handle = await open(path, 'r');
  try {
    const { size } = await handle.stat();
    if (size !== totalBytes) {
      throw new Failure('InternalError', `the file to send has ${size} bytes where ${totalBytes} were announced`);
    }
  } catch (error) {
    await handle.close();
    throw error;
  }
  return new CompleteBody(handle);
}

class CompleteBody implements UploadBody {
  readonly #handle: FileHandle;
  readonly #block = Buffer.allocUnsafeSlow(BLOCK_BYTES);

  constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  async next(length: number, position: number): Promise<Piece> {
    const wanted = Math.min(length, BLOCK_BYTES);
    const { bytesRead } = await this.#handle.read(this.#block, 0, wanted, position);
    if (bytesRead === 0) throw new Failure('InternalError', `the file to send ended at ${position}, before its size`);
    return own(this.#block.subarray(0, bytesRead));
  }

  rest(): void {}

  onFailure(): () => void {
    return () => {};
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}

class GrowingBody implements UploadBody {
  readonly #generation: Generation;
  /** For what has to be read from the file. */
  #block: Buffer | undefined;
  #lent: Piece | undefined;

  constructor(generation: Generation) {
    this.#generation = generation;
    generation.hold();
  }

  async next(length: number, position: number, signal: AbortSignal): Promise<Piece> {
    const generation = this.#generation;
    generation.followedTo(this, position);
    if (generation.watermark <= position) await this.#grown(position, signal);
    this.#lent = generation.lend(position, length);
    if (this.#lent !== undefined) return this.#lent;
    this.#block ??= Buffer.allocUnsafeSlow(BLOCK_BYTES);
    const count = await generation.read(this.#block, Math.min(length, BLOCK_BYTES), position);
    return own(this.#block.subarray(0, count));
  }

  rest(): void {
    this.#generation.leave(this);
  }

  onFailure(listener: (failure: Failure) => void): () => void {
    const look = () => {
      const { outcome } = this.#generation;
      if (outcome instanceof Failure) listener(cut(outcome));
    };
    look();
    return this.#generation.onChange(look);
  }

  close(): Promise<void> {
    // The connection may have ended without a word about its last bytes; a block that nobody gives back would hold the download up.
    this.#lent?.giveBack();
    this.#generation.leave(this);
    return this.#generation.release();
  }

  #grown(position: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = (error?: Failure) => {
        clearTimeout(timer);
        stop();
        signal.removeEventListener('abort', abort);
        if (error === undefined) resolve();
        else reject(error);
      };
      const look = () => {
        const { watermark, outcome } = this.#generation;
        if (watermark > position) settle();
        else if (outcome instanceof Failure) settle(cut(outcome));
      };
      const abort = () => settle(new Failure('Aborted', 'stopped'));
      const timer = setTimeout(
        () =>
          settle(
            new Failure(
              'UploadCut',
              `the download brought nothing for ${DRY_MS / 1000} s; the upload starts again from the complete file`,
            ),
          ),
        DRY_MS,
      );
      const stop = this.#generation.onChange(look);
      signal.addEventListener('abort', abort, { once: true });
      if (signal.aborted) abort();
      else look();
    });
  }
}

/** Memory of the body's own, one piece at a time: nobody waits for it. */
function own(bytes: Uint8Array): Piece {
  return { bytes, giveBack: () => {} };
}

function cut(failure: Failure): Failure {
  // Wrong bytes are no matter of another try: what was begun with them is to be removed, and the receiver of this has to know.
  if (failure.failureClass === 'VerificationFailed') return failure;
  return new Failure('UploadCut', `the download that the upload followed has failed (${failure.reason})`, {
    cause: failure,
  });
}
