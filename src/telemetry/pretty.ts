import { styleText } from 'node:util';

const LEVELS: Readonly<Record<string, { tag: string; style: Parameters<typeof styleText>[0] }>> = {
  trace: { tag: 'TRC', style: 'gray' },
  debug: { tag: 'DBG', style: 'blue' },
  info: { tag: 'INF', style: 'green' },
  warn: { tag: 'WRN', style: 'yellow' },
  error: { tag: 'ERR', style: 'red' },
  fatal: { tag: 'FTL', style: ['bold', 'red'] },
};
const SHOWN_APART = new Set(['level', 'time', 'msg', 'kind', 'namespace', 'name', 'err']);

/**
 * A JSON log line as people read it: `14:03:22.104 INF VMImage default/ubuntu  fetched  bytes=1048576`. A line that is not JSON
 * stays as it is.
 */
export function prettyLine(line: string, colour: boolean): string {
  let record: Record<string, unknown>;
  try {
    const parsed: unknown = JSON.parse(line);
    if (typeof parsed !== 'object' || parsed === null) return line;
    record = parsed as Record<string, unknown>;
  } catch {
    return line;
  }
  const paint = (style: Parameters<typeof styleText>[0], text: string): string =>
    colour ? styleText(style, text, { validateStream: false }) : text;

  const level = LEVELS[String(record['level'])];
  const parts = [
    paint('gray', asText(record['time'] ?? '').slice(11, 23)),
    level === undefined ? asText(record['level'] ?? '') : paint(level.style, level.tag),
  ];
  const subject = subjectOf(record);
  if (subject !== '') parts.push(paint('cyan', subject));
  parts.push(printable(asText(record['msg'] ?? '')));
  for (const [key, value] of Object.entries(record)) {
    if (!SHOWN_APART.has(key)) parts.push(paint('gray', `${key}=`) + printable(asText(value)));
  }
  const error = errorOf(record['err']);
  return `${parts.join(' ')}\n${error === '' ? '' : `${error}\n`}`;
}

function subjectOf(record: Record<string, unknown>): string {
  const name = asText(record['name'] ?? '');
  const full = record['namespace'] === undefined ? name : `${asText(record['namespace'])}/${name}`;
  return printable(
    [record['kind'] === undefined ? '' : asText(record['kind']), full].filter((s) => s !== '').join(' '),
  );
}

function errorOf(err: unknown): string {
  if (err === undefined) return '';
  if (typeof err !== 'object' || err === null) return `    ${asText(err)}`;
  const { stack, message, cause } = err as Record<string, unknown>;
  const lines = asText(stack ?? message ?? err)
    .split('\n')
    .map((line) => `    ${printable(line)}`);
  if (cause !== undefined) lines.push('    caused by', errorOf(cause));
  return lines.join('\n');
}

function asText(value: unknown): string {
  return typeof value === 'string' ? value : (JSON.stringify(value) ?? '');
}

/** What a stranger's server or list wrote must not steer the terminal (escape sequences, line breaks). */
function printable(text: string): string {
  return text.replaceAll(/\p{Cc}/gu, (c) => (c === '\t' ? ' ' : escaped(c)));
}

/** JSON leaves the C1 controls as they are, and U+009B begins an escape sequence as ESC [ does. */
function escaped(control: string): string {
  const json = JSON.stringify(control).slice(1, -1);
  return json === control ? `\\u${control.charCodeAt(0).toString(16).padStart(4, '0')}` : json;
}
