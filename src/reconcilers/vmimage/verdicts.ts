import { contradicted, type Digests, uncompared } from '../../api/digest.ts';
import { Failure } from '../../api/failure.ts';
import type { Recognition } from '../../images/format.ts';
import type { SourceSpec } from '../../sources/source.ts';
import { cleanUrl } from '../../sources/url.ts';
import type { Part } from './plan.ts';

/** What a mirror is called in messages and in the journal: no credentials, no query. */
export function nameOf(source: SourceSpec): string {
  return source.kind === 'http' ? cleanUrl(source.url) : `file:${source.path}`;
}

/**
 * Where bytes of the cache have come from, if the part names that place itself: the address that another namespace has used is nobody
 * else's to read.
 */
export function ownSource({ candidates }: Part, ...sources: (string | undefined)[]): string | undefined {
  const own = candidates.map(nameOf);
  return sources.find((source) => source !== undefined && own.includes(source));
}

/** Whether the failure says something about the bytes themselves, and not about the way to them. */
export function isVerdictOnBytes(failure: Failure): boolean {
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
export function verdictOf(failures: readonly Failure[]): Failure {
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

/**
 * Whether the content has every digest that is declared of it; false while one of them has not been computed.
 * @throws Failure DigestMismatch
 */
export function isContentOf(part: Part, actual: Digests, name: string): boolean {
  const algorithm = contradicted(part.content, actual);
  if (algorithm === undefined) return uncompared(part.content, actual).length === 0;
  throw new Failure(
    'DigestMismatch',
    `${part.field}.contentChecksums.${algorithm}: the content of ${name} has ${algorithm} ${actual[algorithm]}, not ${part.content[algorithm]}`,
  );
}

/** A page of text where a disk was expected. @throws Failure NotAnImage */
export function refuseText(part: Part, recognition: Recognition, name: string): void {
  if (recognition.text === undefined || part.role !== 'Disk' || part.metafile === true) return;
  throw new Failure(
    'NotAnImage',
    `${name} sent ${recognition.text} instead of an image: check the URL in a browser, and that it needs no log-in`,
  );
}

export function otherFormat(head: string, whole: string | undefined): Failure {
  return new Failure(
    'UploadCut',
    `the image began as ${head} and is ${whole ?? 'something else'} by all of its bytes; it is sent again as that`,
  );
}
