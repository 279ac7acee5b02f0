import { describe, expect, test } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import { type OpenStackSpec, readConfiguration } from '../../../src/clouds/openstack/configuration.ts';
import { imageEndpoint } from '../../../src/clouds/openstack/keystone.ts';

const PEM = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n';

function read(text: string, spec: OpenStackSpec = {}, more: Record<string, string> = {}) {
  const entries = Object.entries({ 'clouds.yaml': text, ...more });
  return readConfiguration(spec, new Map(entries.map(([key, value]) => [key, new TextEncoder().encode(value)])));
}

function failure(text: string, spec: OpenStackSpec = {}, more: Record<string, string> = {}): Failure {
  try {
    read(text, spec, more);
  } catch (error) {
    if (error instanceof Failure) return error;
  }
  throw new Error('it was taken');
}

const AUTH = `
      auth_url: https://keystone:5000
      username: u
      password: 0123456
      user_domain_name: Default
      project_name: p
      project_domain_name: Default`;
const cloud = (auth: string, more = ''): string => `clouds:\n  c:\n    auth:${auth}\n${more}`;

describe('clouds.yaml', () => {
  test('a password of digits stays the text that it is', () => {
    expect(read(cloud(AUTH)).credentials).toEqual({
      method: 'password',
      user: { name: 'u', domain: { name: 'Default' } },
      password: '0123456',
      project: { name: 'p', domain: { name: 'Default' } },
    });
  });

  test.each([
    ['https://k:5000', 'https://k:5000/v3'],
    ['https://k:5000/', 'https://k:5000/v3'],
    ['https://k/identity/v3/', 'https://k/identity/v3'],
    ['https://k/identity/v2.0', 'https://k/identity/v3'],
  ])('auth_url %s leads to %s', (given, wanted) => {
    expect(read(cloud(AUTH.replace('https://keystone:5000', given))).authUrl).toBe(wanted);
  });

  test('an application credential by id needs no user, by name it does', () => {
    const byId =
      '\n      auth_url: https://k\n      application_credential_id: i\n      application_credential_secret: s';
    expect(read(cloud(byId)).credentials).toEqual({ method: 'applicationCredential', id: 'i', secret: 's' });
    const byName = byId.replace('_id: i', '_name: n');
    expect(failure(cloud(byName)).message).toContain('clouds.c.auth.username');
    const user = '\n      username: u\n      user_domain_id: default';
    expect(read(cloud(byName + user)).credentials).toMatchObject({
      name: 'n',
      user: { name: 'u', domain: { id: 'default' } },
    });
  });

  test('region and interface: the site goes before the file', () => {
    const text = cloud(AUTH, '    region_name: One\n    endpoint_type: internalURL\n');
    expect(read(text)).toMatchObject({ region: 'One', interface: 'internal' });
    expect(read(text, { region: 'Two', interface: 'admin' })).toMatchObject({ region: 'Two', interface: 'admin' });
  });

  test('a CA is inline, or a key of the Secret, or ca.crt', () => {
    expect(read(cloud(AUTH), {}, { 'ca.crt': PEM }).tls.ca).toBe(PEM);
    expect(read(cloud(AUTH, '    cacert: my.pem\n'), {}, { 'my.pem': PEM }).tls.ca).toBe(PEM);
    const inline = `    cacert: |\n${PEM.replaceAll(/^/gm, '      ').trimEnd()}\n`;
    expect(read(cloud(AUTH, inline)).tls.ca?.trim()).toBe(PEM.trim());
    expect(failure(cloud(AUTH, '    cacert: /etc/ssl/ca.pem\n')).message).toContain('cacert');
    expect(failure(cloud(AUTH), {}, { 'ca.crt': 'no' }).message).toContain('ca.crt');
  });

  test('the site’s own caRef goes before what the file names', () => {
    const file = new TextEncoder().encode(cloud(AUTH, '    cacert: /not/here\n'));
    expect(readConfiguration({}, new Map([['clouds.yaml', file]]), PEM).tls.ca).toBe(PEM);
  });

  test('verify: false is done as written, with a warning', () => {
    expect(read(cloud(AUTH)).tls).toEqual({});
    expect(read(cloud(AUTH, '    verify: true\n')).tls).toEqual({});
    const { tls, warnings } = read(cloud(AUTH, '    verify: False\n'));
    expect(tls.insecure).toBe(true);
    expect(warnings.join()).toContain('not checked');
  });

  test.each([
    ['no project', cloud(AUTH.replace('project_name: p', 'x: y')), 'auth.project_name'],
    ['no domain of the project', cloud(AUTH.replace('project_domain_name', 'x')), 'auth.project_domain_name'],
    ['no domain of the user', cloud(AUTH.replace('user_domain_name', 'x')), 'auth.user_domain_name'],
    ['no password', cloud(AUTH.replace('password', 'x')), 'auth.password'],
    ['another auth_type', cloud(AUTH, '    auth_type: v3oidcpassword\n'), 'v3oidcpassword'],
    ['a vendor profile', cloud(AUTH, '    profile: rackspace\n'), 'profile'],
    ['a system scope', cloud(`${AUTH}\n      system_scope: all`), 'system_scope'],
    ['an auth_url that is none', cloud(AUTH.replace('https://keystone:5000', 'keystone')), 'auth_url'],
    ['credentials in the auth_url', cloud(AUTH.replace('https://', 'https://me:hush@')), 'auth_url'],
    ['no auth', 'clouds: { c: {} }', 'auth'],
    ['no clouds', 'a: b', 'clouds'],
    ['no YAML', 'clouds: {c: {auth: {password: hush', 'YAML'],
  ])('%s is told by field', (_, text, field) => {
    const { reason, message } = failure(text);
    expect(reason).toBe('InvalidSecret');
    expect(message).toContain(field);
    expect(message).not.toMatch(/hush|0123456/);
  });

  test('which cloud: the named one, the only one, or a question', () => {
    const two = `${cloud(AUTH)}  d:\n    auth:${AUTH}\n`;
    expect(read(two, { cloud: 'd' }).cloud).toBe('d');
    expect(failure(two).message).toContain('c, d');
    expect(failure(two, { cloud: 'toString' }).message).toContain('c, d');
  });

  test('no Secret, and a Secret without the key', () => {
    expect(() => readConfiguration({}, undefined)).toThrow(expect.objectContaining({ reason: 'SecretNotFound' }));
    expect(() => readConfiguration({}, new Map([['x', new Uint8Array()]]))).toThrow(/no key clouds.yaml \(it has: x\)/);
  });
});

