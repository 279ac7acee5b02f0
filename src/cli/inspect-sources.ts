import { readFile, stat } from 'node:fs/promises';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { Failure } from '../api/failure.ts';
import type { FetchDocument } from '../catalogs/catalog.ts';
import { permitHost, readCredentials } from '../reconcilers/vmimage/credentials.ts';
import { fetchDocument, sourceBeside } from '../sources/http/document.ts';
import type { HttpSourceSpec } from '../sources/source.ts';
import type { Secret, Store } from '../stores/store.ts';
import { CommandError, EXIT } from './exit.ts';
import { readManifest } from './manifest-files.ts';

/** Where a list is, and how its documents are brought. */
export interface ListPlace {
  readonly url: string;
  readonly fetch: FetchDocument;
}

const TIMEOUTS = { connectMs: 15_000, headersMs: 60_000, stallMs: 60_000 };

export interface ListPlaceOptions {
  allowNetwork?: string[];
  secret?: string;
  tlsCa?: string;
  url?: string;
}

/**
 * A list on the network or in a file. Beside a file lie its signature and its parts, as they do beside the published list.
 * @throws CommandError for a file that is not there or a Secret that cannot be used
 */
export async function placeOf(word: string, options: ListPlaceOptions, signal: AbortSignal): Promise<ListPlace> {
  if (/^https?:\/\//i.test(word)) return remote(word, options, signal);
  const file = resolve(word);
  if ((await stat(file).catch(() => undefined))?.isFile() !== true)
    throw new CommandError(EXIT.notFound, `there is no file ${word}; a URL begins with http:// or https://`);
  return local(file, options.url ?? `http://localhost/${encodeURIComponent(basename(file))}`);
}

async function remote(url: string, options: ListPlaceOptions, signal: AbortSignal): Promise<ListPlace> {
  const { allowNetwork = [], secret, tlsCa } = options;
  const credentials: Sent = secret === undefined ? {} : await credentialsOf(secret, url);
  const source: HttpSourceSpec = {
    kind: 'http',
    url,
    headers: {},
    ...credentials,
    ...(tlsCa === undefined ? {} : { tls: { ...credentials.tls, ca: await readText(tlsCa) } }),
    network: { allow: allowNetwork },
    timeouts: TIMEOUTS,
  };
  const known = new Map<string, Uint8Array>();
  const fetch: FetchDocument = async (each, { maxBytes, optional = false }) => {
    const before = known.get(each);
    if (before !== undefined) return before;
    try {
      const fetched = await fetchDocument(sourceBeside(source, each), { maxBytes }, signal);
      if (fetched !== undefined) known.set(each, fetched.bytes);
      return fetched?.bytes;
    } catch (error) {
      if (optional && error instanceof Failure && error.reason === 'NotFound') return undefined;
      throw error;
    }
  };
  return { url, fetch };
}

type Sent = Pick<HttpSourceSpec, 'authorization' | 'secretHeaders' | 'tls'>;

/** The Secret that a subscription would name, from its manifest. */
async function credentialsOf(path: string, url: string): Promise<Sent> {
  const { objects, problems } = await readManifest(path);
  const found = objects.find(({ kind }) => kind === 'Secret');
  const [problem] = problems.filter(({ severity }) => severity === 'error');
  if (found === undefined || problem !== undefined)
    throw new CommandError(EXIT.failed, `--secret ${path}: ${problem?.message ?? 'there is no v1 Secret in it'}`);
  const secret = { ...found.content, metadata: { ...found.key, annotations: found.annotations } } as unknown as Secret;
  const store = { secret: async () => secret } as unknown as Store;
  const credentials = await readCredentials('default', { secretRef: { name: found.key.name } }, '--secret', { store });
  permitHost(credentials, url, '--secret');
  const { authorization, secretHeaders, tls } = credentials;
  return {
    ...(authorization === undefined ? {} : { authorization }),
    ...(secretHeaders === undefined ? {} : { secretHeaders }),
    ...(tls === undefined ? {} : { tls }),
  };
}

async function readText(path: string): Promise<string> {
  return await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new CommandError(EXIT.notFound, `--tls-ca: ${path} cannot be read (${error.code})`);
  });
}

function local(file: string, url: string): ListPlace {
  const folder = dirname(file);
  const base = new URL('.', url).pathname;
  // A stream's paths begin at the folder above `streams/v1`.
  const root = /(?:^|\/)streams\/v1$/.test(folder) ? dirname(dirname(folder)) : folder;
  const fetch: FetchDocument = async (each, { maxBytes, optional = false }) => {
    const path = each === url ? file : join(folder, relative(base, decodeURIComponent(new URL(each).pathname)));
    const outside = relative(root, path).startsWith('..');
    const info = outside ? undefined : await stat(path).catch(() => undefined);
    if (info?.isFile() !== true) {
      if (optional) return undefined;
      throw new Failure(
        'NotFound',
        `the list refers to ${path}, ${outside ? 'which is outside of its folder' : 'which is not there'}`,
      );
    }
    if (info.size > maxBytes) throw new Failure('TooLarge', `${path} has ${info.size} bytes, of at most ${maxBytes}`);
    return await readFile(path);
  };
  return { url, fetch };
}
