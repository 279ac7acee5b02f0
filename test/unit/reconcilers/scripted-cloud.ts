import { createHash } from 'node:crypto';
import type { Algorithm } from '../../../src/api/digest.ts';
import { Failure } from '../../../src/api/failure.ts';
import type {
  Cloud,
  CloudRecord,
  CloudTraits,
  Look,
  Ownership,
  PartBytes,
  PartRef,
  Probe,
  PublishImage,
  StagePart,
} from '../../../src/clouds/cloud.ts';

/** The process died here: what was sent before has happened, the answer may not have come. */
export class Crash extends Error {
  override readonly name = 'Crash';
}

export function hash(algorithm: Algorithm, text: string): string {
  return createHash(algorithm).update(text).digest('hex');
}

/** Bytes of a part, that are what `text` says once they are proven. */
export class ScriptedBytes implements PartBytes {
  readonly path: string;
  readonly size: number;
  readonly text: string;
  proven = true;
  /** How often the proof was asked for. */
  asked = 0;

  constructor(text: string) {
    this.text = text;
    this.path = `/cache/${text}`;
    this.size = text.length;
  }

  async mayFinish(): Promise<void> {
    this.asked++;
    if (!this.proven) throw new Failure('DigestMismatch', 'the bytes are not what was declared');
  }

  async digest(algorithm: Algorithm): Promise<string> {
    return hash(algorithm, this.text);
  }
}

interface Stored extends CloudRecord {
  /** What the cloud holds. */
  text: string;
}

type Given = Partial<Omit<Stored, 'text'>> & { text?: string };

/**
 * A cloud in memory that keeps the rules of a real one: an id that was deleted is never given again, an upload that was cut
 * cannot be taken up, a record with another claim is not touched, the hash is the cloud's own. It dies where the test says so.
 */
export class ScriptedCloud implements Cloud {
  readonly traits: CloudTraits;
  readonly records = new Map<string, Stored>();
  readonly burnt = new Set<string>();
  /** Every change and question, in order: `stage Kernel k1`, `publish d1`. */
  readonly calls: string[] = [];
  /** Dies at the step of this number, counted from the first after it was set; undefined: never. */
  dieAt: number | undefined;
  #steps = 0;

  constructor(traits: Partial<CloudTraits> = {}) {
    this.traits = { formats: ['Raw', 'Qcow2'], digest: 'sha512', mayFollow: true, clientChosenIds: true, ...traits };
  }

  /** Puts a record there, as an earlier run or somebody else left it. */
  add(record: Given & { id: string }): void {
    const text = record.text ?? 'disk';
    const { digest } = this.traits;
    this.records.set(record.id, {
      role: 'Disk',
      name: 'image',
      owner: 'owner',
      guid: 'guid',
      claim: 'uid',
      attempt: 1,
      sourceDigest: `sha256:${hash('sha256', text)}`,
      sentSha256: hash('sha256', text),
      cloudDigests: digest === undefined ? {} : { [digest]: hash(digest, text) },
      size: text.length,
      format: 'Qcow2',
      state: 'Active',
      published: true,
      createdAt: '2026-11-21T12:00:00Z',
      ...record,
      text,
    });
  }

  /** What anybody else sees: `id=bytes`. */
  get visible(): string[] {
    return [...this.records.values()]
      .filter((record) => record.published && record.state === 'Active')
      .map((record) => `${record.id}=${record.text}`);
  }

  /** Starts counting the steps to the next death. */
  die(at: number | undefined): void {
    this.dieAt = at;
    this.#steps = 0;
  }

  #step(): void {
    if (this.dieAt !== undefined && this.#steps++ === this.dieAt) throw new Crash(`at step ${this.dieAt}`);
  }

