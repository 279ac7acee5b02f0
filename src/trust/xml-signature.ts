import type { CanonicalizationOrTransformationAlgorithm } from 'xml-crypto';
import { Failure } from '../api/failure.ts';
import { printable } from '../api/printable.ts';
import { weaknessOfDigest } from './algorithms.ts';
import { type Certificate, readCertificate } from './certificate.ts';
import { type Chain, verifyChain } from './chain.ts';
import type { Circumstances } from './circumstances.ts';
import { endorsedChain, signerOf } from './endorser.ts';
import { OpenSsl } from './openssl.ts';
import { SignerRefused } from './signer-refused.ts';
import type { Proven, X509Trust } from './trust.ts';
import { outlineSignatures, readText, type SignatureOutline, type XmlElement } from './xml-outline.ts';

/** Loaded when somebody trusts a signer of XML documents, not with the program. */
const loadLibrary = () => import('xml-crypto');

/**
 * https://www.w3.org/TR/xmldsig-core1/#sec-AlgID: all that is understood, with the digest that each rests on. Maps, for the names come
 * from documents, and "constructor" is a member of every object.
 */
const SIGNATURE_METHODS: ReadonlyMap<string, string> = new Map(
  Object.entries({
    'http://www.w3.org/2000/09/xmldsig#rsa-sha1': 'sha1',
    'http://www.w3.org/2001/04/xmldsig-more#rsa-sha256': 'sha256',
    'http://www.w3.org/2007/05/xmldsig-more#sha256-rsa-MGF1': 'sha256',
    'http://www.w3.org/2001/04/xmldsig-more#rsa-sha512': 'sha512',
  }),
);
const DIGEST_METHODS: ReadonlyMap<string, string> = new Map(
  Object.entries({
    'http://www.w3.org/2000/09/xmldsig#sha1': 'sha1',
    'http://www.w3.org/2001/04/xmlenc#sha256': 'sha256',
    'http://www.w3.org/2001/04/xmlenc#sha512': 'sha512',
  }),
);
const INCLUSIVE = [
  'http://www.w3.org/TR/2001/REC-xml-c14n-20010315',
  'http://www.w3.org/TR/2001/REC-xml-c14n-20010315#WithComments',
] as const;
const CANONICALIZATIONS: ReadonlySet<string> = new Set([
  ...INCLUSIVE,
  'http://www.w3.org/2001/10/xml-exc-c14n#',
  'http://www.w3.org/2001/10/xml-exc-c14n#WithComments',
]);
const ENVELOPED = 'http://www.w3.org/2000/09/xmldsig#enveloped-signature';

/**
 * An XML document with an enveloped signature, as the StratusLab Marketplace has them: one signature, below the root, over the whole
 * document. What is returned is the canonical form of what was signed, without the signature; whatever else the file may hold is not
 * in it. The certificate of KeyInfo counts when its chain, or it as an anchor, is trusted at `at`: entries outlive the certificates
 * of their endorsers, so an old one is judged at an earlier time only if the caller says so. Whether its key has made the signature is
 * asked first, so that a refusal is laid at the door of who signed, and not of whom a forger names.
 * @throws SignerRefused (WeakSignature | EndorserNotTrusted, or what `verifyChain` throws) where the signature holds; Failure
 * SignatureMissing | SignatureInvalid | SignerAmbiguous | WeakSignature | TooLarge
 */
export async function verifyXmlSignature(
  document: Uint8Array,
  trust: X509Trust,
  circumstances: Circumstances,
): Promise<Proven> {
  const text = readText(document);
  const profile = readProfile(onlySignature(text));
  const [certificate, ...extra] = profile.certificates;
  if (certificate === undefined) throw invalid('it carries no certificate of its signer');
  const content = Buffer.from(await signedContent(text, certificate, profile));
  try {
    checkStrength(profile, trust);
    const chain = await endorsedChain(certificate, trust, () => chainOf(certificate, extra, trust, circumstances));
    return { content, signer: signerOf(chain, { digest: profile.digest, signingTime: undefined }) };
  } catch (error) {
    throw error instanceof Failure ? new SignerRefused(error, content, certificate) : error;
  }
}

