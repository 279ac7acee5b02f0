import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface KeyPair {
  cert: string;
  key: string;
}

export interface Authority {
  /** PEM of the CA's own certificate. */
  ca: string;
  /** A certificate for these subject alternative names, e.g. `DNS:localhost,IP:127.0.0.1`. */
  issue(names: string, options?: { days?: number }): KeyPair;
  close(): void;
}

/** A certificate authority made on the spot by openssl. */
export function makeAuthority(): Authority {
  const folder = mkdtempSync(join(tmpdir(), 'authority-'));
  const path = (name: string) => join(folder, name);
  const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' });
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  const subject = ['-subj', '/CN=Test authority'];
  openssl('req', '-x509', ...newKey, '-keyout', 'ca.key', '-out', 'ca.pem', '-days', '2', ...subject);
  let serial = 1;
  return {
    ca: readFileSync(path('ca.pem'), 'utf8'),
    issue: (names, { days = 2 } = {}) => {
      const name = `leaf-${serial}`;
      openssl('req', ...newKey, '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', `/CN=${name}`);
      writeFileSync(path(`${name}.ext`), `subjectAltName=${names}\n`);
      const signer = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-set_serial', String(serial)];
      const files = ['-in', `${name}.csr`, '-out', `${name}.pem`, '-extfile', `${name}.ext`];
      openssl('x509', '-req', ...files, ...signer, '-days', String(days));
      serial += 1;
      return { cert: readFileSync(path(`${name}.pem`), 'utf8'), key: readFileSync(path(`${name}.key`), 'utf8') };
    },
    close: () => rmSync(folder, { recursive: true, force: true }),
  };
}
