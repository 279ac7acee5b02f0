import { Failure } from '../api/failure.ts';
import { printable } from '../api/printable.ts';
import { type Certificate, stemOf, titleOf } from './certificate.ts';
import { isNamed } from './name-forms.ts';
import { oneLine } from './name.ts';
import { globPattern, type Pattern, regexPattern, UnreadablePattern } from './pattern.ts';
import type { Anchors, NamedFile, Rule } from './trust.ts';

/**
 * What an authority may sign, beyond what its own certificate says, as IGTF distributes it in two forms: Globus' EACL
 * (`.signing_policy`) and RPDNC namespaces (`.namespaces`, GFD.189). Each link of the chain is judged: who issued whom. Where both
 * forms speak of an authority both must permit.
 */
export function checkSigningPolicies(chain: readonly Certificate[], anchors: Anchors, rule: Rule): void {
  if (rule === 'Ignore') return;
  const policies = policiesIn(anchors);
  for (const [index, subject] of chain.slice(0, -1).entries()) {
    const issuer = chain[index + 1];
    if (issuer !== undefined) checkLink(subject, issuer, policies, rule);
  }
}

/** A directory of IGTF has some hundred patterns: compiled once, however many documents are judged by them. */
const READ = new WeakMap<Anchors, readonly Statement[]>();

function policiesIn(anchors: Anchors): readonly Statement[] {
  const known = READ.get(anchors);
  if (known !== undefined) return known;
  const read = anchors.policies.flatMap(readPolicy);
  READ.set(anchors, read);
  return read;
}

function checkLink(subject: Certificate, issuer: Certificate, policies: readonly Statement[], rule: Rule): void {
  const spoken = policies.filter((each) => speaksOf(each, issuer));
  if (spoken.length === 0 && rule === 'Require') {
    throw new Failure(
      'SigningPolicyMissing',
      `no .signing_policy or .namespaces file speaks of ${titleOf(issuer)}: add the one that IGTF distributes, or set signingPolicy: IfPresent`,
    );
  }
  for (const form of ['signing_policy', 'namespaces'] as const) {
    const statements = spoken.filter((each) => each.form === form);
    if (statements.length > 0 && !permits(statements, subject)) {
      const file = statements[0]?.file ?? form;
      throw new Failure(
        'SigningPolicyViolation',
        `${titleOf(issuer)} may not sign for ${titleOf(subject)}: ${printable(file, 80)} does not permit it`,
      );
    }
  }
}

/** One authority, and subjects that it may or may not sign for. */
interface Statement {
  readonly form: 'signing_policy' | 'namespaces';
  readonly file: string;
  /** As written; `SELF` is the authority whose file has the same stem. */
  readonly issuer: string;
  readonly permit: boolean;
  readonly subjects: readonly Pattern[];
}

function speaksOf({ issuer, file }: Statement, authority: Certificate): boolean {
  return issuer === 'SELF' ? authority.stems.includes(stemOf(file)) : isNamed(issuer, authority.subject);
}

/** A denial wins over any permission. */
function permits(statements: readonly Statement[], { subject }: Certificate): boolean {
  const text = oneLine(subject);
  const covers = (permit: boolean) =>
    statements.some((each) => each.permit === permit && each.subjects.some((matches) => matches(text)));
  return covers(true) && !covers(false);
}

/** Reads either form; a file of any other name says nothing. */
export function readPolicy(file: NamedFile): Statement[] {
  const text = Buffer.from(file.bytes).toString('utf8');
  if (file.bytes.length > MAX_BYTES) return [];
  return file.name.endsWith('.namespaces') ? readNamespaces(text, file.name) : readEacl(text, file.name);
}

const MAX_BYTES = 2 ** 20;

/**
 * `access_id_CA X509 'DN'`, `pos_rights globus CA:sign` (or neg_rights), `cond_subjects globus '"glob" "glob"'`; a `#` begins a comment.
 * https://www.globus.org/ftppub/gsi/signing_policy: conditions belong to the rights before them, rights to the authority before them.
 */
