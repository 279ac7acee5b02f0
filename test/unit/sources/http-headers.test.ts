import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { openHeaders, secretHeaders } from '../../../src/sources/http/headers.ts';

const reason = (name: string) => expect.objectContaining({ reason: name });

describe('headers of a source', () => {
  it('may be User-Agent, Accept, Accept-Language and X-…, with names in lower case', () => {
    expect(openHeaders({ 'User-Agent': 'me/1', Accept: '*/*', 'X-Project': 'a b' })).toEqual({
      'user-agent': 'me/1',
      accept: '*/*',
      'x-project': 'a b',
    });
  });

  it.each([
    'Host',
    'Transfer-Encoding',
    'Content-Length',
    'Authorization',
    'Proxy-Authorization',
    'Cookie',
    'Range',
    'Connection',
    'X-Auth-Token',
    'X-Api-Key',
    'X-Forwarded-For',
    'X-Real-IP',
    'X-Original-URL',
    'X-HTTP-Method-Override',
    'X Space',
    '',
  ])('may not be %s', (name) => {
    expect(() => openHeaders({ [name]: 'v' })).toThrow(reason('InvalidSpec'));
  });

  it('name a refused header, never its value', () => {
    expect(() => openHeaders({ 'X-Auth-Token': 'hunter2' })).not.toThrow(/hunter2/);
    expect(() => openHeaders({ 'X-Auth-Token': 'hunter2' })).toThrow(/x-auth-token/i);
  });

  it('cannot begin another header or the body, whatever their value', () => {
    fc.assert(
      fc.property(fc.string(), fc.constantFrom('\r', '\n', '\0'), fc.string(), (left, control, right) => {
        expect(() => openHeaders({ 'x-a': left + control + right })).toThrow(reason('InvalidSpec'));
        expect(() => secretHeaders({ 'x-a': left + control + right })).toThrow(reason('InvalidSecret'));
      }),
    );
  });

  it('out of a Secret may be any that do not shape the request', () => {
    expect(secretHeaders({ 'PRIVATE-TOKEN': 't', Cookie: 'c' })).toEqual({ 'private-token': 't', cookie: 'c' });
    for (const name of ['Host', 'Content-Length', 'If-Range', 'Range', 'Accept-Encoding', 'Proxy-Authorization']) {
      expect(() => secretHeaders({ [name]: 'v' })).toThrow(reason('InvalidSecret'));
    }
  });
});
