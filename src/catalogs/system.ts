import type { Entry } from './catalog.ts';
import { plain } from './text.ts';

/** Names that Debian, Ubuntu, AppDB and StratusLab give what Glance (and uname) call otherwise. */
const ARCHITECTURES: Readonly<Record<string, string>> = {
  amd64: 'x86_64',
  x64: 'x86_64',
  'x86-64': 'x86_64',
  x86: 'i686',
  i386: 'i686',
  i486: 'i686',
  i586: 'i686',
  arm64: 'aarch64',
  armhf: 'armv7l',
  armv7: 'armv7l',
  ppc64el: 'ppc64le',
};

/** As Glance calls it; undefined for what a VMImage could not hold (crds/: registration.architecture). */
export function architecture(text: string | undefined): string | undefined {
  const name = text?.trim().toLowerCase() ?? '';
  const known = Object.hasOwn(ARCHITECTURES, name) ? ARCHITECTURES[name] : name;
  return known !== undefined && /^[a-z0-9][a-z0-9_-]{0,31}$/.test(known) ? known : undefined;
}

/** What a VMImage can hold of the words for an operating system (crds/: registration.os); the others are left out. */
export function system(words: {
  name?: string | undefined;
  distro?: string | undefined;
  version?: string | undefined;
}): Entry['os'] {
  const name = plain(words.name ?? '', 64);
  const distro = (words.distro ?? '').trim().toLowerCase().replaceAll(/\s+/g, '-');
  const version = (words.version ?? '').trim();
  return {
    ...(name === '' ? {} : { name }),
    ...(/^[a-z0-9][a-z0-9._-]{0,63}$/.test(distro) ? { distro } : {}),
    ...(/^[a-zA-Z0-9][a-zA-Z0-9._ -]{0,63}$/.test(version) ? { version } : {}),
  };
}
