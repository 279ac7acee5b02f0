import { execFileSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { hepixList, inDays } from '../../support/hepix.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';
import { PUBLISHED } from '../../support/published.ts';
import { ENDORSERS, makePublisher, PROGRAMS, type Publisher } from '../catalogs/publisher.ts';
import { imageproxy, Program } from './program.ts';

const there = PROGRAMS.every((program) => {
  try {
    execFileSync('which', [program], { stdio: 'pipe' });
    return true;
  } catch {
    return false;
  }
});

const ID = '76fdee70-8119-4d33-8aaa-3c57e1c60df1';
const IMAGE = {
  id: '5b7b1d5e-2c5c-4a38-a47c-15fa12ad35f0',
  title: 'Noble',
  url: 'https://images.example.org/noble.qcow2',
  bytes: Buffer.from('noble'),
};
const LIST = hepixList({ id: ID, version: '7', endorser: ENDORSERS.alice, images: [IMAGE] });

describe.skipIf(!there)('imageproxy inspect', () => {
  let publisher: Publisher;
  let folder: string;
  let origin: Origin;

  beforeAll(async () => {
    publisher = makePublisher();
    folder = mkdtempSync(join(tmpdir(), 'inspect-'));
    origin = await startOrigin();
  });
  afterAll(async () => {
    await Program.killAll();
    await origin.close();
    publisher.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const file = (name: string, content: string | Uint8Array): string => {
    const path = join(folder, name);
    writeFileSync(path, content);
    return path;
  };
  const keyring = (): string => file('keyring.asc', publisher.openpgp('alice').keyring);
  const ca = (): string => join(publisher.folder, 'ca.pem');
  const faultsOf = (out: string): string[] =>
    (JSON.parse(out) as { faults: { reason: string }[] }).faults.map(({ reason }) => reason);

  test('shows a list that is valid, who signed it and what is in it, and ends with 0', async () => {
    const { code, out, err } = await imageproxy(['inspect', file('image.list', publisher.smime(LIST)), '--ca', ca()]);
    expect(err).toBe('');
    expect(code).toBe(0);
    expect(out).toMatch(/Format: +HEPiX/);
    expect(out).toMatch(new RegExp(`Identity: +${ID}`));
    expect(out).toMatch(/Signed by: +\/DC=org\/DC=example\/CN=alice/);
    expect(out).toMatch(/chain: +\/DC=org\/DC=example\/CN=alice < \/DC=org\/DC=example\/CN=Example CA/);
    expect(out).toContain(IMAGE.id);
    expect(out).toMatch(/Verdict: +valid and trusted\n$/);
  });

  test('says whom one would have to trust where nobody is named', async () => {
    const { code, out } = await imageproxy(['inspect', file('image.list', publisher.smime(LIST))]);
    expect(code).toBe(1);
    expect(out).toMatch(/Says signed by: +\/DC=org\/DC=example\/CN=alice/);
    expect(out).toMatch(/Verdict: +would be refused\n +UntrustedSigner: /);
    expect(out).toContain(IMAGE.id);
  });

  test('takes no other endorser of the same authority for the one who is trusted', async () => {
    const { subject, issuer } = ENDORSERS.bob;
    const words = ['--ca', ca(), '--endorser', subject, '--endorser-issuer', issuer, '-o', 'json'];
    const { code, out, err } = await imageproxy(['inspect', file('image.list', publisher.smime(LIST)), ...words]);
    expect(code).toBe(1);
    expect(faultsOf(out)).toEqual(['EndorserNotTrusted']);
    expect(err).toMatch(/^imageproxy: EndorserNotTrusted: /);
  });

  test('tells every reason, not only the first: nobody trusted, and the list is past its date', async () => {
    const old = hepixList({
      id: ID,
      version: '6',
      endorser: ENDORSERS.alice,
      created: inDays(-60),
      expires: inDays(-30),
      images: [IMAGE],
    });
    const path = file('old.list', publisher.smime(old));
    expect(faultsOf((await imageproxy(['inspect', path, '-o', 'json'])).out)).toEqual([
      'UntrustedSigner',
      'ListExpired',
    ]);
    const then = await imageproxy(['inspect', path, '--ca', ca(), '-o', 'json']);
    expect(faultsOf(then.out)).toEqual(['ListExpired']);
  });

  test('judges a list at another time than now', async () => {
    const path = file('image.list', publisher.smime(LIST));
    const late = await imageproxy(['inspect', path, '--ca', ca(), '--at', inDays(60), '-o', 'json']);
    expect(faultsOf(late.out)).toEqual(['ListExpired']);
    const wrong = await imageproxy(['inspect', path, '--at', 'yesterday']);
    expect(wrong.code).toBe(2);
    expect(wrong.err).toContain('2013-10-20T00:00:00Z');
  });

  test('shows what a tampered list says, and that nobody has said it', async () => {
    const signed = publisher.smime(LIST).toString('latin1');
    const detached = execFileSync(
      'openssl',
      ['smime', '-sign', '-md', 'sha256', '-signer', 'alice.pem', '-inkey', 'alice.key'],
      { cwd: publisher.folder, input: LIST },
    ).toString('latin1');
    expect(signed).not.toBe(detached);
    const path = file('tampered.list', Buffer.from(detached.replace('Noble', 'Nobel'), 'latin1'));
    const { code, out } = await imageproxy(['inspect', path, '--ca', ca()]);
    expect(code).toBe(1);
    expect(out).toContain('Nobel');
    expect(out).toMatch(/Says signed by: /);
    expect(out).toMatch(/Verdict: +would be refused\n +SignatureInvalid: .*changed after it was signed/);
  });

  test('takes an unsigned list only when it is told to', async () => {
    const path = file('plain.json', LIST);
    const refused = await imageproxy(['inspect', path, '-o', 'json']);
    expect([refused.code, faultsOf(refused.out)]).toEqual([1, ['SignatureMissing']]);
    expect((await imageproxy(['inspect', path, '--unsigned'])).code).toBe(0);
  });

  test('reads checksums over HTTP, with the signature that lies beside them', async () => {
    const sums = `${'a'.repeat(64)} *noble.img\n`;
    origin.route('/SHA256SUMS', { body: Buffer.from(sums) });
    origin.route('/SHA256SUMS.gpg', { body: publisher.detached(sums) });
    const url = `${origin.url}/SHA256SUMS`;
    const forbidden = await imageproxy(['inspect', url]);
    expect(forbidden.code).toBe(1);
    expect(forbidden.err).toContain('--allow-network');
    const allowed = ['inspect', url, '--allow-network', '127.0.0.0/8'];
    const stranger = await imageproxy(allowed);
    expect(stranger.out).toMatch(/Says signed by: +OpenPGP key [0-9A-F]{16}/);
    expect(stranger.out).toMatch(/UntrustedSigner: /);
    const { code, out } = await imageproxy([...allowed, '--keyring', keyring()]);
    expect(code).toBe(0);
    expect(out).toMatch(/Signed by: .*alice@example\.org/);
    expect(out).toContain('noble.img');
  });

  test('reads a private list with the Secret that a subscription would name, and sends it nowhere else', async () => {
    origin.route('/private.list', ({ headers }) =>
      headers.authorization === `Basic ${Buffer.from('token:x-oauth-basic').toString('base64')}`
        ? { body: publisher.smime(LIST) }
        : { status: 401, body: Buffer.from('who are you?') },
    );
    const url = `${origin.url}/private.list`;
    const secret = (hosts: string): string => {
      const path = file(
        'secret.yaml',
        `apiVersion: v1\nkind: Secret\nmetadata:\n  name: lists\n  annotations: { imageproxy.dev/hosts: ${hosts} }\nstringData: { username: token, password: x-oauth-basic }\n`,
      );
      chmodSync(path, 0o600);
      return path;
    };
    const words = ['inspect', url, '--ca', ca(), '--allow-network', '127.0.0.0/8'];
    expect((await imageproxy(words)).err).toContain('401');
    const elsewhere = await imageproxy([...words, '--secret', secret('example.org')]);
    expect(elsewhere.err).toContain('may not be sent to 127.0.0.1');
    expect((await imageproxy([...words, '--secret', secret('127.0.0.1')])).code).toBe(0);
  });

  test('reads a list of our own with a minisign signature beside it, by the key or the file of the key', async () => {
    const list = `apiVersion: imageproxy.dev/v1beta1
kind: ImageList
metadata: { id: example.org/images, version: "3", createdAt: ${inDays(-1)}, expiresAt: ${inDays(30)} }
images:
  - id: noble
    urls: [https://images.example.org/noble.img]
    checksums: { sha256: ${'b'.repeat(64)} }
`;
    publisher.write('list.yaml', list);
    publisher.run('minisign -S -W -s minisign.key -m list.yaml');
    const path = join(publisher.folder, 'list.yaml');
    const [key = ''] = publisher.minisign.publicKeys;
    for (const word of [key, join(publisher.folder, 'minisign.pub')]) {
      const { code, out } = await imageproxy(['inspect', path, '--minisign', word]);
      expect(out).toMatch(/Signed by: +minisign key/);
      expect(code).toBe(0);
    }
    expect((await imageproxy(['inspect', path])).out).toMatch(/Says signed by: +minisign key/);
  });

  test('names what does not go together on the command line, and what is not there', async () => {
    const path = file('plain.json', LIST);
    const both = await imageproxy(['inspect', path, '--ca', ca(), '--keyring', keyring()]);
    expect([both.code, both.err]).toEqual([2, expect.stringContaining('--ca and --keyring')]);
    const half = await imageproxy(['inspect', path, '--ca', ca(), '--endorser', '/CN=x']);
    expect([half.code, half.err]).toEqual([2, expect.stringContaining('give both')]);
    expect((await imageproxy(['inspect', join(folder, 'nothing')])).code).toBe(3);
    expect((await imageproxy(['inspect', path, '--ca', join(folder, 'nothing')])).code).toBe(3);
  });

  test('says that a file is no list', async () => {
    const { code, out } = await imageproxy(['inspect', file('notes.txt', 'nothing that anybody publishes\n')]);
    expect(code).toBe(1);
    expect(out).toMatch(/Format: +unknown/);
    expect(out).toMatch(/InvalidList: .*no known kind/);
  });
});

// Where there are none, there is no such test either: a skipped one would be one that CI misses.
if (PUBLISHED !== undefined) publishedLists(PUBLISHED);

function publishedLists(folder: string): void {
  describe('imageproxy inspect, on lists that others have published', () => {
    const lists = join(folder, 'hepix/lists');
    const anchors = ['--ca', join(folder, 'hepix/trust-anchors')];

    test('a production list of 2013 is valid at its own time, and tells what is in it', async () => {
      const path = join(lists, 'cern-cernvm-2013-10-13.image.list');
      const words = ['inspect', path, ...anchors, '--at', '2013-10-14T00:00:00Z', '-o', 'json'];
      const { code, out } = await imageproxy([...words, '--allow-sha1']);
      expect(code).toBe(0);
      const { entries, skipped } = JSON.parse(out) as { entries: unknown[]; skipped: unknown[] };
      expect(entries.length + skipped.length).toBe(30);
      expect((await imageproxy(words)).err).toMatch(/^imageproxy: WeakSignature: /);
    });

    test('a list of before the standard still tells who signed it', async () => {
      const path = join(lists, 'gridka-2011-02-15-expired-signer.image.list');
      const words = ['inspect', path, ...anchors, '--allow-sha1', '-o', 'json', '--at'];
      const expired = JSON.parse((await imageproxy([...words, '2011-02-15'])).out) as { faults: { reason: string }[] };
      expect(expired.faults.map(({ reason }) => reason)).toEqual(['CertificateExpired', 'InvalidList']);
      const good = JSON.parse((await imageproxy([...words, '2011-01-20'])).out) as { faults: { reason: string }[] };
      expect(good.faults.map(({ reason }) => reason)).toEqual(['InvalidList']);
    });
  });
}
