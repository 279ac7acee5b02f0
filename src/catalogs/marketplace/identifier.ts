const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
const LENGTH = 27;

/**
 * The Marketplace's identifier of an image: its SHA-1 as one big-endian number of 160 bits in digits of base 64, padded on the left.
 * RFC 4648's base64url pads on the right, and gives another string.
 * @param sha1 40 hex digits
 */
export function identifierOf(sha1: string): string {
  let number = BigInt(`0x${sha1}`);
  let text = '';
  for (let digit = 0; digit < LENGTH; digit++) {
    text = (ALPHABET[Number(number & 63n)] ?? '') + text;
    number >>= 6n;
  }
  return text;
}

/** StratusLab's tools wrote SHA-1s with a zero too many, and (in Python) without leading zeros. The number is the same. */
export function fortyDigits(sha1: string): string {
  return sha1.replace(/^0+(?=[0-9a-f]{40}$)/i, '').padStart(40, '0');
}
