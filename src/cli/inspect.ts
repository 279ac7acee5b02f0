import type { Catalog, CatalogFormat, Entry } from '../catalogs/catalog.ts';
import { type Inspection, inspect as look } from '../catalogs/inspection.ts';
import { cleanUrl } from '../sources/url.ts';
import type { Signer } from '../trust/trust.ts';
import { EXIT } from './exit.ts';
import { type ListPlaceOptions, placeOf } from './inspect-sources.ts';
import { type TrustOptions, trustOf } from './inspect-trust.ts';
import { type CommandContext, type Output, printable } from './output.ts';
import { type DataFormat, isDataFormat, printData } from './print.ts';
import { formatAge, formatBytes } from './quantity.ts';
import { cell, renderTable } from './table.ts';

export interface InspectOptions extends TrustOptions, ListPlaceOptions {
  format?: CatalogFormat;
  /** Milliseconds since the epoch. */
  at?: number;
  output?: DataFormat | 'wide';
}

/** `imageproxy inspect URL|FILE`: what a list says, who vouches for it, and why a subscription would refuse it. */
export async function inspect(word: string, options: InspectOptions, context: CommandContext): Promise<number> {
  const { out, err, signal } = context;
  const now = context.now();
  const at = options.at ?? now;
  const trust = await trustOf(options);
  const { url, fetch } = await placeOf(word, options, signal);
  const inspection = await look({ url, fetch, trust, at, signal, format: options.format });
  const [fault] = inspection.faults;
  if (isDataFormat(options.output)) await printData(out, options.output, dataOf(url, at, inspection));
  else new Page(out, at, now).show(word, inspection, options.output === 'wide');
  if (fault === undefined) return EXIT.ok;
  // The page ends with it; data may be on its way to a program.
  if (isDataFormat(options.output))
    err.line(`${err.paint('red', 'imageproxy:')} ${printable(`${fault.reason}: ${fault.message}`)}`);
  return EXIT.failed;
}

function dataOf(url: string, at: number, { format, catalog, claims, faults }: Inspection): object {
  const { list, entries = [], skipped = [], warnings = [] } = catalog ?? {};
  return {
    url: cleanUrl(url),
    at: new Date(at).toISOString(),
    format,
    trusted: faults.length === 0,
    faults: faults.map(({ reason, message }) => ({ reason, message })),
    list: list === undefined ? undefined : { ...list, signer: plainSigner(list.signer) },
    // Nobody has proven that it was they.
    claimedSigners: claims?.signers.map(plainSigner),
    warnings,
    entries: entries.map((entry) => ({ ...entry, signer: plainSigner(entry.signer) })),
    skipped,
  };
}

/** The names as they are compared are for programs of ours alone. */
function plainSigner(signer: Signer | undefined): Omit<Signer, 'names'> | undefined {
  if (signer === undefined) return undefined;
  const { names: _, ...plain } = signer;
  return plain;
}

const ENTRY_COLUMNS = ['id', 'version', 'arch', 'os', 'format', 'size', 'checksum', 'title'];
const WIDTH = 14;

class Page {
  readonly #out: Output;
  readonly #at: number;
  readonly #now: number;

  constructor(out: Output, at: number, now: number) {
    this.#out = out;
    this.#at = at;
    this.#now = now;
  }

  show(word: string, { format, catalog, claims, faults }: Inspection, wide: boolean): void {
    const proven = faults.length === 0;
    this.#line('List', word);
    this.#line('Format', format ?? 'unknown');
    if (catalog !== undefined) this.#list(catalog);
    if (proven) this.#signer('Signed by', catalog?.list.signer);
    else for (const signer of claims?.signers ?? []) this.#signer('Says signed by', signer);
    if (catalog !== undefined) this.#entries(catalog, wide);
    const verdict = proven
      ? this.#out.paint('green', `valid and trusted${this.#when()}`)
      : this.#out.paint('red', `would be refused${this.#when()}`);
    this.#out.line();
    this.#line('Verdict', verdict, true);
    for (const { reason, message } of faults) this.#line('', `${reason}: ${message}`);
  }

