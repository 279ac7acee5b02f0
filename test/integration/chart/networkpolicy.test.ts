import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { contains, parseBlock } from '../../../src/sources/address.ts';
import { NEVER_REACHED } from '../../../src/sources/network.ts';
import { API_SERVER_PATIENCE_MS } from '../../support/apiserver.ts';
import { Helm } from '../../support/kubernetes/chart.ts';

interface IpBlock {
  cidr: string;
  except?: string[];
}

interface Egress {
  ports?: { port: number; protocol: string }[];
  to?: { ipBlock?: IpBlock; namespaceSelector?: object }[];
}

const blockOf = (text: string) => {
  const block = parseBlock(text);
  if (block === undefined) throw new Error(`${text} is no block of addresses`);
  return block;
};

describe('the NetworkPolicy', () => {
  let helm: Helm;

  beforeAll(async () => {
    helm = await Helm.start();
  }, API_SERVER_PATIENCE_MS);
  afterAll(() => helm?.close());

  const egressOf = async (values: object = {}): Promise<Egress[]> => {
    const objects = await helm.template({ networkPolicy: { enabled: true, ...values } });
    const policy = objects.find(({ kind }) => kind === 'NetworkPolicy');
    return (policy as unknown as { spec: { egress: Egress[] } }).spec.egress;
  };
  const blocksOf = (egress: readonly Egress[]): IpBlock[] =>
    egress.flatMap(({ to = [] }) => to.flatMap(({ ipBlock }) => (ipBlock === undefined ? [] : [ipBlock])));
  /** Ports that a rule opens to every address. */
  const openPorts = (egress: readonly Egress[]) =>
    egress.filter(({ to }) => to === undefined).map(({ ports }) => ports?.map(({ port }) => port));

  test('leaves out the very addresses that no source may reach', async () => {
    const blocks = blocksOf(await egressOf());
    expect(blocks.map(({ cidr }) => cidr)).toEqual(['0.0.0.0/0', '::/0']);
    const except = blocks.flatMap((block) => block.except ?? []).map(blockOf);
    expect(new Set(except)).toEqual(new Set(NEVER_REACHED.map(blockOf)));
  });

  test('leaves them out of the family that they are of, as blocks that the API server takes', async () => {
    for (const { cidr, except = [] } of blocksOf(await egressOf())) {
      for (const each of except) {
        expect(each).toMatch(/\/\d+$/);
        const { family, value } = blockOf(each);
        expect(contains(blockOf(cidr), { family, value }), `${each} in ${cidr}`).toBe(true);
      }
    }
  });

  test('opens to every address only DNS and the ports of an API server on nodes, or what somebody asks for', async () => {
    expect(openPorts(await egressOf())).toEqual([[53, 53], [6443]]);
    expect(openPorts(await egressOf({ apiServerPorts: [443, 16443] }))).toEqual([
      [53, 53],
      [443, 16443],
    ]);
    // A rule with an empty list of ports would open all of them.
    expect(openPorts(await egressOf({ apiServerPorts: [] }))).toEqual([[53, 53]]);
    const own = { ports: [{ port: 443, protocol: 'TCP' }], to: [{ ipBlock: { cidr: '10.0.0.0/8' } }] };
    const [, ...rest] = await egressOf({ egress: [own] });
    expect(rest).toEqual([own]);
  });
});
