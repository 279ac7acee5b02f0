import { ALGORITHMS, type Algorithm, type Digests } from '../api/digest.ts';
import { Failure } from '../api/failure.ts';
import { fetchSource } from '../sources/index.ts';
import type { Generations } from './generation.ts';
import type { FollowingHash } from './following-hash.ts';
import type { Hashers } from './hashers.ts';
import type { Begun, FetchProgress, Proof } from './protocol.ts';
import { FileSink } from './sink.ts';
import { Ticker } from './ticker.ts';
import type { FetchRequest, FetchResult } from './transfers.ts';

/** Once so much is here, what the bytes are can be told; progress says so at once. */
const HEAD_BYTES = 128 * 1024;
/** So long after the head it can be told how fast bytes come, and with that whether an upload may follow. */
const FIRST_RATE_MS = 25;

/** The listener of a fetch, as the transfer thread sees it. */
export interface FetchHost {
  begin(begun: Begun): Promise<void>;
  progress(progress: FetchProgress): void;
  proven(proof: Proof): void;
}

/** One download into one generation: bytes, digests, durability, in this order of their being waited for. */
export async function runFetch(
  request: FetchRequest,
  host: FetchHost,
  generations: Generations,
  hashers: Hashers,
  signal: AbortSignal,
): Promise<FetchResult> {
  const { primary, others } = divide(request);
  let further: FollowingHash | undefined;
  let firstRate: NodeJS.Timeout | undefined;
  const sink = new FileSink(request, primary, generations, {
    begin: (begun) => host.begin(begun),
    opened: async (generation) => {
      let begun = false;
      generation.onChange(() => {
        if (begun || generation.watermark < HEAD_BYTES) return;
        begun = true;
        ticker.now();
        firstRate = setTimeout(() => ticker.now(), FIRST_RATE_MS);
      });
      if (others.length === 0) return;
      further = hashers.follow(generation, others);
    },
  });
  let told = '';
  const ticker = new Ticker(() => {
    const { generation } = sink.opened ?? {};
    if (generation === undefined) return;
    const { size: bytes, durable, totalBytes } = generation;
    if (told === `${bytes} ${durable}`) return;
    told = `${bytes} ${durable}`;
    host.progress({ bytes, durable, ...(totalBytes !== undefined && { totalBytes }) });
  });
  let outcome: 'complete' | Failure = 'complete';
  try {
    await sink.prepare();
    await fetchSource(request.source, sink, signal);
    return await prove(request, sink, further, host, signal);
  } catch (error) {
    outcome = Failure.from(error);
    // What has come stays for the next time: as much of it as possible.
    await sink.opened?.generation.sync().catch(() => {});
    throw outcome;
  } finally {
    further?.stop();
    clearTimeout(firstRate);
    ticker.stop();
    await sink.close(outcome);
  }
}

async function prove(
  request: FetchRequest,
  sink: FileSink,
  further: FollowingHash | undefined,
  host: FetchHost,
  signal: AbortSignal,
): Promise<FetchResult> {
  if (sink.opened === undefined) throw new Failure('InternalError', 'the source ended before it began');
  const { generation, hash, begun } = sink.opened;
  const { source, validators } = begun;
  const size = generation.watermark;
  if (generation.totalBytes !== undefined && size < generation.totalBytes) {
    throw new Failure('Truncated', `${source}: the origin sent ${size} of ${generation.totalBytes} bytes`);
  }
  generation.end('complete');
  further?.finish(size);
  const durable = generation.sync();
  durable.catch(() => {}); // awaited below
  const fromZero = begun.offset === 0;
  const digests: Digests = {};
  if (hash !== undefined) {
    digests[hash.algorithm] = await abortable(hash.digest(size), signal);
    compare(request.declared, digests, source, fromZero, size, validators.totalBytes);
  }
  if (further !== undefined) {
    const provenAlready = Object.keys(request.declared).every((name) => digests[name as Algorithm] !== undefined);
    if (provenAlready) tellProven();
    Object.assign(digests, await abortable(further.digests, signal));
    compare(request.declared, digests, source, fromZero, size, validators.totalBytes);
    if (!provenAlready) tellProven();
  } else tellProven();
  await durable;
  return { generation: generation.number, path: generation.path, size, digests, validators, source, fromZero };

  function tellProven(): void {
    if (Object.keys(request.declared).length > 0)
      host.proven({ generation: generation.number, size, digests: { ...digests } });
  }
}

/** @throws Failure DigestMismatch | SourceChanged */
function compare(
  declared: Digests,
  actual: Digests,
  source: string,
  fromZero: boolean,
  size: number,
  announced: number | undefined,
): void {
  for (const algorithm of ALGORITHMS) {
    const [expected, found] = [declared[algorithm]?.toLowerCase(), actual[algorithm]];
    if (expected === undefined || found === undefined || expected === found) continue;
    const fact = `${source}: ${algorithm} of the ${size} bytes is ${found}, declared is ${expected}`;
    if (!fromZero) {
      throw new Failure(
        'SourceChanged',
        `${fact}; they were fetched in more than one go, so they are fetched again from the start`,
      );
    }
    const doubt =
      announced === undefined ? ' (the origin announced no length, so they may also have been cut short)' : '';
    throw new Failure('DigestMismatch', `${fact}${doubt}; correct the checksum, or the file at its origin`);
  }
}

/**
 * One digest in the same pass, so that a download has proof with its last byte; sha256 where it is declared, because processors
 * have instructions for it. The others are computed beside it.
 */
function divide({ declared, also }: FetchRequest): { primary: Algorithm | undefined; others: Algorithm[] } {
  const wanted = new Set<Algorithm>([...ALGORITHMS.filter((name) => declared[name] !== undefined), ...also]);
  const primary = declared.sha256 === undefined && Object.keys(declared).length > 0 ? [...wanted][0] : 'sha256';
  if (primary === undefined || !wanted.delete(primary)) return { primary: undefined, others: [...wanted] };
  return { primary, others: [...wanted] };
}

function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(new Failure('Aborted', 'stopped'));
    signal.addEventListener('abort', abort, { once: true });
    if (signal.aborted) abort();
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}
