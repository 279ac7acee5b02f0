/** Makes namespaces, starts a long sleep of so many seconds in them, says so, and waits to be killed. */
import { Namespaces } from '../../support/kubernetes/namespaces.ts';

const [directory, seconds] = process.argv.slice(2);
if (directory === undefined || seconds === undefined) throw new Error('usage: namespaces-process.ts DIRECTORY SECONDS');
const spaces = await Namespaces.make(directory);
await spaces.start('sleep', '/bin/sleep', [seconds]);
console.log('ready');
setInterval(() => undefined, 60_000);
