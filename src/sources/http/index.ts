import { Failure } from '../../api/failure.ts';
import type { Fetch, HttpSourceSpec, Sink } from '../source.ts';
import { cleanUrl } from '../url.ts';
import { ifRange, parseContentRange, validatorsOf } from './answers.ts';
import { ask } from './ask.ts';
import { type Answer, receive } from './exchange.ts';

/**
 * Fetches over HTTP(S) with one stream, going on where an earlier fetch was cut. Another engine (several ranges at once) takes the
 * place of `single` below: redirects, validators and failures stay, and the sink takes bytes in any order already.
 */
export const fetchHttp: Fetch<HttpSourceSpec> = async (spec, sink, signal) => {
  const source = cleanUrl(spec.url);
  const { resume } = sink;
  // What another URL sent, or what nothing strong identifies, cannot be joined with what comes now.
  const validator = resume !== undefined && resume.source === source ? ifRange(resume.validators) : undefined;
  if (resume !== undefined && validator !== undefined) {
    if (resume.offset === resume.validators.totalBytes) {
      // Every byte is here and only the proof was cut off: the origin is not asked.
      await sink.begin({ source, validators: resume.validators, offset: resume.offset });
      return;
    }
    const answer = await ask(spec, { range: `bytes=${resume.offset}-`, 'if-range': validator }, signal);
    try {
      if (answer.status === 200) return await single(answer, source, sink);
      if (goesOn(answer, resume)) return await rest(answer, source, sink, resume);
    } finally {
      answer.discard();
    }
    // 416, or a part of something else: what is there now is asked for from its beginning.
  }
  const answer = await ask(spec, {}, signal);
  try {
    if (answer.status !== 200) {
      throw new Failure(
        'ServerError',
        `${answer.where}: the origin answered ${answer.status} to a request for the whole file`,
      );
    }
    await single(answer, source, sink);
  } finally {
    answer.discard();
  }
};

/** The whole file, from its first byte. */
async function single(answer: Answer, source: string, sink: Sink): Promise<void> {
  const contentType = answer.headers['content-type'];
  await sink.begin({
    source,
    validators: validatorsOf(answer.headers, answer.length),
    offset: 0,
    ...(contentType !== undefined && { contentType }),
  });
  await receive(answer, sink, 0);
}

/** The rest of a file, already checked to be the same one. */
async function rest(answer: Answer, source: string, sink: Sink, resume: NonNullable<Sink['resume']>): Promise<void> {
  const total = parseContentRange(answer.headers['content-range'])?.total ?? resume.validators.totalBytes;
  await sink.begin({
    source,
    validators: { ...resume.validators, ...(total !== undefined && { totalBytes: total }) },
    offset: resume.offset,
  });
  await receive(answer, sink, resume.offset);
}

/**
 * Whether a 206 is the rest of the file that the partial is the beginning of. If-Range should make sure of that, but caches and
 * small servers get it wrong, and a joined file of two versions costs a whole download to find out.
 */
function goesOn(answer: Answer, resume: NonNullable<Sink['resume']>): boolean {
  const { status, headers, length } = answer;
  if (status !== 206) return false;
  const content = parseContentRange(headers['content-range']); // absent in multipart/byteranges, which nobody asked for
  if (content?.range === undefined || content.range.start !== resume.offset) return false;
  const { totalBytes, etag, lastModified } = resume.validators;
  if (totalBytes !== undefined && content.total !== undefined && content.total !== totalBytes) return false;
  if (etag !== undefined && headers.etag !== undefined && headers.etag !== etag) return false;
  if (etag === undefined && headers['last-modified'] !== undefined && headers['last-modified'] !== lastModified)
    return false;
  if (length !== undefined && length !== content.range.end - content.range.start + 1) {
    throw new Failure('LengthMismatch', `${answer.where}: Content-Length contradicts Content-Range`);
  }
  return true;
}
