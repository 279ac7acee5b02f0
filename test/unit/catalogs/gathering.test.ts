import { describe, expect, it } from 'vitest';
import { Failure, type Reason } from '../../../src/api/failure.ts';
import type { Entry } from '../../../src/catalogs/catalog.ts';
import { Gathering } from '../../../src/catalogs/gathering.ts';

const entry = (id: string, title?: string): Entry => ({
  id,
  urls: ['https://h/x'],
  checksums: {},
  contentChecksums: {},
  os: {},
  fields: {},
  ...(title === undefined ? {} : { title }),
});
const fails = (reason: Reason) => () => Promise.reject(new Failure(reason, 'why'));

describe('the images of a list', () => {
  it.each([
    'SignatureInvalid',
    'EndorserNotTrusted',
    'CertificateRevoked',
    'CrlMissing',
    'CrlExpired',
    'SigningPolicyMissing',
    'InvalidEntry',
  ] as const)('are gathered without one of which it is known why not: %s', async (reason) => {
    const gathering = new Gathering();
    expect(await gathering.attempt({ id: 'x', title: 'X' }, fails(reason))).toBeInstanceOf(Failure);
    gathering.read({}, () => entry('y'));
    expect(gathering.done()).toEqual({
      entries: [entry('y')],
      skipped: [{ id: 'x', title: 'X', reason, message: 'why' }],
    });
  });

  it.each(['Aborted', 'ToolMissing', 'ToolFailed', 'DiskFull', 'Timeout', 'InternalError'] as const)(
    'are not gathered at all when nothing can be said of one of them: %s',
    async (reason) => {
      await expect(new Gathering().attempt({}, fails(reason))).rejects.toMatchObject({ reason });
    },
  );

  it('are gathered without one whose bytes trip a parser over', async () => {
    const gathering = new Gathering();
    await gathering.attempt({ id: 'x' }, () => Promise.reject(new TypeError('digest.test is not a function')));
    gathering.read({}, () => entry('y'));
    expect(gathering.done()).toEqual({
      entries: [entry('y')],
      skipped: [{ id: 'x', reason: 'InvalidEntry', message: 'it cannot be read: digest.test is not a function' }],
    });
  });

  it.each(['EMFILE', 'ENOSPC'])('are not gathered at all when the machine refuses: %s', async (code) => {
    const error = Object.assign(new Error(code), { code, syscall: 'open' });
    await expect(new Gathering().attempt({}, () => Promise.reject(error))).rejects.toThrow(code);
  });

  it('do not hide a mistake in the program', () => {
    const read = () => {
      throw new TypeError('a mistake');
    };
    expect(() => new Gathering().read({}, read)).toThrow('a mistake');
  });

  it('of one id are told once, with the places of the first ten', () => {
    const gathering = new Gathering();
    for (let place = 0; place < 12; place++) gathering.read({}, () => entry('same', 'The title'));
    expect(gathering.done()).toEqual({
      entries: [],
      skipped: [
        {
          id: 'same',
          title: 'The title',
          reason: 'DuplicateEntry',
          message:
            'the list has this id several times (images #1, #2, #3, #4, #5, #6, #7, #8, #9, #10): its publisher must give each image an id of its own',
        },
      ],
    });
  });

  it('without a name are told by their place', () => {
    const gathering = new Gathering();
    gathering.read({}, () => entry('a'));
    gathering.read({ id: { not: 'text' }, title: '\u0000' }, () => {
      throw new Failure('InvalidEntry', 'why');
    });
    expect(gathering.done().skipped).toEqual([{ id: '#2', reason: 'InvalidEntry', message: 'why' }]);
  });
});
