import type { Algorithm } from '../api/digest.ts';
import { callRunner } from '../programs/runner/client.ts';
import { lendIn, lendOut } from '../programs/runner/loans.ts';
import { type Job, type RunnerPlace, unavailable } from '../programs/runner/protocol.ts';
import type { Toolbox } from '../programs/toolbox.ts';
import { digestFile } from './bulk.ts';
import type { Produced, Progress } from './images.ts';
import { CONVERT, EXTRACT, INFO, MISSING, UNPACK, VERSION } from './jobs.ts';
import type { ImageTools } from './tools.ts';

/** Questions about the tools themselves are a matter of milliseconds, and a reconcile waits for the answer. */
const QUESTION_MS = 30_000;

/**
 * The tools of a tool runner. It works; we judge: headers are read here before it sees a file, and digests are computed here, over what
 * lies in our own file when it is done.
 */
export function borrowedTools(runner: RunnerPlace, toolbox: Toolbox): ImageTools {
  async function make<Input extends object, Output>(
    job: Job<Input & { from: string; to: string }, Output>,
    { from, to }: { from: string; to: string },
    input: Input,
    signal: AbortSignal,
    progress?: Progress,
  ): Promise<Output> {
    await using source = await lendIn(runner.files, from);
    await using target = await lendOut(runner.files, to);
    return await callRunner(runner, job, { ...input, from: source.name, to: target.name }, signal, progress);
  }

  async function ask<Input, Output>(job: Job<Input, Output>, input: Input): Promise<Output> {
    const patience = AbortSignal.timeout(QUESTION_MS);
    try {
      return await callRunner(runner, job, input, patience);
    } catch (error) {
      throw patience.aborted ? unavailable(`the tool runner does not answer within ${QUESTION_MS / 1000} s`) : error;
    }
  }

  const measure = (
    { to, digests }: { to: string; digests: readonly Algorithm[] },
    maxBytes: number,
    signal: AbortSignal,
  ): Promise<Produced> => digestFile(toolbox, { path: to, maxBytes, digests }, signal);

  return {
    async info({ path, ...disk }, signal) {
      await using source = await lendIn(runner.files, path);
      return (await callRunner(runner, INFO, { from: source.name, ...disk }, signal)).virtualSize;
    },

    async unpack(job, signal) {
      const { compression, maxOutputBytes, progress } = job;
      await make(UNPACK, job, { compression, maxOutputBytes }, signal, progress);
      return measure(job, maxOutputBytes, signal);
    },

    async extract(job, signal) {
      const { member, maxOutputBytes } = job;
      const { found } = await make(EXTRACT, job, { member, maxOutputBytes }, signal);
      return found ? measure(job, maxOutputBytes, signal) : undefined;
    },

    async convert(job, signal) {
      const { fromFormat, toFormat, limits, progress } = job;
      await make(CONVERT, job, { fromFormat, toFormat, limits }, signal, progress);
      return measure(job, limits.maxOutputBytes, signal);
    },

    async version(tool) {
      return (await ask(VERSION, { tool })).version;
    },

    async missing() {
      return (await ask(MISSING, {})).tools;
    },
  };
}
