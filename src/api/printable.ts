/** Names and titles come from the bytes of strangers: one line, printable, short. */
export function printable(text: string, limit = 120): string {
  const line = text.replace(/[\p{C}\s]+/gu, ' ').trim();
  return line.length <= limit ? line : `${line.slice(0, limit - 1)}…`;
}
