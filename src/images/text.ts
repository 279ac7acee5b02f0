import { printable } from '../api/printable.ts';

const SAMPLE = 4096;

export interface TextPage {
  kind: 'HTML' | 'XML' | 'JSON' | 'text';
  title?: string;
}

/** A login page, an error, a directory listing: what origins send with status 200 where an image was expected. */
export function recogniseText(head: Buffer): TextPage | undefined {
  const sample = decode(head.subarray(0, SAMPLE), head.length > SAMPLE);
  if (sample === undefined || sample.trim() === '') return undefined;
  const kind = kindOf(sample.trimStart());
  if (kind !== 'HTML') return { kind };
  const title = /<title[^>]*>([^<]*)/i.exec(head.toString('utf8', 0, 16 * 1024))?.[1];
  return title === undefined || title.trim() === '' ? { kind } : { kind, title: printable(title, 80) };
}

function kindOf(text: string): TextPage['kind'] {
  const start = text.slice(0, 1024);
  if (/^(?:<!--[\s\S]*?-->\s*)*<(?:!doctype html|html|head|body|title)\b/i.test(start)) return 'HTML';
  if (/^<\?xml[^>]*>\s*(?:<!--[\s\S]*?-->\s*)*<!doctype html/i.test(start)) return 'HTML';
  if (/^<[a-z?!]/i.test(start)) return 'XML';
  if (/^[[{]\s*(?:["{[\]}]|-?\d|true|false|null)/.test(start)) return 'JSON';
  return 'text';
}

/** Text is what has no control characters and decodes; a page in a legacy encoding is known by its markup. */
function decode(bytes: Buffer, cut: boolean): string | undefined {
  if (bytes.length === 0) return undefined;
  const encoding =
    bytes[0] === 0xff && bytes[1] === 0xfe ? 'utf-16le' : bytes[0] === 0xfe && bytes[1] === 0xff ? 'utf-16be' : 'utf-8';
  let text: string;
  try {
    // `stream` accepts a character that the sample's end cuts in two.
    text = new TextDecoder(encoding, { fatal: true }).decode(bytes, { stream: cut });
  } catch {
    text = bytes.toString('latin1');
    if (!/^\s*<[a-z!?]/i.test(text)) return undefined;
  }
  return hasControlCharacters(text) ? undefined : text;
}

function hasControlCharacters(text: string): boolean {
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index);
    if (code < 0x20 && code !== 0x09 && code !== 0x0a && code !== 0x0d && code !== 0x0c && code !== 0x1b) return true;
  }
  return false;
}
