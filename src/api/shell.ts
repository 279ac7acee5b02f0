/** One word of a POSIX shell. What strangers have named stands in command lines that people paste, and must not run there. */
export function shellWord(text: string): string {
  return isPlainWord(text) ? text : `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

/** Whether every shell takes it as it stands. */
export function isPlainWord(text: string): boolean {
  return /^[\w./:@%+=,-]+$/.test(text);
}
