import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';

/**
 * So many different ports that nobody has. All are held until the last is known: the kernel may give a port that was just closed again,
 * and two servers of one start would be sent to it.
 */
export async function freePorts(count: number, address = '127.0.0.1'): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, address));
  await Promise.all(servers.map((server) => once(server, 'listening')));
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(servers.map((server) => new Promise((closed) => server.close(closed))));
  return ports;
}