function readEacl(text: string, file: string): Statement[] {
  const found: Statement[] = [];
  let issuer: string | undefined;
  let permit: boolean | undefined;
  for (const line of text.split(/\r?\n|\r/)) {
    const match = /^\s*(?<key>access_id_\w+|pos_rights|neg_rights|cond_subjects)\s+(?<kind>\S+)\s+(?<value>.*)$/i.exec(
      line,
    );
    const { key = '', kind = '', value = '' } = match?.groups ?? {};
    switch (key.toLowerCase()) {
      case 'access_id_ca':
        issuer = /^x509$/i.test(kind) ? unquoted(value) : undefined;
        permit = undefined;
        break;
      case 'pos_rights':
      case 'neg_rights':
        permit = /^CA:sign\b/i.test(value) ? key.toLowerCase() === 'pos_rights' : undefined;
        break;
      case 'cond_subjects':
        if (issuer !== undefined && permit !== undefined) {
          const subjects = quotedParts(value).map((glob) => readable(globPattern, glob, permit === true));
          found.push({ form: 'signing_policy', file, issuer, permit, subjects });
        }
        break;
      default:
        if (/^access_id_/i.test(key)) issuer = undefined;
    }
  }
  return found;
}

/** `'…'` or `"…"`, else up to the comment. */
function unquoted(value: string): string {
  const {
    single,
    double,
    bare = '',
  } = /^\s*(?:'(?<single>[^']*)'|"(?<double>[^"]*)"|(?<bare>[^#]*))/.exec(value)?.groups ?? {};
  return single ?? double ?? bare.trim();
}

/** `'"a" "b"'`, `"a"`, `'a'`. */
function quotedParts(value: string): string[] {
  const whole = unquoted(value.trim().startsWith("'") ? value : `'${value}'`);
  const parts = Array.from(whole.matchAll(/"([^"]*)"/g), (match) => match[1] ?? '');
  return parts.length > 0 ? parts : [whole.trim()];
}

/** `TO Issuer "DN"|SELF [\] PERMIT|DENY Subject "regex"`; a backslash at the end of a line continues it; `#` begins a comment line. */
function readNamespaces(text: string, file: string): Statement[] {
  const found: Statement[] = [];
  const lines = text
    .split(/\r?\n|\r/)
    .filter((line) => !/^\s*#/.test(line))
    .join('\n')
    .replaceAll(/\\[ \t]*\n/g, ' ');
  for (const line of lines.split('\n')) {
    const { issuer, verb, regex } =
      /^\s*TO\s+Issuer\s+(?:"(?<issuer>[^"]*)"|SELF)\s+(?<verb>PERMIT|DENY)\s+Subject\s+"(?<regex>[^"]*)"/i.exec(line)
        ?.groups ?? {};
    if (verb === undefined || regex === undefined) continue;
    const permit = /^PERMIT$/i.test(verb);
    found.push({
      form: 'namespaces',
      file,
      issuer: issuer ?? 'SELF',
      permit,
      subjects: [readable(regexPattern, regex, permit)],
    });
  }
  return found;
}

/** A pattern that cannot be read permits nothing and denies everything. */
function readable(read: (pattern: string) => Pattern, pattern: string, permit: boolean): Pattern {
  try {
    return read(canonicalTypes(pattern));
  } catch (error) {
    if (!(error instanceof UnreadablePattern)) throw error;
    return () => !permit;
  }
}

/** Policies write `/Email=`, `/E=` and `/USERID=` where we write `/emailAddress=` and `/UID=`. */
function canonicalTypes(pattern: string): string {
  return pattern
    .replaceAll(/\/(?:E|Email|EmailAddress)=/gi, '/emailAddress=')
    .replaceAll(/\/(?:USERID|UID)=/gi, '/UID=');
}
