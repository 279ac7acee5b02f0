import { describe, expect, it } from 'vitest';
import { KINDS } from '../../../src/cli/kinds.ts';
import { choosePlace, type PlaceOptions, typedLine } from '../../../src/cli/place.ts';

const PLUGIN = 'kubectl imageproxy';

function chosen(options: PlaceOptions, env: Record<string, string> = {}, calledAs?: string): string {
  const choice = choosePlace(options, { env: { HOME: '/home/me', ...env }, calledAs });
  return choice.kind === 'directory' ? choice.state : `cluster ${choice.kubeconfig ?? '-'} ${choice.context ?? '-'}`;
}

describe('the place that a command works on', () => {
  it.each<[PlaceOptions, Record<string, string>, string | undefined, string]>([
    // What is typed counts before the way of calling, and that before the environment.
    [{ state: '/s' }, {}, undefined, '/s'],
    [{}, { IMAGEPROXY_STATE: '/e' }, undefined, '/e'],
    [{ kubernetes: true }, { IMAGEPROXY_STATE: '/e' }, undefined, 'cluster - -'],
    [{ kubeconfig: '/k' }, {}, undefined, 'cluster /k -'],
    [{ context: 'east' }, {}, undefined, 'cluster - east'],
    [{}, { IMAGEPROXY_KUBERNETES: 'true' }, undefined, 'cluster - -'],
    [{}, { IMAGEPROXY_KUBERNETES: 'true', IMAGEPROXY_STATE: '/e' }, undefined, 'cluster - -'],
    [{}, { IMAGEPROXY_KUBERNETES: 'false', IMAGEPROXY_STATE: '/e' }, undefined, '/e'],
    [{}, { IMAGEPROXY_KUBERNETES: '0', IMAGEPROXY_STATE: '/e' }, undefined, '/e'],
    [{ state: '/s' }, { IMAGEPROXY_KUBERNETES: 'true' }, undefined, '/s'],
    [{ manifests: '/m' }, { IMAGEPROXY_KUBERNETES: 'true', IMAGEPROXY_STATE: '/e' }, undefined, '/e'],
    [{}, {}, PLUGIN, 'cluster - -'],
    [{}, { IMAGEPROXY_STATE: '/e' }, PLUGIN, 'cluster - -'],
    [{ state: '/s' }, {}, PLUGIN, '/s'],
  ])('of %j and %j, called as %s, is %s', (options, env, calledAs, expected) => {
    expect(chosen(options, env, calledAs)).toBe(expected);
  });

  it('is not both', () => {
    expect(() => chosen({ manifests: '/m', context: 'east' })).toThrow(
      '--manifests names a directory and --context a cluster: leave one of the two out',
    );
  });
});

describe('a command line to be typed', () => {
  const [names] = KINDS;
  if (names === undefined) throw new Error('no kinds');
  const line = (flags: string[], home: string, namespace: string, calledAs?: string) =>
    typedLine({ flags, home }, { calledAs }, 'wait', { names, key: { namespace, name: 'a' } }, '--for=delete');

  it('names the namespace where it is not the one that is meant anyway', () => {
    expect(line([], 'default', 'default')).toBe('imageproxy wait vmimg/a --for=delete');
    expect(line([], 'default', 'team')).toBe('imageproxy wait vmimg/a --for=delete -n team');
    expect(line([], 'team', 'default')).toBe('imageproxy wait vmimg/a --for=delete -n default');
  });

  it('leads to the same place again, by the same program', () => {
    const flagsOf = (options: PlaceOptions) => choosePlace(options, { env: {}, calledAs: undefined }).flags;
    expect(line(flagsOf({ kubeconfig: '/k', context: 'my east' }), 'default', 'default')).toBe(
      "imageproxy wait vmimg/a --for=delete --kubeconfig /k --context 'my east'",
    );
    expect(line(flagsOf({ state: "/it's" }), 'default', 'default')).toBe(
      String.raw`imageproxy wait vmimg/a --for=delete --state '/it'\''s'`,
    );
    expect(line([], 'default', 'default', PLUGIN)).toBe('kubectl imageproxy wait vmimg/a --for=delete');
  });
});
