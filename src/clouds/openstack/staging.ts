import { ALGORITHMS } from '../../api/digest.ts';
import { Failure } from '../../api/failure.ts';
import type { Transfers, UploadResult } from '../../transfers/transfers.ts';
import type { CloudRecord, StagePart } from '../cloud.ts';
import type { Image } from './glance.ts';
import { pointer } from './changes.ts';
import type { Keystone } from './keystone.ts';
import { checkRegistration, createBody, digestsOf, MARK, property, recordOf, stateOf } from './mapping.ts';
import { belongs, type Records } from './records.ts';

/** The receiver holds an unfinished body until these last bytes come. */
const HOLD_BACK_BYTES = 64 * 1024;
const STALL_MS = 60_000;
/** How long Glance may take from the last byte to `active` (a store that copies), and to notice that a connection was cut. */
const ACTIVE_MS = 300_000;
const NOTICE_MS = 3_000;
const CLEAN_UP_MS = 30_000;
/** When we were stopped: a lost Lease leaves 10 s at the least in which nobody else has it, and a pod that ends has 30 s. */
const CLEAN_UP_WHEN_STOPPED_MS = 8_000;

export interface StagingContext {
  records: Records;
  keystone: Keystone;
  transfers: Transfers;
  tls: { ca?: string; insecure?: boolean };
}

/**
 * Fills one record: made, sent, compared with Glance's own hash. It stays private and hidden throughout.
 *
 * The property `imageproxy_sent_sha256` is set last, and so says that the comparison has been made. It cannot be set while bytes
 * are on their way: Glance reads the record when an upload begins and writes all of it back when it ends, so that a change in
 * between is undone.
 */
export class Staging {
  readonly #context: StagingContext;
  readonly #running = new Set<string>();

  constructor(context: StagingContext) {
    this.#context = context;
  }

  async stage(part: StagePart, signal: AbortSignal): Promise<CloudRecord> {
    checkRegistration(part.registration);
    if (part.bytes.size <= 0) throw new Failure('InvalidSpec', 'an empty file cannot be registered as an image');
    if (this.#running.has(part.id)) throw new Failure('Conflict', `image ${part.id} is being sent already`);
    this.#running.add(part.id);
    try {
      return await this.#stage(part, signal);
    } finally {
      this.#running.delete(part.id);
    }
  }

  async #stage(part: StagePart, signal: AbortSignal): Promise<CloudRecord> {
    const { records } = this.#context;
    const image = (await records.glance.create(createBody(part), signal)) ?? (await this.#existing(part, signal));
    switch (stateOf(image.status)) {
      case 'Empty':
        return await this.#send(part, signal);
      case 'Active':
      case 'Deactivated':
        return await this.#compare(image, part, signal);
      case 'Uploading':
      case 'Deleting':
      case 'Broken':
        // `saving`: Glance or its client died in the middle, and no second PUT is taken ever again. Only a new id helps.
        await records.remove(part.id, signal);
        throw taken(part.id, `it was left as ${image.status}`);
    }
  }

  /** The record that has our id already. @throws Failure IdTaken */
  async #existing(part: StagePart, signal: AbortSignal): Promise<Image> {
    const image = await this.#context.records.own(part.id, signal);
    if (image === undefined) throw taken(part.id, 'it was deleted, or is another project’s');
    const sameDigest = property(image, MARK.digest) === part.ownership.sourceDigest;
    const sameRole = property(image, MARK.role) === part.role;
    if (!belongs(image, part.ownership, { strict: true }) || !sameDigest || !sameRole) {
      throw taken(part.id, 'it holds another image');
    }
    const claim = property(image, MARK.claim);
    // The id derives from the guid. Whoever calls has seen to it that no living VMImage has this claim, and may take another id.
    if (claim !== undefined && claim !== part.ownership.claim) {
      throw taken(part.id, `it is that of another VMImage with the same guid (uid ${claim})`);
    }
    if (stateOf(image.status) === 'Empty' && image.disk_format !== createBody(part)['disk_format']) {
      // Made by an upload that took the image for something else by its head; Glance never changes the format of a record.
      await this.#context.records.remove(part.id, signal);
      throw taken(part.id, `it was made for ${image.disk_format}`);
    }
    return image;
  }

