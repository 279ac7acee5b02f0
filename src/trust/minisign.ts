import { createHash, createPublicKey, type KeyObject, verify } from 'node:crypto';
import { Failure } from '../api/failure.ts';
import { printable } from '../api/printable.ts';
import type { MinisignTrust, Proven } from './trust.ts';

/** https://jedisct1.github.io/minisign/#signature-format and #public-key-format */
interface PublicKey {
  /** As minisign prints it: eight octets, most significant first. */
  readonly id: string;
  readonly key: KeyObject;
}

interface MinisignSignature {
  /** `ED`: of the document's BLAKE2b-512; `Ed`: of the document itself. */
  readonly algorithm: 'ED' | 'Ed';
  readonly keyId: string;
  readonly signature: Uint8Array;
  readonly trustedComment: string;
  /** Over the signature and the trusted comment. */
  readonly globalSignature: Uint8Array;
}

const MAX_BYTES = 16 * 2 ** 10;
/** RFC 8410: SubjectPublicKeyInfo of Ed25519, up to the key's 32 octets. */
const ED25519_SPKI = Buffer.from('302a300506032b6570032100', 'hex');

/**
 * A minisign signature beside its document, legacy or prehashed; the trusted comment is proven too.
 * @throws Failure SignatureMissing | SignatureInvalid | UntrustedSigner | InvalidTrust
 */
export function verifyMinisign(document: Uint8Array, signature: Uint8Array | undefined, trust: MinisignTrust): Proven {
  const keys = trust.publicKeys.map(readPublicKey);
  if (signature === undefined) {
    throw new Failure('SignatureMissing', 'there is no minisign signature beside the document');
  }
  const read = readSignature(signature);
  const key = keys.find(({ id }) => id === read.keyId);
  if (key === undefined) {
    throw new Failure(
      'UntrustedSigner',
      `the signature was made with the minisign key ${read.keyId}, which is not among the trusted: if you trust it, add it to publicKeys`,
    );
  }
  const signed = read.algorithm === 'ED' ? createHash('blake2b512').update(document).digest() : document;
  if (!verify(null, signed, key.key, read.signature)) {
    throw invalid('the document was changed after it was signed, or another was');
  }
  const withComment = Buffer.concat([read.signature, Buffer.from(read.trustedComment)]);
  if (!verify(null, withComment, key.key, read.globalSignature)) throw invalid('its trusted comment was changed');
  return {
    content: document,
    signer: {
      kind: 'minisign',
      name: `minisign key ${key.id}`,
      fingerprint: key.id.toLowerCase(),
      digest: read.algorithm === 'ED' ? 'blake2b512' : 'sha512',
      ...signedAt(read.trustedComment),
    },
  };
}

function readPublicKey(text: string): PublicKey {
  const bytes = Buffer.from(text, 'base64');
  if (!/^RW[A-Za-z0-9+/]{54}$/.test(text) || bytes.length !== 42 || bytes.toString('latin1', 0, 2) !== 'Ed') {
    throw new Failure(
      'InvalidTrust',
      `"${printable(text, 80)}" is no minisign public key: give the line of 56 characters that begins with RW`,
    );
  }
  const spki = Buffer.concat([ED25519_SPKI, bytes.subarray(10)]);
  return { id: keyId(bytes.subarray(2, 10)), key: createPublicKey({ key: spki, format: 'der', type: 'spki' }) };
}

/** Four lines: an untrusted comment, the signature, the trusted comment, the global signature. */
/** The key that a signature says it was made with; undefined for what is no minisign signature. @throws Failure SignatureInvalid */
export function minisignKeyOf(signature: Uint8Array): string | undefined {
  const isMinisign = Buffer.from(signature.subarray(0, UNTRUSTED.length)).toString('latin1') === UNTRUSTED;
  return isMinisign ? readSignature(signature).keyId : undefined;
}

function readSignature(bytes: Uint8Array): MinisignSignature {
  if (bytes.length > MAX_BYTES) throw invalid(`it has more than ${MAX_BYTES} bytes`);
  const text = Buffer.from(bytes).toString('utf8');
  const lines = text.replace(/\r?\n$/, '').split(/\r?\n/);
  const [untrusted = '', first = '', comment = '', second = ''] = lines;
  if (lines.length !== 4 || !untrusted.startsWith(UNTRUSTED) || !comment.startsWith(TRUSTED)) {
    throw invalid('it has not the four lines of a minisign signature');
  }
  const signature = base64(first, 74);
  const algorithm = signature.toString('latin1', 0, 2);
  if (algorithm !== 'ED' && algorithm !== 'Ed') throw invalid('it is of an unknown algorithm');
  return {
    algorithm,
    keyId: keyId(signature.subarray(2, 10)),
    signature: signature.subarray(10),
    trustedComment: comment.slice(TRUSTED.length),
    globalSignature: base64(second, 64),
  };
}

const UNTRUSTED = 'untrusted comment: ';
const TRUSTED = 'trusted comment: ';

function base64(line: string, length: number): Buffer {
  const bytes = Buffer.from(line, 'base64');
  // Of several spellings of the same bytes only the usual one, so that what is stored is what was proven.
  if (bytes.length !== length || bytes.toString('base64') !== line) throw invalid('a line of it is damaged');
  return bytes;
}

function keyId(bytes: Uint8Array): string {
  return Buffer.from(bytes.toReversed()).toString('hex').toUpperCase();
}

/** minisign writes the seconds since the epoch into the trusted comment, unless it is told another. */
function signedAt(comment: string): { signedAt?: string } {
  const seconds = /\btimestamp:(?<seconds>\d{1,11})\b/.exec(comment)?.groups?.['seconds'];
  return seconds === undefined ? {} : { signedAt: new Date(Number(seconds) * 1000).toISOString() };
}

function invalid(fact: string): Failure {
  return new Failure('SignatureInvalid', `the minisign signature does not hold: ${fact}`);
}
