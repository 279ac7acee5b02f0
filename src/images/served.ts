import { type Served, served, type Work } from '../programs/runner/server.ts';
import type { Toolbox } from '../programs/toolbox.ts';
import { CONVERT, EXTRACT, INFO, MISSING, UNPACK, VERSION } from './jobs.ts';
import { localTools } from './local.ts';

/** The jobs of this room, as a tool runner does them: with the tools that it has itself. */
export function imageJobs(toolbox: Toolbox, scratchDirectory: string): Served[] {
  const tools = localTools(toolbox, scratchDirectory);
  const filesOf = async ({ from, to }: { from: string; to: string }, work: Work) => ({
    from: await work.file('in', from),
    to: await work.file('out', to),
    digests: [],
    progress: work.progress,
  });
  return [
    served(INFO, async ({ from, ...disk }, work) => {
      const path = await work.file('in', from);
      return { virtualSize: await tools.info({ ...disk, path }, work.signal) };
    }),
    served(UNPACK, async (job, work) => {
      await tools.unpack({ ...job, ...(await filesOf(job, work)) }, work.signal);
      return {};
    }),
    served(EXTRACT, async (job, work) => {
      const { progress: _, ...files } = await filesOf(job, work);
      return { found: (await tools.extract({ ...job, ...files }, work.signal)) !== undefined };
    }),
    served(CONVERT, async (job, work) => {
      await tools.convert({ ...job, ...(await filesOf(job, work)) }, work.signal);
      return {};
    }),
    served(VERSION, async ({ tool }) => ({ version: await tools.version(tool) })),
    served(MISSING, async () => ({ tools: await tools.missing() })),
  ];
}
