import { ALGORITHMS, type Digests, provable, STRONG, sameBytes } from '../api/digest.ts';
import { Failure } from '../api/failure.ts';
import type { Compression, Format } from '../images/format.ts';
import type { BlobFacts, Scope } from './cache.ts';
import type { Database, Row } from './database.ts';
import type { FileState } from './files.ts';
import type { Resident } from './residents.ts';

/** The rows of the index that are about blobs: facts, digests, scopes, transforms. Nothing here touches a file. */
export class BlobIndex {
  readonly #db: Database;

  constructor(db: Database) {
    this.#db = db;
  }

  /** Every row, the least recently used first. */
  residents(): Resident[] {
    return this.#db.all('select sha256, allocated, stamp, used_at from blobs order by used_at').map((row) => ({
      sha256: String(row['sha256']),
      allocated: Number(row['allocated']),
      stamp: String(row['stamp']),
      usedAt: Number(row['used_at']),
      persistedUse: Number(row['used_at']),
    }));
  }

  facts(sha256: string): BlobFacts | undefined {
    const row = this.#db.get(
      'select size, compression, format, virtual_size, source, fetched_at from blobs where sha256 = ?',
      sha256,
    );
    return row === undefined ? undefined : factsOf(row, this.#digests(sha256));
  }

  /** A row that an eviction could not take away any more (full disk, crash) is written over. */
  insert(sha256: string, facts: BlobFacts, state: FileState, usedAt: number, provenAt: number): void {
    this.#db.run('delete from blobs where sha256 = ?', sha256);
    this.#db.run(
      `insert into blobs
        (sha256, size, allocated, stamp, compression, format, virtual_size, source, fetched_at, used_at, proven_at)
        values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      sha256,
      state.size,
      state.allocated,
      state.stamp,
      facts.compression ?? null,
      facts.format ?? null,
      facts.virtualSize ?? null,
      facts.source ?? null,
      facts.fetchedAt,
      usedAt,
      provenAt,
    );
    this.addDigests(sha256, { ...facts.digests, sha256 });
  }

  /** What is given replaces what was known; digests are added. */
  annotate(sha256: string, facts: Partial<BlobFacts>): void {
    this.#db.run(
      `update blobs set
        compression = coalesce(?, compression), format = coalesce(?, format),
        virtual_size = coalesce(?, virtual_size), source = coalesce(?, source)
        where sha256 = ?`,
      facts.compression ?? null,
      facts.format ?? null,
      facts.virtualSize ?? null,
      facts.source ?? null,
      sha256,
    );
    this.addDigests(sha256, facts.digests ?? {});
  }

  /** @throws Failure InternalError for a digest that contradicts a known one: the same bytes have one digest of each kind. */
  addDigests(sha256: string, digests: Digests): void {
    const known = this.#digests(sha256);
    for (const algorithm of ALGORITHMS) {
      const hex = digests[algorithm]?.toLowerCase();
      if (hex === undefined || known[algorithm] === hex) continue;
      if (known[algorithm] !== undefined) {
        throw new Failure(
          'InternalError',
          `blob ${sha256}: ${algorithm} is ${known[algorithm]}, and cannot be ${hex} as well`,
        );
      }
      this.#db.run('insert into digests (algorithm, hex, sha256) values (?, ?, ?)', algorithm, hex, sha256);
    }
  }

  remove(sha256: string): void {
    this.#db.run('delete from blobs where sha256 = ?', sha256);
  }

  /**
   * Blobs that these digests name and this scope may use. Where all digests of the query are weak, two different blobs with the
   * same one are a made collision: neither is given, and the caller fetches what it was promised.
   */
  find(query: Digests, scope: Scope): string | undefined {
    const strong = provable(query);
    const names = strong ? STRONG : ALGORITHMS;
    const found = new Set<string>();
    for (const algorithm of names) {
      const hex = query[algorithm]?.toLowerCase();
      if (hex === undefined) continue;
      for (const row of this.#db.all('select sha256 from digests where algorithm = ? and hex = ?', algorithm, hex)) {
        const sha256 = String(row['sha256']);
        const known = this.#digests(sha256);
        if ((strong ? sameBytes(query, known) : agrees(query, known)) && this.#allows(sha256, scope)) found.add(sha256);
      }
    }
    const [only, ...others] = found;
    return others.length === 0 ? only : undefined;
  }

  grant(sha256: string, scope: Scope): void {
    const [namespace, credentials] = scopeColumns(scope);
    // Who may use a blob may use what was made of it, and of that.
    this.#db.run(
      `with recursive made (sha256) as (
         select ?1 union select transforms.result from transforms join made on transforms.source = made.sha256)
       insert or ignore into scopes (sha256, namespace, credentials)
         select made.sha256, ?2, ?3 from made join blobs using (sha256)`,
      sha256,
      namespace,
      credentials,
    );
  }

  scopes(sha256: string): Scope[] {
    return this.#db
      .all('select namespace, credentials from scopes where sha256 = ?', sha256)
      .map((row) =>
        row['namespace'] === ''
          ? 'public'
          : { namespace: String(row['namespace']), credentials: String(row['credentials']) },
      );
  }

  transform(source: string, transformId: string): string | undefined {
    const row = this.#db.get('select result from transforms where source = ? and transform = ?', source, transformId);
    return row === undefined ? undefined : String(row['result']);
  }

  /** These blobs and all that was made of them, and of that. */
  withResults(sources: readonly string[]): string[] {
    return this.#db
      .all(
        `with recursive made (sha256) as (
           select value from json_each(?) union
           select transforms.result from transforms join made on transforms.source = made.sha256)
         select sha256 from made`,
        JSON.stringify(sources),
      )
      .map((row) => String(row['sha256']));
  }

  recordTransform(source: string, transformId: string, result: string): void {
    this.#db.run(
      'insert or replace into transforms (source, transform, result) values (?, ?, ?)',
      source,
      transformId,
      result,
    );
  }

  recordUse(sha256: string, usedAt: number): void {
    this.#db.run('update blobs set used_at = ? where sha256 = ?', usedAt, sha256);
  }

  recordProof(sha256: string, provenAt: number): void {
    this.#db.run('update blobs set proven_at = ? where sha256 = ?', provenAt, sha256);
  }

  /** The blob whose last proof is the oldest, if that is before `before`. */
  leastProven(before: number): string | undefined {
    const row = this.#db.get('select sha256 from blobs where proven_at < ? order by proven_at limit 1', before);
    return row === undefined ? undefined : String(row['sha256']);
  }

  #allows(sha256: string, scope: Scope): boolean {
    const [namespace, credentials] = scopeColumns(scope);
    return (
      this.#db.get(
        `select 1 from scopes where sha256 = ?
          and ((namespace = '' and credentials = '') or (namespace = ? and credentials = ?))`,
        sha256,
        namespace,
        credentials,
      ) !== undefined
    );
  }

  #digests(sha256: string): Digests {
    const digests: Digests = {};
    for (const row of this.#db.all('select algorithm, hex from digests where sha256 = ?', sha256)) {
      const algorithm = ALGORITHMS.find((name) => name === row['algorithm']);
      if (algorithm !== undefined) digests[algorithm] = String(row['hex']);
    }
    return digests;
  }
}

function scopeColumns(scope: Scope): [namespace: string, credentials: string] {
  if (scope === 'public') return ['', ''];
  // An empty one would be taken for everybody.
  if (scope.namespace === '' || scope.credentials === '') {
    throw new Failure('InternalError', 'a scope that is not public needs a namespace and a hash of its credentials');
  }
  return [scope.namespace, scope.credentials];
}

/** For sets without a strong digest: at least one agrees, none disagrees. */
function agrees(query: Digests, known: Digests): boolean {
  const shared = ALGORITHMS.filter((name) => query[name] !== undefined && known[name] !== undefined);
  return shared.length > 0 && shared.every((name) => query[name]?.toLowerCase() === known[name]);
}

function factsOf(row: Row, digests: Digests): BlobFacts {
  const facts: BlobFacts = { digests, size: Number(row['size']), fetchedAt: String(row['fetched_at']) };
  if (row['compression'] !== null) facts.compression = row['compression'] as Compression;
  if (row['format'] !== null) facts.format = row['format'] as Format;
  if (row['virtual_size'] !== null) facts.virtualSize = Number(row['virtual_size']);
  if (row['source'] !== null) facts.source = String(row['source']);
  return facts;
}
