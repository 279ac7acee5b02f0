import type { Key, PartialConfig, Signature, VerifyMessageResult } from 'openpgp';
import { Failure, type Reason } from '../api/failure.ts';
import { printable } from '../api/printable.ts';
import { splitClearsigned } from './clearsigned.ts';
import type { OpenPgpTrust, Proven, Signer } from './trust.ts';

/** Loaded when somebody trusts an OpenPGP key, not with the program. */
const loadLibrary = () => import('openpgp');
type Library = Awaited<ReturnType<typeof loadLibrary>>;
type VerificationResult = VerifyMessageResult['signatures'][number];

const SIGNATURE_BYTES = 256 * 2 ** 10;
const MAX_SIGNATURES = 16;

/**
 * A clear-signed document: only the signed text is returned, with its lines ended by LF and without spaces at their ends, as the
 * signature covers it.
 * @throws Failure SignatureMissing | SignatureInvalid | UntrustedSigner | KeyExpired | KeyRevoked | WeakSignature | InvalidTrust
 */
export async function verifyClearsigned(document: Uint8Array, trust: OpenPgpTrust, at: number): Promise<Proven> {
  const library = await loadLibrary();
  const keys = await readKeyring(library, trust.keyring);
  const { text, signature } = splitClearsigned(document);
  const config = rules(library, trust);
  const signatures = await examined(
    library.verify({
      message: await library.createMessage({ text }),
      signature: await readSignature(library, Buffer.from(signature)),
      verificationKeys: keys,
      date: new Date(at),
      config,
    }),
  );
  return { content: Buffer.from(text), signer: await judge(library, signatures, keys, at, config) };
}

/** A signature beside its document, armored or binary. @throws Failure as `verifyClearsigned` */
export async function verifyDetached(
  document: Uint8Array,
  signature: Uint8Array,
  trust: OpenPgpTrust,
  at: number,
): Promise<Proven> {
  const library = await loadLibrary();
  const keys = await readKeyring(library, trust.keyring);
  const config = rules(library, trust);
  const signatures = await examined(
    library.verify({
      message: await library.createMessage({ binary: document }),
      signature: await readSignature(library, signature),
      verificationKeys: keys,
      date: new Date(at),
      format: 'binary',
      config,
    }),
  );
  return { content: document, signer: await judge(library, signatures, keys, at, config) };
}

/** What the library made of each signature; it gives up altogether where one names an algorithm that it does not know. */
async function examined(
  verification: Promise<{ signatures: VerificationResult[] }>,
): Promise<readonly VerificationResult[]> {
  try {
    return (await verification).signatures;
  } catch (error) {
    throw damaged(error instanceof Error ? error.message : String(error));
  }
}

/** The keys that a signature says it was made with. @throws Failure SignatureInvalid | SignerAmbiguous */
export async function signingKeysOf(bytes: Uint8Array): Promise<Signer[]> {
  const library = await loadLibrary();
  const { packets } = await readSignature(library, bytes);
  return Array.from(packets, ({ issuerKeyID, issuerFingerprint, created, hashAlgorithm }) => {
    const id = issuerKeyID.toHex();
    // Not the library's `enums.read`, which throws at a number that it does not know.
    const digest = Object.entries(library.enums.hash).find(([, number]) => number === hashAlgorithm)?.[0];
    return {
      kind: 'openpgp',
      name: `OpenPGP key ${id.toUpperCase()}`,
      fingerprint: issuerFingerprint === null ? id : Buffer.from(issuerFingerprint).toString('hex'),
      ...(digest === undefined ? {} : { digest }),
      ...(created === null ? {} : { signedAt: created.toISOString() }),
    };
  });
}

/** What the library refuses. Short RSA keys are of the age of SHA-1; MD5, RIPEMD, DSA and ElGamal are never taken. */
function rules({ enums }: Library, { allowSha1 }: OpenPgpTrust): PartialConfig {
  const { md5, ripemd, sha1 } = enums.hash;
  return {
    rejectMessageHashAlgorithms: new Set(allowSha1 ? [md5, ripemd] : [md5, ripemd, sha1]),
    minRSABits: allowSha1 ? 1023 : 2047,
  };
}

/**
 * One good signature of a trusted key is enough, as each covers the whole document: distributions sign with the old and the new key
 * while they change it. Signatures of strangers say nothing.
 */
async function judge(
  library: Library,
  signatures: readonly VerificationResult[],
  keys: readonly Key[],
  at: number,
  config: PartialConfig,
): Promise<Signer> {
  const failures: Failure[] = [];
  for (const result of signatures) {
    try {
      await result.verified;
      const key = keys.find((each) => each.getKeys(result.keyID).length > 0);
      if (key === undefined) continue;
      await requireValidNow(library, key, result, at, config);
      return await signerOf(library, key, await result.signature);
    } catch (error) {
      failures.push(failureOf(error, result));
    }
  }
  // What a trusted key's signature lacks says more than that others signed too.
  const failure = failures.find(({ reason }) => reason !== 'UntrustedSigner') ?? failures[0];
  throw failure ?? new Failure('SignatureMissing', 'there is no OpenPGP signature of a document');
}