  #when(): string {
    return this.#at === this.#now ? '' : ` at ${seconds(new Date(this.#at).toISOString())}`;
  }

  #list({ list, entries, skipped, warnings }: Catalog): void {
    this.#line('Identity', list.identity);
    this.#line('Title', list.title);
    this.#line('Version', list.version);
    this.#line(
      'Made',
      list.createdAt === undefined ? undefined : `${list.createdAt} (${this.#distance(list.createdAt)})`,
    );
    this.#line(
      'Expires',
      list.expiresAt === undefined ? undefined : `${list.expiresAt} (${this.#distance(list.expiresAt)})`,
    );
    this.#line('Digest', list.digest);
    this.#line(
      'Images',
      `${entries.length}${skipped.length === 0 ? '' : `, and ${skipped.length} that cannot be used`}`,
    );
    for (const warning of warnings) this.#line('Warning', this.#out.paint('yellow', printable(warning)), true);
  }

  #signer(title: string, signer: Signer | undefined): void {
    if (signer === undefined) return;
    const { name, issuer, digest, signedAt, notBefore, notAfter, fingerprint, chain } = signer;
    this.#line(title, name);
    this.#line('  issuer', issuer);
    this.#line('  valid', notBefore === undefined ? undefined : `${seconds(notBefore)} to ${seconds(notAfter)}`);
    this.#line(
      '  signature',
      [digest, signedAt === undefined ? undefined : `of ${seconds(signedAt)}`].filter(Boolean).join(' '),
    );
    this.#line('  fingerprint', fingerprint);
    this.#line('  chain', chain === undefined || chain.length < 2 ? undefined : chain.join(' < '));
  }

  #entries({ entries, skipped }: Catalog, wide: boolean): void {
    const { columns } = this.#out;
    if (entries.length > 0) {
      const titles = wide ? [...ENTRY_COLUMNS, 'signer', 'url'] : ENTRY_COLUMNS;
      const rows = entries.map((entry) =>
        wide ? [...rowOf(entry), cell(entry.signer?.name), cell(entry.urls[0])] : rowOf(entry),
      );
      this.#out.line();
      for (const line of renderTable(titles, rows, wide ? {} : { columns })) this.#out.line(line);
    }
    if (skipped.length > 0) {
      this.#out.line();
      const rows = skipped.map(({ id, reason, message }) => [cell(id), reason, cell(message)]);
      for (const line of renderTable(['not usable', 'reason', 'message'], rows, { columns })) this.#out.line(line);
    }
  }

  #distance(date: string): string {
    const ms = Date.parse(date) - this.#at;
    return ms < 0 ? `${formatAge(-ms)} ago` : `in ${formatAge(ms)}`;
  }

  /** `painted` text is printable already. */
  #line(title: string, value: string | undefined, painted = false): void {
    if (value === undefined || value === '') return;
    const head = title === '' ? '' : `${title}:`;
    this.#out.line(`${head.padEnd(WIDTH)} ${painted ? value : printable(value)}`);
  }
}

/** Certificates know no milliseconds, and people need none. */
function seconds(date: string | undefined): string {
  return date?.replace(/\.\d+Z$/, 'Z') ?? '';
}

function rowOf({
  id,
  version,
  arch,
  os,
  format,
  compression,
  size,
  checksums,
  contentChecksums,
  title,
}: Entry): string[] {
  const [[algorithm, hex] = []] = Object.entries({ ...contentChecksums, ...checksums });
  const packing = compression === undefined || compression === 'None' ? '' : `.${compression}`;
  return [
    cell(id),
    cell(version),
    cell(arch),
    cell([os.distro ?? os.name, os.version].filter(Boolean).join(' ')),
    `${format ?? ''}${packing}`,
    size === undefined ? '' : formatBytes(size),
    hex === undefined ? '' : `${algorithm}:${hex.slice(0, 12)}`,
    cell(title),
  ];
}