  async #send(part: StagePart, signal: AbortSignal): Promise<CloudRecord> {
    try {
      const answer = await this.#upload(part, signal);
      if (answer.status === 404 || answer.status === 410) throw taken(part.id, 'it was deleted behind our back');
      if (answer.status === 409) return await this.#afterConflict(part, signal);
      if (answer.status < 200 || answer.status > 299) {
        throw await this.#context.records.glance.uploadFailure(part.id, answer);
      }
      const waiting = (image: Image | undefined): boolean =>
        image === undefined || !['Uploading', 'Empty'].includes(stateOf(image.status));
      const image = await this.#context.records.until(part.id, waiting, ACTIVE_MS, signal);
      if (image === undefined) throw taken(part.id, 'it was deleted while bytes were sent');
      if (stateOf(image.status) !== 'Active') {
        throw new Failure('UploadCut', `Glance took all bytes of image ${part.id} and calls it ${image.status}`);
      }
      return await this.#compare(image, part, signal);
    } catch (error) {
      const failure = signal.aborted ? new Failure('Aborted', 'stopped', { cause: error }) : Failure.from(error);
      await this.#cleanUp(part.id, failure);
      throw failure;
    }
  }

  async #upload(part: StagePart, signal: AbortSignal): Promise<UploadResult> {
    const { records, keystone, transfers, tls } = this.#context;
    const { bytes } = part;
    for (let renewed = false; ; renewed = true) {
      const { url, token } = await records.glance.uploadTarget(part.id, signal);
      const answer = await transfers.upload(
        {
          url,
          headers: { 'x-auth-token': token, 'content-type': 'application/octet-stream' },
          tls,
          path: bytes.path,
          totalBytes: bytes.size,
          ...(bytes.follow === undefined ? {} : { follow: bytes.follow }),
          holdBackBytes: HOLD_BACK_BYTES,
          stallMs: STALL_MS,
        },
        {
          mayFinish: async () => await bytes.mayFinish(),
          onProgress: (sent) => part.onProgress?.(sent, bytes.size),
        },
        signal,
      );
      if (answer.status !== 401 || renewed) return answer;
      keystone.forget(token);
    }
  }

  /** The PUT was refused because somebody else's came first (a process that we took for dead). He may be right at work: nothing is removed. */
  async #afterConflict(part: StagePart, signal: AbortSignal): Promise<CloudRecord> {
    const image = await this.#context.records.own(part.id, signal);
    if (image !== undefined && stateOf(image.status) === 'Active') return await this.#compare(image, part, signal);
    throw new Failure('Conflict', `another upload to image ${part.id} is running (${image?.status ?? 'gone'})`);
  }

  /** Size and hash, as Glance tells them, against what was sent. A record that differs is removed at once. */
  async #compare(image: Image, part: StagePart, signal: AbortSignal): Promise<CloudRecord> {
    const { records } = this.#context;
    // An earlier try may have left the whole image here while this one's proof is still to come.
    await part.bytes.mayFinish();
    const difference = await this.#difference(image, part);
    if (difference !== undefined) {
      // Compared once, and maybe in service since: a conversion that is made again does not give the same bytes in every format.
      if (property(image, MARK.sent) !== undefined) throw taken(part.id, `it holds another image: ${difference}`);
      await records.remove(part.id, signal);
      throw new Failure(
        'CloudDigestMismatch',
        `image ${part.id} in Glance is not what was sent: ${difference}; it was removed`,
      );
    }
    const sent = await part.bytes.digest('sha256');
    if (property(image, MARK.sent) === sent) return recordOf(image);
    const op = Object.hasOwn(image, MARK.sent) ? 'replace' : 'add';
    const marked = await records.glance.update(image.id, [{ op, path: pointer(MARK.sent), value: sent }], signal);
    return recordOf(marked);
  }

  async #difference(image: Image, part: StagePart): Promise<string | undefined> {
    if (image.size !== part.bytes.size) return `${image.size ?? 'no'} bytes instead of ${part.bytes.size}`;
    const digests = digestsOf(image);
    const algorithm = ALGORITHMS.find((name) => digests[name] !== undefined);
    if (algorithm === undefined) return 'Glance tells no hash of it';
    const ours = await part.bytes.digest(algorithm);
    return digests[algorithm] === ours.toLowerCase()
      ? undefined
      : `its ${algorithm} is ${digests[algorithm]}, ours ${ours}`;
  }

  /**
   * After a failure that may pass, an empty record is kept for the next try: each deleted id is lost for ever. After anything
   * else (the proof failed, somebody stopped us) nothing is left. Runs to its end also when the caller was stopped.
   */
  async #cleanUp(id: string, failure: Failure): Promise<void> {
    const { records } = this.#context;
    const signal = AbortSignal.timeout(failure.reason === 'Aborted' ? CLEAN_UP_WHEN_STOPPED_MS : CLEAN_UP_MS);
    // A refused token is the account's trouble, not the record's.
    const mayPass =
      (['Transient', 'Waiting'].includes(failure.failureClass) && failure.reason !== 'Aborted') ||
      failure.reason === 'Unauthorized';
    try {
      if (mayPass) {
        if (failure.reason === 'Conflict') return;
        const settled = (image: Image | undefined): boolean =>
          image === undefined || ['Empty', 'Active'].includes(stateOf(image.status));
        if (settled(await records.until(id, settled, NOTICE_MS, signal))) return;
      }
      await records.remove(id, signal);
    } catch (error) {
      // Found again as Empty or Uploading by `find`, and removed by the next stage of this id.
      records.log.warn({ id, err: error }, 'a half-made image could not be removed');
    }
  }
}

function taken(id: string, why: string): Failure {
  return new Failure('IdTaken', `Glance will not give id ${id} again: ${why}`);
}
