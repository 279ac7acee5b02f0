import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MAX_REDIRECTS, Redirects } from '../../../src/sources/http/redirects.ts';

const reason = (name: string) => expect.objectContaining({ reason: name });

describe('redirects', () => {
  it('resolve against the URL that answered', () => {
    const redirects = new Redirects('http://a.example/x/y?z#f');
    expect(redirects.follow(302, '../w')).toBe(true);
    expect(redirects.hop.url.href).toBe('http://a.example/w');
    expect(redirects.follow(200, undefined)).toBe(false);
  });

  it('lose the credentials when scheme, host or port changes, for good', () => {
    const redirects = new Redirects('http://a.example/1');
    redirects.follow(301, '/2');
    expect(redirects.hop.trusted).toBe(true);
    redirects.follow(307, 'http://a.example:8080/3');
    expect(redirects.hop.trusted).toBe(false);
    redirects.follow(308, 'http://a.example/4');
    expect(redirects.hop).toMatchObject({ trusted: false });
  });

  it('lose the credentials even where only http became https', () => {
    const redirects = new Redirects('http://a.example/1');
    redirects.follow(301, 'https://a.example/1');
    expect(redirects.hop.trusted).toBe(false);
  });

  it('never have trust in another origin, wherever a chain leads', () => {
    const place = fc.record({ host: fc.constantFrom('a', 'b'), port: fc.constantFrom('', ':81'), path: fc.uuid() });
    fc.assert(
      fc.property(fc.array(place, { maxLength: MAX_REDIRECTS }), (places) => {
        const redirects = new Redirects('http://a/start');
        let left = false;
        for (const { host, port, path } of places) {
          redirects.follow(302, `http://${host}${port}/${path}`);
          left ||= redirects.hop.url.origin !== 'http://a';
          expect(redirects.hop.trusted).toBe(!left);
        }
      }),
    );
  });

  it('end at the first repetition, and after ten', () => {
    const circle = new Redirects('http://a/1');
    circle.follow(302, '/2');
    expect(() => circle.follow(302, '/1#again')).toThrow(reason('RedirectLoop'));
    const chain = new Redirects('http://a/0');
    for (let n = 1; n <= MAX_REDIRECTS; n += 1) chain.follow(302, `/${n}`);
    expect(() => chain.follow(302, '/one-more')).toThrow(reason('RedirectLoop'));
  });

  it('go neither from https to http nor to anything else', () => {
    expect(() => new Redirects('https://a/').follow(302, 'http://a/')).toThrow(reason('InvalidSpec'));
    for (const location of ['file:///etc/passwd', 'ftp://a/', 'gopher://a/', 'javascript:1', 'http://']) {
      expect(() => new Redirects('http://a/').follow(302, location)).toThrow(reason('InvalidSpec'));
    }
    expect(() => new Redirects('http://a/').follow(302, undefined)).toThrow(reason('ServerError'));
  });

  it('do not carry credentials of a Location on', () => {
    const redirects = new Redirects('http://a/');
    redirects.follow(302, 'http://user:secret@b/x');
    expect(redirects.hop.url.href).toBe('http://b/x');
  });

  it.each(['ftp://a/', 'a/b', '', 'http://', 'http://user:hunter2@a/', 'http://hunter2@a/'])(
    'do not start at %s',
    (url) => {
      expect(() => new Redirects(url)).toThrow(reason('InvalidSpec'));
      expect(() => new Redirects(url)).not.toThrow(/hunter2/);
    },
  );
});
