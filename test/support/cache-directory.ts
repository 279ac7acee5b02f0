import { homedir } from 'node:os';
import { join } from 'node:path';

/** Where tests keep, for the next run, what takes minutes to make. */
export function cacheDirectory(name: string): string {
  const base = process.env['XDG_CACHE_HOME'];
  return join(base !== undefined && base !== '' ? base : join(homedir(), '.cache'), 'imageproxy', name);
}