describe('the catalog', () => {
  const endpoint = (region: string, face: string, url: string) => ({ region_id: region, region, interface: face, url });
  const catalog = [
    { type: 'compute', endpoints: [endpoint('One', 'public', 'http://nova')] },
    {
      type: 'image',
      endpoints: [
        endpoint('One', 'public', 'http://one:9292/v2/'),
        endpoint('One', 'internal', 'http://inside/image'),
        endpoint('Two', 'public', 'http://two/image/v2.9'),
      ],
    },
  ];
  const find = (region: string | undefined, face = 'public') =>
    imageEndpoint({ cloud: 'c', interface: face, ...(region === undefined ? {} : { region }) }, catalog);

  test('by region and interface, without the version', () => {
    expect(find('One')).toEqual({ region: 'One', imageEndpoint: 'http://one:9292' });
    expect(find('Two')).toEqual({ region: 'Two', imageEndpoint: 'http://two/image' });
    expect(find(undefined, 'internal')).toEqual({ region: 'One', imageEndpoint: 'http://inside/image' });
  });

  test('two regions and none named is a question; what is not there is told with what is', () => {
    expect(() => find(undefined)).toThrow(/which region.*One internal, One public, Two public/);
    expect(() => find('Two', 'internal')).toThrow(/"Two internal".*Two public/);
    expect(() => imageEndpoint({ cloud: 'c', interface: 'public' }, [])).toThrow(/no image service/);
  });
});