function chainOf(
  certificate: Certificate,
  extra: readonly Certificate[],
  trust: X509Trust,
  circumstances: Circumstances,
): Promise<Chain> {
  const { at, chains } = circumstances;
  const key = [certificate, ...extra].map(({ fingerprint }) => fingerprint).join(' ');
  const known = chains?.get(key);
  if (known !== undefined) return known;
  const found = OpenSsl.use(circumstances, (openssl) => verifyChain(openssl, certificate, extra, trust, at));
  chains?.set(key, found);
  return found;
}

/** How the document is signed. */
interface Profile {
  /** The signature element as it stands. */
  readonly source: string;
  readonly xmlAttributes: Readonly<Record<string, string>>;
  readonly signatureMethod: string;
  readonly signatureDigest: string;
  readonly digestMethod: string;
  readonly canonicalization: string;
  readonly digest: string;
  readonly certificates: readonly Certificate[];
}

function onlySignature(text: string): SignatureOutline {
  const [found, ...others] = outlineSignatures(text);
  if (found === undefined) throw new Failure('SignatureMissing', 'the XML document has no signature');
  if (others.length > 0) {
    throw new Failure(
      'SignerAmbiguous',
      `the XML document has ${others.length + 1} signatures: it must have exactly one`,
    );
  }
  // Deeper, it may have been lifted out of another document that was signed.
  if (found.depth !== 1) throw invalid('it does not stand directly below the root');
  return found;
}

/**
 * The one shape that is taken. XML Signature allows references to parts, scripts as transforms and several of each; a signature that
 * covers something else than all of the document is how documents are forged.
 */
function readProfile({ signature, source, xmlAttributes }: SignatureOutline): Profile {
  const [signedInfo, , keyInfo] = exactly(signature, 'SignedInfo', 'SignatureValue', 'KeyInfo');
  const [canonicalization, signatureMethod, reference] = exactly(
    signedInfo,
    'CanonicalizationMethod',
    'SignatureMethod',
    'Reference',
  );
  const [transforms, digestMethod] = exactly(reference, 'Transforms', 'DigestMethod', 'DigestValue');
  if (reference.attributes['URI'] !== '') throw invalid('its reference is not the whole document (URI="")');
  const [first, second, ...more] = transforms.children.map(algorithmOf);
  if (first !== ENVELOPED || (second !== undefined && !CANONICALIZATIONS.has(second)) || more.length > 0) {
    throw invalid('its transforms are not "enveloped signature", then canonical XML');
  }
  const canonical = algorithmOf(canonicalization);
  const digestAlgorithm = algorithmOf(digestMethod);
  const digest = DIGEST_METHODS.get(digestAlgorithm);
  if (!CANONICALIZATIONS.has(canonical) || digest === undefined) throw unknown(digestAlgorithm);
  const method = algorithmOf(signatureMethod);
  const signatureDigest = SIGNATURE_METHODS.get(method);
  if (signatureDigest === undefined) throw unknown(method);
  return {
    source,
    xmlAttributes,
    signatureMethod: method,
    signatureDigest,
    digestMethod: digestAlgorithm,
    canonicalization: canonical,
    digest,
    certificates: certificatesIn(keyInfo),
  };
}

function checkStrength({ signatureDigest, digest }: Profile, trust: X509Trust): void {
  const weakness = weaknessOfDigest(signatureDigest, trust) ?? weaknessOfDigest(digest, trust);
  if (weakness === undefined) return;
  throw new Failure(
    'WeakSignature',
    `the signature ${weakness}: the endorser must sign with SHA-256 or better; allowSha1: true takes what SHA-1 holds`,
  );
}

