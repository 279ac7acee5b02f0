/** RFC 7468, read leniently as OpenSSL does: text around the blocks is a comment. */

/** The DER in PEM blocks of a label, in order; where there is no PEM at all, the bytes as they are. */
export function derBlocks(bytes: Uint8Array, label: string): Uint8Array[] {
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (!file.includes('-----BEGIN ')) return file[0] === SEQUENCE ? [bytes] : [];
  const found: Uint8Array[] = [];
  const begin = `-----BEGIN ${label}-----`;
  const end = `-----END ${label}-----`;
  for (let at = file.indexOf(begin); at !== -1; at = file.indexOf(begin, at)) {
    const stop = file.indexOf(end, at);
    if (stop === -1) break;
    const body = file.toString('latin1', at + begin.length, stop);
    found.push(Buffer.from(body, 'base64'));
    at = stop + end.length;
  }
  return found;
}

/** DER as a PEM block. */
export function pemBlock(der: Uint8Array, label: string): string {
  const lines = Buffer.from(der)
    .toString('base64')
    .replaceAll(/.{64}(?!$)/g, '$&\n');
  return `-----BEGIN ${label}-----\n${lines}\n-----END ${label}-----\n`;
}

const SEQUENCE = 0x30;
