import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Published } from './images.ts';
import { runTool, type ToolRun } from './tools.ts';

/** An image as a list names it. */
export interface Listed {
  id: string;
  title: string;
  version: string;
  image: Published;
}

const SUBJECT = '/DC=org/DC=example/CN=Alice';
const ISSUER = '/DC=org/DC=example/CN=Demo CA';
const LIST_ID = '76fdee70-8119-4d33-8aaa-3c57e1c60df1';
const DAY_MS = 86_400_000;

/** Who publishes a signed HEPiX list, with an authority and a certificate made on the spot by openssl. */
export class ListPublisher {
  readonly subject = SUBJECT;
  readonly issuer = ISSUER;
  readonly #openssl: string;
  readonly #keys: string;
  /** Folder of the origin. */
  readonly #published: string;
  readonly #run: ToolRun;

  private constructor(openssl: string, keys: string, published: string, signal: AbortSignal) {
    this.#openssl = openssl;
    this.#keys = keys;
    this.#published = published;
    this.#run = { cwd: keys, signal, timeoutMs: 30_000 };
  }

  static async make(openssl: string, keys: string, published: string, signal: AbortSignal): Promise<ListPublisher> {
    await mkdir(keys, { mode: 0o700 });
    const publisher = new ListPublisher(openssl, keys, published, signal);
    const key = ['-newkey', 'rsa:2048', '-nodes'];
    await publisher.#do('req', '-x509', ...key, '-keyout', 'ca.key', '-out', 'ca.pem', '-days', '30', '-subj', ISSUER);
    await publisher.#do('req', ...key, '-keyout', 'alice.key', '-out', 'alice.csr', '-subj', SUBJECT);
    await writeFile(join(keys, 'alice.ext'), 'keyUsage=digitalSignature\nextendedKeyUsage=emailProtection\n');
    const issue = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-set_serial', '2', '-days', '30', '-extfile', 'alice.ext'];
    await publisher.#do('x509', '-req', '-in', 'alice.csr', ...issue, '-out', 'alice.pem');
    return publisher;
  }

  ca(): Promise<string> {
    return readFile(join(this.#keys, 'ca.pem'), 'utf8');
  }

  /** Signs a version of the list and puts it where the origin serves it. */
  async publish(version: string, url: string, images: readonly Listed[]): Promise<void> {
    await writeFile(join(this.#keys, 'list.json'), JSON.stringify(await listOf(version, url, images), undefined, 2));
    const signed = join(this.#published, 'image.list');
    const signer = ['-signer', 'alice.pem', '-inkey', 'alice.key', '-md', 'sha256'];
    await this.#do('smime', '-sign', '-in', 'list.json', ...signer, '-out', signed);
  }

  /** Changes the published list as somebody would who has the server, and not Alice's key. */
  async tamper(from: string, to: string): Promise<void> {
    const path = join(this.#published, 'image.list');
    await writeFile(path, (await readFile(path, 'latin1')).replaceAll(from, to), 'latin1');
  }

  async #do(...args: string[]): Promise<void> {
    await runTool(this.#openssl, args, this.#run);
  }
}

async function listOf(version: string, url: string, images: readonly Listed[]): Promise<object> {
  const date = (days: number) => new Date(Date.now() + days * DAY_MS).toISOString().replace(/\.\d+Z$/, 'Z');
  return {
    'hv:imagelist': {
      'dc:identifier': LIST_ID,
      'dc:title': 'Images of the demo',
      'dc:description': 'Two images, or one',
      'dc:source': 'example.org',
      'dc:date:created': date(-1),
      'dc:date:expires': date(28),
      'hv:uri': `${url}/image.list`,
      'hv:version': version,
      'hv:endorser': {
        'hv:x509': { 'dc:creator': 'Alice', 'hv:dn': SUBJECT, 'hv:ca': ISSUER, 'hv:email': 'alice@example.org' },
      },
      'hv:images': await Promise.all(images.map(async (each) => ({ 'hv:image': await imageOf(url, each) }))),
    },
  };
}

async function imageOf(url: string, { id, title, version, image }: Listed): Promise<object> {
  const sha512 = createHash('sha512');
  for await (const chunk of createReadStream(image.path) as AsyncIterable<Buffer>) sha512.update(chunk);
  return {
    'dc:identifier': id,
    'dc:title': title,
    'dc:description': image.what,
    'hv:hypervisor': 'KVM',
    'hv:size': image.size,
    'hv:uri': `${url}/${image.file}`,
    'hv:version': version,
    'sl:arch': 'x86_64',
    'sl:checksum:sha512': sha512.digest('hex'),
    'sl:comments': '',
    'sl:os': 'Linux',
    'sl:osversion': version,
  };
}