/** Lets the library compute; it knows the algorithms of this signature and no others. */
async function signedContent(text: string, certificate: Certificate, profile: Profile): Promise<string> {
  const { SignedXml } = await loadLibrary();
  const verifier = new SignedXml({ getCertFromKeyInfo: () => null, publicCert: certificate.publicKey });
  verifier.SignatureAlgorithms = picked(verifier.SignatureAlgorithms, profile.signatureMethod);
  verifier.HashAlgorithms = picked(verifier.HashAlgorithms, profile.digestMethod);
  for (const name of INCLUSIVE) {
    const algorithm = verifier.CanonicalizationAlgorithms[name];
    if (algorithm !== undefined) {
      verifier.CanonicalizationAlgorithms[name] = inheriting(algorithm, profile.xmlAttributes);
    }
  }
  let holds: boolean;
  try {
    verifier.loadSignature(profile.source);
    holds = verifier.checkSignature(text);
  } catch (error) {
    const words = error instanceof Error ? error.message : String(error);
    // The library's own words would be the whole signature in base64.
    throw invalid(words.startsWith('invalid signature') ? CHANGED : `it does not hold: ${words}`);
  }
  const [content, ...others] = verifier.getSignedReferences();
  if (!holds || content === undefined) throw invalid(CHANGED);
  if (others.length > 0) throw invalid('it covers more than one part');
  return content;
}

/**
 * Canonical XML 1.0 §2.4: what is canonicalised apart from its parents takes over their `xml:` attributes, so the `xml:base` of every
 * Marketplace entry is part of what its signature is of. xml-crypto leaves that out (6.3.2).
 */
function inheriting(
  Algorithm: new () => CanonicalizationOrTransformationAlgorithm,
  attributes: Readonly<Record<string, string>>,
): new () => CanonicalizationOrTransformationAlgorithm {
  return class extends Algorithm {
    override process(...[node, options]: Parameters<CanonicalizationOrTransformationAlgorithm['process']>) {
      const element = node as unknown as DomElement;
      if (element.localName === 'SignedInfo') {
        for (const [name, value] of Object.entries(attributes)) {
          if (!element.hasAttribute(name)) element.setAttributeNS(XML_NAMESPACE, name, value);
        }
      }
      return super.process(node, options);
    }
  };
}

const CHANGED = 'the document was changed after it was signed, or another key signed it';

/** As much of the DOM as is needed of it. */
interface DomElement {
  readonly localName: string;
  hasAttribute(name: string): boolean;
  setAttributeNS(namespace: string, name: string, value: string): void;
}

const XML_NAMESPACE = 'http://www.w3.org/XML/1998/namespace';

function picked<T>(all: Record<string, T>, name: string): Record<string, T> {
  return Object.fromEntries(Object.entries(all).filter(([each]) => each === name));
}

/** The children of an element by these names, in this order, and no others. */
function exactly<const Names extends readonly string[]>(
  element: XmlElement,
  ...names: Names
): { [Index in keyof Names]: XmlElement } {
  const found = element.children.map(({ name }) => name);
  if (found.length !== names.length || found.some((name, index) => name !== names[index])) {
    throw invalid(`its ${element.name} has other parts than ${names.join(', ')}`);
  }
  return element.children as { [Index in keyof Names]: XmlElement };
}

function algorithmOf({ attributes, children }: XmlElement): string {
  const { Algorithm: algorithm } = attributes;
  // Parameters of algorithms (prefix lists, other digests of MGF1) change what is computed.
  if (algorithm === undefined || children.length > 0) throw invalid('an algorithm of it is missing, or has parameters');
  return algorithm;
}

/** X509Data/X509Certificate: the signer's first. Bare keys and names of keys say nothing of whom they belong to. */
function certificatesIn(keyInfo: XmlElement): Certificate[] {
  const found = keyInfo.children
    .filter(({ name }) => name === 'X509Data')
    .flatMap(({ children }) => children.filter(({ name }) => name === 'X509Certificate'));
  if (found.length > MAX_CERTIFICATES) throw invalid(`it carries more than ${MAX_CERTIFICATES} certificates`);
  return found.map(({ text }) => {
    try {
      return readCertificate(Buffer.from(text, 'base64'));
    } catch (error) {
      const fact = error instanceof Error ? error.message : String(error);
      throw new Failure('CertificateInvalid', `a certificate of the signature cannot be read: ${printable(fact, 120)}`);
    }
  });
}

const MAX_CERTIFICATES = 8;

function unknown(algorithm: string): Failure {
  return new Failure(
    'WeakSignature',
    `the signature uses ${printable(algorithm, 100)}, which is not taken: rsa-sha256 is`,
  );
}

function invalid(fact: string): Failure {
  return new Failure('SignatureInvalid', `the XML signature proves nothing: ${printable(fact, 200)}`);
}