  /** Before the request, after its effect: a crash may come at either. */
  #change<T>(call: string, effect: () => T): T {
    this.#step();
    this.calls.push(call);
    const result = effect();
    this.#step();
    return result;
  }

  async probe(_signal?: AbortSignal): Promise<Probe> {
    return { identity: 'scripted', details: {}, endpoints: [] };
  }

  async find({ owner, guid }: Pick<Ownership, 'owner' | 'guid'>): Promise<CloudRecord[]> {
    this.#step();
    this.calls.push('find');
    return [...this.records.values()].filter((each) => each.owner === owner && each.guid === guid).map(told);
  }

  async get(id: string): Promise<CloudRecord | undefined> {
    const found = this.records.get(id);
    return found === undefined ? undefined : told(found);
  }

  async census(): Promise<Set<string>> {
    return new Set(this.records.keys());
  }

  async stage(part: StagePart): Promise<CloudRecord> {
    const { id, ownership, bytes } = part;
    let record = this.records.get(id);
    if (record === undefined) {
      if (this.burnt.has(id)) throw new Failure('IdTaken', `${id} was deleted`);
      record = this.#change(`stage ${part.role} ${id}`, () => {
        const made: Stored = {
          ...ownership,
          id,
          role: part.role,
          name: 'being made',
          cloudDigests: {},
          state: 'Empty',
          published: false,
          format: part.format,
          createdAt: '2026-11-21T12:00:00Z',
          text: '',
        };
        this.records.set(id, made);
        return made;
      });
    }
    if (record.claim !== ownership.claim) throw new Failure('IdTaken', `${id} is claimed by ${record.claim}`);
    if (record.state === 'Uploading' || record.state === 'Broken') {
      await this.remove([record]);
      throw new Failure('IdTaken', `${id} was left half-made`);
    }
    if (record.state === 'Empty') {
      const filled = record;
      this.#change(`upload ${id}`, () => {
        filled.state = 'Uploading';
        filled.text = (bytes as ScriptedBytes).text;
      });
      try {
        await bytes.mayFinish();
      } catch (error) {
        await this.remove([record]);
        throw error;
      }
      this.#change(`finish ${id}`, () => {
        const { digest } = this.traits;
        filled.state = 'Active';
        filled.size = filled.text.length;
        if (digest !== undefined) filled.cloudDigests = { [digest]: hash(digest, filled.text) };
      });
    }
    await bytes.mayFinish();
    const { digest } = this.traits;
    if (digest !== undefined && record.cloudDigests[digest] !== (await bytes.digest(digest))) {
      await this.remove([record]);
      throw new Failure('CloudDigestMismatch', `${id} is not what was sent`);
    }
    const sent = await bytes.digest('sha256');
    const proven = record;
    if (proven.sentSha256 !== sent) this.#change(`mark ${id}`, () => void (proven.sentSha256 = sent));
    return told(proven);
  }

  async claim(id: string, ownership: Ownership): Promise<void> {
    this.#change(`claim ${id}`, () => {
      const record = this.#there(id);
      if (record.owner !== ownership.owner || record.guid !== ownership.guid) throw new Error(`${id} is not ours`);
      record.claim = ownership.claim;
    });
  }

  async publish({ parts, ownership, registration }: PublishImage): Promise<void> {
    const order = parts.toSorted((a, b) => Number(a.role === 'Disk') - Number(b.role === 'Disk'));
    for (const { id, digests } of order) {
      this.#change(`publish ${id}`, () => {
        const record = this.#there(id);
        // What an image without proof or with another claim would be to its users is the test's failure, not the cloud's.
        if (record.state !== 'Active') throw new Error(`${id} is ${record.state} and shall be published`);
        if (record.claim !== ownership.claim) throw new Error(`${id} is claimed by ${record.claim}`);
        if (digests?.sha256 !== hash('sha256', record.text)) throw new Error(`${id} holds other bytes`);
        record.published = true;
        record.name = registration.name;
      });
    }
  }

  async look(_image: PublishImage): Promise<Look> {
    throw new Error('not part of these tests');
  }

  async retire(parts: readonly PartRef[]): Promise<void> {
    for (const { id } of parts) {
      this.#change(`retire ${id}`, () => {
        const record = this.records.get(id);
        if (record !== undefined) Object.assign(record, { state: 'Deactivated', published: false });
      });
    }
  }

  async reactivate(parts: readonly PartRef[]): Promise<void> {
    for (const { id, digests } of parts) {
      this.#change(`reactivate ${id}`, () => {
        const record = this.#there(id);
        const { digest = 'sha256' } = this.traits;
        if (digests?.[digest] !== hash(digest, record.text)) throw new Failure('CloudDigestMismatch', id);
        record.state = 'Active';
      });
    }
  }

  async remove(parts: readonly PartRef[]): Promise<void> {
    for (const { id } of parts) {
      this.#change(`remove ${id}`, () => {
        if (this.records.delete(id)) this.burnt.add(id);
      });
    }
  }

  async close(): Promise<void> {}

  #there(id: string): Stored {
    const record = this.records.get(id);
    if (record === undefined) throw new Failure('Gone', `${id} is not there`);
    return record;
  }
}

/** What a request sees: not the bytes. */
function told(stored: Stored): CloudRecord {
  const { text, ...record } = stored;
  return structuredClone({ ...record, size: text.length });
}
