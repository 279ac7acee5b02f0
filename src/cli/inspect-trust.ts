import { readdir, readFile, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { anchorsOf } from '../trust/index.ts';
import type { NamedFile, Rule, Trust } from '../trust/trust.ts';
import { CommandError, EXIT } from './exit.ts';

/** Whose word is taken, in the words of the command line. */
export interface TrustOptions {
  ca?: string[];
  endorser?: string;
  endorserIssuer?: string;
  crl?: Rule;
  signingPolicy?: Rule;
  keyring?: string[];
  minisign?: string[];
  unsigned?: boolean;
  allowSha1?: boolean;
}

/** Undefined when nobody is named. @throws CommandError for options that do not go together, and files that cannot be read */
export async function trustOf(options: TrustOptions): Promise<Trust | undefined> {
  const { ca, keyring, minisign, unsigned, allowSha1 = false } = options;
  const kinds = [ca && '--ca', keyring && '--keyring', minisign && '--minisign', unsigned && '--unsigned'].filter(
    Boolean,
  );
  if (kinds.length > 1)
    throw wrong(`${kinds.join(' and ')}: a list is judged by one kind of signature; give one of them`);
  const x509Only = (['endorser', 'endorserIssuer', 'crl', 'signingPolicy'] as const).filter((name) => options[name]);
  if (ca === undefined && x509Only.length > 0)
    throw wrong('--endorser, --endorser-issuer, --crl and --signing-policy judge certificates: give --ca FILE|DIR too');
  if (ca !== undefined) return x509(ca, options);
  if (keyring !== undefined) {
    const files = (await Promise.all(keyring.map((path) => filesAt('--keyring', path)))).flat();
    return { kind: 'openpgp', keyring: Buffer.concat(files.map(({ bytes }) => bytes)), allowSha1 };
  }
  if (minisign !== undefined) return { kind: 'minisign', publicKeys: await Promise.all(minisign.map(minisignKey)) };
  return unsigned === true ? { kind: 'unsigned' } : undefined;
}

async function x509(paths: readonly string[], options: TrustOptions): Promise<Trust> {
  const { endorser, endorserIssuer, crl = 'IfPresent', signingPolicy = 'IfPresent', allowSha1 = false } = options;
  if ((endorser === undefined) !== (endorserIssuer === undefined))
    throw wrong('--endorser and --endorser-issuer: another authority may issue the same name, so give both');
  const files = (await Promise.all(paths.map((path) => filesAt('--ca', path)))).flat();
  const anchors = anchorsOf(files);
  if (anchors.certificates.length === 0) throw wrong(`--ca: there is no certificate in ${paths.join(', ')}`);
  const endorsers =
    endorser === undefined || endorserIssuer === undefined
      ? undefined
      : [{ subject: endorser, issuer: endorserIssuer }];
  return { kind: 'x509', endorsers, anchors, crl, signingPolicy, allowSha1 };
}

/** A file, or those of a folder such as /etc/grid-security/certificates. */
async function filesAt(option: string, path: string): Promise<NamedFile[]> {
  try {
    if (!(await stat(path)).isDirectory()) return [{ name: basename(path), bytes: await readFile(path) }];
    const entries = await readdir(path, { withFileTypes: true });
    const files = entries.filter((entry) => entry.isFile() || entry.isSymbolicLink());
    return await Promise.all(files.map(async ({ name }) => ({ name, bytes: await readFile(join(path, name)) })));
  } catch (error) {
    throw new CommandError(
      EXIT.notFound,
      `${option}: ${path} cannot be read (${(error as NodeJS.ErrnoException).code})`,
    );
  }
}

/** The key itself, or the file that `minisign -G` writes it into. */
async function minisignKey(word: string): Promise<string> {
  if (/^RW[A-Za-z0-9+/]{54}$/.test(word)) return word;
  const [file] = await filesAt('--minisign', word);
  const key = Buffer.from(file?.bytes ?? [])
    .toString('utf8')
    .split(/\r?\n/)
    .find((line) => /^RW[A-Za-z0-9+/]{54}$/.test(line));
  if (key === undefined) throw wrong(`--minisign: ${word} is no public key of minisign, nor a file with one`);
  return key;
}

function wrong(message: string): CommandError {
  return new CommandError(EXIT.usage, message);
}