/**
 * The library asks whether the key was good when the signature says that it was made. That is the signer's own word: who has a key
 * that expired or was revoked dates his signature back. So it must be good now, too.
 */
async function requireValidNow(
  library: Library,
  key: Key,
  { keyID }: VerificationResult,
  at: number,
  config: PartialConfig,
): Promise<void> {
  const full = { ...library.config, ...config };
  await key.getSigningKey(keyID, new Date(at), undefined, full);
}

/** The library tells its reasons in words only. Any that we do not know is a signature that does not hold. */
function failureOf(error: unknown, { keyID }: VerificationResult): Failure {
  if (error instanceof Failure) return error;
  const words = error instanceof Error ? error.message : String(error);
  const id = keyID.toHex().toUpperCase();
  const [reason, fact] = REASONS.find(([, , pattern]) => pattern.test(words)) ?? NOT_HOLDING;
  const cure = CURES[reason];
  return new Failure(
    reason,
    `the OpenPGP signature of the key ${id} ${fact} (${printable(words, 160)})${cure === undefined ? '' : `: ${cure}`}`,
    { cause: error },
  );
}

type Case = readonly [reason: Reason, fact: string, words: RegExp];

const NOT_HOLDING: Case = ['SignatureInvalid', 'does not hold', /(?:)/];

const REASONS: readonly Case[] = [
  ['UntrustedSigner', 'is of nobody in the keyring', /Could not find signing key/],
  ['KeyRevoked', 'is of a key that is revoked', /revoked/i],
  ['KeyExpired', 'is of a key that has expired, or has expired itself', /expired/i],
  ['WeakSignature', 'is too weak', /Insecure|too weak|shorter than|considered weak|bit keys are/i],
  ['SignatureInvalid', 'is dated in the future, or before its key was made', /in the future|newer than the signature/i],
  NOT_HOLDING,
];

const CURES: Readonly<Partial<Record<Reason, string>>> = {
  UntrustedSigner: 'if you trust it, add the key to the keyring',
  KeyRevoked: "ask for the publisher's new key",
  KeyExpired: "take the publisher's renewed key into the keyring",
  WeakSignature: 'the publisher must sign with a better key and SHA-256; allowSha1: true takes what SHA-1 holds',
};

async function signerOf({ enums }: Library, key: Key, { packets }: Signature): Promise<Signer> {
  const [packet] = packets;
  const fingerprint = key.getFingerprint();
  const user = printable(key.getUserIDs()[0] ?? 'no user id', 200);
  const digest = packet?.hashAlgorithm ?? undefined;
  return {
    kind: 'openpgp',
    name: `${user} (${fingerprint.toUpperCase()})`,
    fingerprint,
    ...(digest === undefined ? {} : { digest: enums.read(enums.hash, digest) }),
    ...(packet?.created == null ? {} : { signedAt: packet.created.toISOString() }),
  };
}

async function readSignature(library: Library, bytes: Uint8Array): Promise<Signature> {
  if (bytes.length > SIGNATURE_BYTES) throw damaged(`it has more than ${SIGNATURE_BYTES} bytes`);
  const text = Buffer.from(bytes).toString('latin1');
  let signature: Signature;
  try {
    if (text.includes('-----BEGIN PGP')) {
      if (!ONE_BLOCK.test(text)) throw damaged('it is not one armored signature, and nothing else');
      signature = await library.readSignature({ armoredSignature: text });
    } else signature = await library.readSignature({ binarySignature: bytes });
  } catch (error) {
    throw error instanceof Failure ? error : damaged(error instanceof Error ? error.message : String(error));
  }
  if (signature.packets.length > MAX_SIGNATURES) {
    throw new Failure('SignerAmbiguous', `there are more than ${MAX_SIGNATURES} OpenPGP signatures`);
  }
  return signature;
}

const ONE_BLOCK = /^\s*-----BEGIN PGP SIGNATURE-----(?:(?!-----)[^])*-----END PGP SIGNATURE-----\s*$/;
const PUBLIC_BLOCKS = /-----BEGIN PGP PUBLIC KEY BLOCK-----(?:(?!-----)[^])*-----END PGP PUBLIC KEY BLOCK-----/g;

function damaged(fact: string): Failure {
  return new Failure('SignatureInvalid', `the OpenPGP signature cannot be read: ${printable(fact, 160)}`);
}

/** Armored blocks, one after another, or binary as `gpg --export` writes it. */
async function readKeyring(library: Library, keyring: Uint8Array): Promise<Key[]> {
  const text = Buffer.from(keyring).toString('latin1');
  const blocks = text.match(PUBLIC_BLOCKS);
  try {
    const keys =
      blocks === null
        ? await library.readKeys({ binaryKeys: keyring })
        : (await Promise.all(blocks.map((block) => library.readKeys({ armoredKeys: block })))).flat();
    if (keys.length > 0) return keys.map((key) => (key.isPrivate() ? key.toPublic() : key));
  } catch (error) {
    throw unreadable(error instanceof Error ? error.message : String(error));
  }
  throw unreadable('there is no key in it');
}

function unreadable(fact: string): Failure {
  return new Failure(
    'InvalidTrust',
    `the keyring cannot be read (${printable(fact, 160)}): give public keys as "gpg --armor --export KEY" writes them`,
  );
}
