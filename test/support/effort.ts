/**
 * Milliseconds of this thread's processor that the work took. Time on the wall also tells how busy the machine is, and a bound of it
 * is broken by whatever else runs there.
 */
export async function effortMs(work: () => unknown): Promise<number> {
  const before = process.threadCpuUsage();
  await work();
  const { user, system } = process.threadCpuUsage(before);
  return (user + system) / 1000;
}
