import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Output } from '../../../src/cli/output.ts';
import { validate, type ValidateOptions } from '../../../src/cli/validate.ts';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'imageproxy-validate-'));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

const site = (more = '', path = '/srv/images'): string => `apiVersion: imageproxy.dev/v1beta1
kind: ImageSite
metadata:
  name: shelf${more}
spec: { directory: { path: ${path} } }
`;

async function judge(folder: string, options: ValidateOptions = {}) {
  const told = { out: '', err: '' };
  const output = (name: keyof typeof told) => new Output({ write: (text) => void (told[name] += text) }, { env: {} });
  const { signal } = new AbortController();
  const context = { out: output('out'), err: output('err'), env: {}, now: Date.now, signal };
  return { code: await validate([folder], options, context), ...told };
}

describe('validate, as run does,', () => {
  it('reads the folders that links lead to', async () => {
    const [folder, elsewhere] = [join(root, 'manifests'), join(root, 'elsewhere')];
    for (const path of [folder, elsewhere]) mkdirSync(path);
    writeFileSync(join(elsewhere, 'shelf.yaml'), site('', 'here'));
    symlinkSync(elsewhere, join(folder, 'link'));
    expect(await judge(folder)).toMatchObject({
      code: 1,
      out: expect.stringContaining(`${join(folder, 'link', 'shelf.yaml')}:5: error: document 1: spec.directory.path: `),
    });
  });

  it.each([
    ['right', site()],
    ['wrong', site('', 'here')],
  ])('takes the first by path of two files of an object, be it %s', async (_, first) => {
    mkdirSync(join(root, 'a'));
    writeFileSync(join(root, 'a.yaml'), first);
    writeFileSync(join(root, 'a', 'x.yaml'), site());
    expect(await judge(root)).toMatchObject({
      code: 1,
      out: expect.stringContaining(
        `${join(root, 'a', 'x.yaml')}:1: error: document 1: metadata.name: ImageSite shelf is also in ${join(root, 'a.yaml')}, document 1; that one counts`,
      ),
      err: expect.stringMatching(/^2 files, [01] objects?: /),
    });
  });

  it('warns of fields that metadata does not have', async () => {
    const file = join(root, 'a.yaml');
    writeFileSync(file, site('\n  lables: { region: east }\n  ownerReferences:\n  uid: 7'));
    expect(await judge(root, { strict: true })).toEqual({
      code: 1,
      out: `${file}:5: warning: document 1: metadata.lables: unknown field, it is ignored\n`,
      err: '1 file, 1 object: 0 errors, 1 warning\n',
    });
  });
});
