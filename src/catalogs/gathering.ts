import { Failure, type Reason } from '../api/failure.ts';
import type { Entry, Skipped } from './catalog.ts';
import { MAX_ENTRIES, MAX_ID, MAX_TITLE } from './limits.ts';
import { invalidList, plain } from './text.ts';

/** What can be told of an image before it is read, or of one that cannot be. */
export interface Hint {
  readonly id?: unknown;
  readonly title?: unknown;
  readonly signer?: Skipped['signer'];
}

interface Found {
  readonly entry: Entry;
  readonly place: number;
}

const NOT_ABOUT_THE_IMAGE: readonly Reason[] = ['ToolMissing', 'DiskFull'];

/** Gathers the images of a list: those that can be used, and the others with the reason why not. */
export class Gathering {
  readonly #found = new Map<string, Found>();
  readonly #repeated = new Map<string, Found[]>();
  readonly #skipped: Skipped[] = [];
  #count = 0;
  #attempts = 0;

  /**
   * Reads one image and takes it; a Failure of `read` is about this image alone.
   * @throws Failure InvalidList beyond the bound
   */
  read(hint: Hint, read: () => Entry): void {
    const place = this.#next();
    try {
      this.#take({ entry: read(), place });
    } catch (error) {
      this.#skip(hint, place, error);
    }
  }

  /**
   * Reads the items of a list.
   * @param ambiguous items that have a key twice, and which: of such an image it cannot be told what it is
   */
  readAll<T>(
    items: readonly T[],
    ambiguous: ReadonlyMap<number, string>,
    hintOf: (item: T) => Hint,
    read: (item: T) => Entry,
  ): void {
    items.forEach((item, index) => {
      const twice = ambiguous.get(index);
      this.read(hintOf(item), () => {
        if (twice === undefined) return read(item);
        throw invalidEntry(`it has the key ${plain(twice, 60)} twice, and which is meant cannot be told`);
      });
    });
  }

  /**
   * Where an image has to be proven first, and may not be the one that is taken: its reading, or why it is skipped. `read` may find out
   * more for the hint.
   */
  async attempt<T extends object>(hint: Hint, read: () => Promise<T>): Promise<T | Failure> {
    this.#attempts++;
    try {
      return await read();
    } catch (error) {
      return this.#skip(hint, this.#attempts, faultOf(error));
    }
  }

  #next(): number {
    this.#count++;
    if (this.#count > MAX_ENTRIES) throw invalidList(`it has more than ${MAX_ENTRIES} images`);
    return this.#count;
  }

  #take(found: Found): void {
    const { id } = found.entry;
    const first = this.#found.get(id);
    if (first === undefined) this.#found.set(id, found);
    else this.#repeated.set(id, [...(this.#repeated.get(id) ?? [first]), found].slice(0, 10));
  }

  #skip(hint: Hint, place: number, error: unknown): Failure {
    if (!(error instanceof Failure)) throw error;
    // These say nothing of the image: the reading was stopped, or cannot be done here. A CRL that is missing is a matter of this one
    // endorser, who may be nobody's: he must not keep the others' images from being read.
    if (error.failureClass === 'Transient' || NOT_ABOUT_THE_IMAGE.includes(error.reason)) throw error;
    this.#skipped.push({
      id: nameOf(hint.id, MAX_ID) ?? `#${place}`,
      ...title(nameOf(hint.title, MAX_TITLE)),
      reason: error.reason,
      message: error.message,
      ...(hint.signer === undefined ? {} : { signer: hint.signer }),
    });
    return error;
  }

  /** Which of two images of one id is meant is a guess that nobody should have to make: neither is taken. */
  done(): { entries: readonly Entry[]; skipped: readonly Skipped[] } {
    const skipped = this.#skipped;
    for (const [id, images] of this.#repeated) {
      this.#found.delete(id);
      const places = images.map(({ place }) => `#${place}`).join(', ');
      skipped.push({
        id,
        ...title(images[0]?.entry.title),
        reason: 'DuplicateEntry',
        message: `the list has this id several times (images ${places}): its publisher must give each image an id of its own`,
      });
    }
    return { entries: Array.from(this.#found.values(), ({ entry }) => entry), skipped };
  }
}

/**
 * What trips over the bytes of one image is about this image: a stranger's, which he may have made for that, must not make all the
 * others unreadable. What the machine refuses (it names the call) is not.
 */
function faultOf(error: unknown): unknown {
  const failure = Failure.from(error);
  if (failure === error || failure.reason !== 'InternalError') return failure;
  return error instanceof Error && 'syscall' in error
    ? error
    : invalidEntry(`it cannot be read: ${plain(failure.message, 200)}`);
}

function nameOf(value: unknown, limit: number): string | undefined {
  if (typeof value !== 'string' && typeof value !== 'number') return undefined;
  const text = plain(String(value), limit);
  return text === '' ? undefined : text;
}

function title(text: string | undefined): { title?: string } {
  return text === undefined ? {} : { title: text };
}

export function invalidEntry(fact: string): Failure {
  return new Failure('InvalidEntry', fact);
}
