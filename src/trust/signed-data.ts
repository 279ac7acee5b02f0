import { Failure } from '../api/failure.ts';
import { digestOf, signatureDigestOf } from './algorithms.ts';
import { context, type Element, Malformed, Members, members, octetsOf, oidOf, only, TAG, timeOf } from './der.ts';

/** RFC 5652 §5 SignedData, as far as rules need it before openssl proves it. */
export interface SignedData {
  /** Undefined: the signature is detached. */
  readonly content: Uint8Array | undefined;
  /** DER, in the order of the message; not judged. */
  readonly certificates: readonly Uint8Array[];
  readonly signers: readonly SignerInfo[];
}

export interface SignerInfo {
  /** Of the content, lower case. */
  readonly digest: string;
  /** Within the signature over the attributes. */
  readonly signatureDigest: string;
  readonly messageDigest: Uint8Array;
  /** Milliseconds since the epoch. */
  readonly signingTime: number | undefined;
}

const OID = {
  data: '1.2.840.113549.1.7.1',
  signedData: '1.2.840.113549.1.7.2',
  contentType: '1.2.840.113549.1.9.3',
  messageDigest: '1.2.840.113549.1.9.4',
  signingTime: '1.2.840.113549.1.9.5',
} as const;

/** @throws Failure SignatureInvalid */
export function readSignedData(der: Uint8Array): SignedData {
  try {
    return parse(der);
  } catch (error) {
    if (!(error instanceof Malformed)) throw error;
    throw new Failure('SignatureInvalid', `the signature is no CMS SignedData that proves something: ${error.message}`);
  }
}

function parse(der: Uint8Array): SignedData {
  const contentInfo = new Members(only(der));
  if (oidOf(contentInfo.take()) !== OID.signedData) throw new Malformed('it is CMS, but no SignedData');
  const fields = new Members(members(contentInfo.take(context(0)))[0] ?? contentInfo.take());
  fields.take(TAG.integer);
  fields.take(TAG.set);
  const encapsulated = new Members(fields.take(TAG.sequence));
  if (oidOf(encapsulated.take()) !== OID.data) throw new Malformed('what it signs is not plain data');
  const wrapped = encapsulated.optional(context(0));
  const certificates = fields.optional(context(0));
  fields.optional(context(1));
  return {
    content: wrapped === undefined ? undefined : octetsOf(new Members(wrapped, context(0)).take()),
    certificates: certificates === undefined ? [] : members(certificates).map(({ raw }) => raw),
    signers: members(fields.take(TAG.set)).map(readSigner),
  };
}

function readSigner(element: Element): SignerInfo {
  const fields = new Members(element);
  fields.take(TAG.integer);
  fields.take();
  const digest = digestOf(fields.take(TAG.sequence));
  const attributes = fields.optional(context(0));
  // Optional in RFC 5652 §5.3. Without them a signature over attributes can be passed off as one over their bytes as content, and no
  // tool leaves them out by itself.
  if (attributes === undefined) throw new Malformed('it has no signed attributes');
  const signed = readAttributes(attributes);
  const contentType = signed.get(OID.contentType);
  const messageDigest = signed.get(OID.messageDigest);
  const signingTime = signed.get(OID.signingTime);
  if (contentType === undefined || messageDigest === undefined || oidOf(contentType) !== OID.data) {
    throw new Malformed('its signed attributes do not say what is signed');
  }
  return {
    digest,
    signatureDigest: signatureDigestOf(fields.take(TAG.sequence)) ?? digest,
    messageDigest: octetsOf(messageDigest),
    signingTime: signingTime === undefined ? undefined : timeOf(signingTime),
  };
}

/** RFC 5652 §11: these attributes come once, with one value. */
function readAttributes(element: Element): Map<string, Element> {
  const found = new Map<string, Element>();
  for (const attribute of members(element)) {
    const parts = new Members(attribute);
    const oid = oidOf(parts.take(TAG.oid));
    const [value] = members(parts.take(TAG.set));
    if (value === undefined || found.has(oid)) throw new Malformed('it has an attribute twice, or without a value');
    found.set(oid, value);
  }
  return found;
}
