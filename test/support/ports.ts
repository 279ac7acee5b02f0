import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { type AddressInfo, createServer, type Server } from 'node:net';

/** Below it are ports that have a name, or that people like to choose. */
const FIRST = 10_240;
const ENOUGH = 1_000;

/**
 * So many different ports that nobody has. All are held until the last is known: they would else be given twice, and two servers of one
 * start would be sent to one port. Until their servers listen there, nobody has them again: so they are none of those that the kernel
 * gives to whoever asks for any port, as the origin does that a test starts beside them.
 */
export async function freePorts(count: number, address = '127.0.0.1'): Promise<number[]> {
  const servers: Server[] = [];
  while (servers.length < count) servers.push(await listening(address));
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(servers.map((server) => new Promise((closed) => server.close(closed))));
  return ports;
}

async function listening(address: string): Promise<Server> {
  for (;;) {
    const server = createServer().listen(anyPort(), address);
    try {
      await once(server, 'listening');
      return server;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error;
    }
  }
}

/** The kernel's own choice (0) where it leaves none to others, or does not say so. */
function anyPort(): number {
  const end = firstOfTheKernel();
  return end - FIRST < ENOUGH ? 0 : randomInt(FIRST, end);
}

function firstOfTheKernel(): number {
  try {
    return Number.parseInt(readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8'), 10);
  } catch {
    return 0;
  }
}
