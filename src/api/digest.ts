/** Names of hash functions as manifests, caches and clouds spell them. The order is strength, the strongest first. */
export const ALGORITHMS = ['sha512', 'sha256', 'sha1', 'md5'] as const;
export type Algorithm = (typeof ALGORITHMS)[number];

/** Hex digests by algorithm, lower case. */
export type Digests = Partial<Record<Algorithm, string>>;

const HEX_LENGTH = { sha512: 128, sha256: 64, sha1: 40, md5: 32 } as const satisfies Record<Algorithm, number>;

/** Collisions can be made for sha1 and md5: they find a file again, they prove nothing against an attacker. */
export const STRONG: readonly Algorithm[] = ['sha512', 'sha256'];

/** `sha256:ab…` of the strongest declared digest; undefined when there is none. */
export function strongest(digests: Digests): string | undefined {
  const algorithm = ALGORITHMS.find((name) => digests[name] !== undefined);
  return algorithm === undefined ? undefined : `${algorithm}:${digests[algorithm]}`;
}

/** The reverse of {@link strongest}; undefined for anything that is not `alg:hex` of the right length. */
export function parseDigest(text: string): { algorithm: Algorithm; hex: string } | undefined {
  const colon = text.indexOf(':');
  const algorithm = ALGORITHMS.find((name) => name === text.slice(0, colon));
  const hex = text.slice(colon + 1).toLowerCase();
  if (algorithm === undefined || hex.length !== HEX_LENGTH[algorithm] || !/^[0-9a-f]+$/.test(hex)) return undefined;
  return { algorithm, hex };
}

/** Whether any strong digest is there to prove bytes with. */
export function provable(digests: Digests): boolean {
  return STRONG.some((name) => digests[name] !== undefined);
}

/** Those of the declared digests that nobody has computed of the bytes yet. */
export function uncompared(declared: Digests, known: Digests): Algorithm[] {
  return ALGORITHMS.filter((name) => declared[name] !== undefined && known[name] === undefined);
}

/** The strongest declared digest that the bytes do not have. */
export function contradicted(declared: Digests, known: Digests): Algorithm | undefined {
  return ALGORITHMS.find((name) => {
    const [wanted, has] = [declared[name], known[name]];
    return wanted !== undefined && has !== undefined && wanted.toLowerCase() !== has.toLowerCase();
  });
}

/** Two sets name the same bytes when a strong digest agrees and none disagrees (adding sha512 to a spec is no replacement). */
export function sameBytes(a: Digests, b: Digests): boolean {
  let agreed = false;
  for (const name of ALGORITHMS) {
    const [x, y] = [a[name], b[name]];
    if (x === undefined || y === undefined) continue;
    if (x.toLowerCase() !== y.toLowerCase()) return false;
    if (STRONG.includes(name)) agreed = true;
  }
  return agreed;
}
