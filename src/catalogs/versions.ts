const DELIMITERS = /[-,./]/g;
const DIGITS = /\d+/g;
const NUMBER = /^\d+$/;

/**
 * The order of versions as vmcatcher has it (`split_numeric_sort`), by which its sites refused older lists: pieces between
 * `-`, `,`, `.` and `/` from left to right, runs of digits compared as numbers, a number newer than a word, the longer version newer
 * than its beginning. Negative when `a` is older. Versions that differ in leading zeros alone are of the same age.
 *
 * One thing differs: vmcatcher ended at the first pieces of equal number (`01.5` and `1.7` were the same age to it), which is no order.
 */
export function compareVersions(a: string, b: string): number {
  return compareLists(pieces(a, DELIMITERS), pieces(b, DELIMITERS), (x, y) =>
    compareLists(pieces(x, DIGITS), pieces(y, DIGITS), compareText),
  );
}

/** The separators are pieces too: `1-2` and `1.2` are two versions. */
function pieces(text: string, separator: RegExp): string[] {
  const found: string[] = [];
  let end = 0;
  for (const match of text.matchAll(separator)) {
    if (match.index > end) found.push(text.slice(end, match.index));
    found.push(match[0]);
    end = match.index + match[0].length;
  }
  if (end < text.length) found.push(text.slice(end));
  return found;
}

function compareLists(a: string[], b: string[], compareWords: (x: string, y: string) => number): number {
  for (let index = 0; index < Math.min(a.length, b.length); index++) {
    const order = comparePieces(a[index] ?? '', b[index] ?? '', compareWords);
    if (order !== 0) return order;
  }
  return a.length - b.length;
}

function comparePieces(a: string, b: string, compareWords: (x: string, y: string) => number): number {
  const [aIsNumber, bIsNumber] = [NUMBER.test(a), NUMBER.test(b)];
  if (aIsNumber && bIsNumber) return compareNumbers(a, b);
  if (aIsNumber !== bIsNumber) return aIsNumber ? 1 : -1;
  return compareWords(a, b);
}

/** By length and digits: a version may be longer than any number type holds. */
function compareNumbers(a: string, b: string): number {
  const [x, y] = [a.replace(/^0+/, ''), b.replace(/^0+/, '')];
  return x.length === y.length ? compareText(x, y) : x.length - y.length;
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : Number(a > b);
}
