/** The largest that a VMImage can say (crds/: registration.minRamMiB). */
const MAX_MIB = 16_777_216;

/**
 * `hv:ram_minimum` is in bytes by the format's book; one and the same real list has "536870912", "512" and "4". No machine of today
 * boots in less than 64 MiB, and none needs 64 GiB to boot, so the size tells the unit: bytes from a MiB on, MiB from 64 on, else GiB.
 * @returns MiB; undefined for what is no number, and for 0
 */
export function readRam(value: unknown): number | undefined {
  if (typeof value !== 'string' && typeof value !== 'number') return undefined;
  const text = String(value).trim();
  if (!/^\d{1,18}(?:\.0+)?$/.test(text)) return undefined;
  const number = Number(text);
  const mib = number >= 2 ** 20 ? Math.ceil(number / 2 ** 20) : number >= 64 ? number : number * 1024;
  return mib === 0 ? undefined : Math.min(Math.ceil(mib), MAX_MIB);
}
