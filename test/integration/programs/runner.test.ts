import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import {
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { callRunner } from '../../../src/programs/runner/client.ts';
import { lendIn, lendOut, prepareLoans } from '../../../src/programs/runner/loans.ts';
import { type Job, LoanName } from '../../../src/programs/runner/protocol.ts';
import { served, serveTools, type Work } from '../../../src/programs/runner/server.ts';
import { never, refusal } from '../images/workspace.ts';

const COUNT = {
  name: 'count',
  input: z.strictObject({ from: LoanName, to: LoanName }),
  output: z.strictObject({ bytes: z.number().int() }),
} satisfies Job<unknown, { bytes: number }>;
const JOB = { from: randomUUID(), to: randomUUID() };

describe('a tool runner', () => {
  let folder: string;
  let socket: string;
  let files: string;
  const ends: (() => Promise<unknown>)[] = [];

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'runner-it-'));
    socket = join(folder, 's');
    files = join(folder, 'files');
    await prepareLoans(files, join(folder, 'sample'));
  });
  afterEach(async () => {
    for (const end of ends.splice(0)) await end();
    rmSync(folder, { recursive: true, force: true });
  });

  const call = (signal = never, progress?: (bytes: number, total?: number) => void) =>
    callRunner({ socket, files }, COUNT, JOB, signal, progress);

  describe('that says what it should not', () => {
    /** Answers each connection with these bytes. */
    async function pretend(answer: (connection: Socket) => void): Promise<void> {
      const server: Server = createServer((connection) => {
        connection.on('error', () => undefined);
        connection.once('data', () => answer(connection));
      });
      await once(server.listen({ path: socket }), 'listening');
      ends.push(async () => {
        server.close();
        await once(server, 'close');
      });
    }

    it.each<[string, string, string, RegExp]>([
      ['nothing', '', 'ToolRunnerUnavailable', /ended in the middle of the work; it is tried again/],
      ['half a result', '{"result":{"by', 'ToolRunnerUnavailable', /ended in the middle/],
      ['what is no JSON', 'ok\n', 'ToolFailed', /do not understand each other/],
      ['a result of another shape', '{"result":{"bytes":"many"}}\n', 'ToolFailed', /do not understand each other/],
      ['more than was asked for', '{"result":{"bytes":1,"path":"/"}}\n', 'ToolFailed', /do not understand each other/],
      ['two things at once', '{"result":{"bytes":1},"failure":{}}\n', 'ToolFailed', /do not understand/],
      ['a progress below nothing', '{"progress":[-1]}\n', 'ToolFailed', /do not understand each other/],
      ['a reason that there is not', '{"failure":{"reason":"Fine","message":""}}\n', 'ToolFailed', /understand/],
      ['a word of its end', '{"failure":{"reason":"Aborted","message":""}}\n', 'ToolRunnerUnavailable', /stopped/],
      ['a line without end', 'x'.repeat(2 ** 20), 'ToolFailed', /a line of more than 65536 bytes/],
      ['no end of progress', '{"progress":[1]}\n'.repeat(2 ** 16), 'ToolFailed', /more than any job has to say/],
    ])('is not believed: %s', async (_what, answer, reason, message) => {
      await pretend((connection) => connection.end(answer));
      const failure = await refusal(call());
      expect(failure.message).toMatch(message);
      expect(failure.reason).toBe(reason);
    });

    it('gets one printable line of it into a message', async () => {
      const message = `\u001b[2J line\none ${'x'.repeat(3000)}`;
      await pretend((connection) =>
        connection.end(`${JSON.stringify({ failure: { reason: 'CorruptImage', message } })}\n`),
      );
      const failure = await refusal(call());
      expect(failure.reason).toBe('CorruptImage');
      expect(failure.message).toMatch(/^\[2J line one x+…$/);
      expect(failure.message).toHaveLength(1000);
    });

    it('is taken for dead when it says nothing at all', async () => {
      await pretend(() => undefined);
      const failure = await refusal(callRunner({ socket, files, silenceMs: 50 }, COUNT, JOB, never));
      expect(failure).toMatchObject({ reason: 'ToolRunnerUnavailable', failureClass: 'Transient' });
      expect(failure.message).toMatch(/silent for 0.05 s/);
    });
  });

  it('that is not there is a transient failure, whose message says what to look at', async () => {
    const failure = await refusal(call());
    expect(failure).toMatchObject({ reason: 'ToolRunnerUnavailable', failureClass: 'Transient' });
    expect(failure.message).toBe(
      'the tool runner does not answer (ENOENT); it is tried again. See that it runs: the container "tools" of the controller\'s pod, or "imageproxy tool-runner"',
    );
  });

  describe('at work', () => {
    interface Running {
      stop(): void;
      done: Promise<void>;
    }

    /** A runner whose one job does this. */
    async function start(run: (input: { from: string; to: string }, work: Work) => Promise<{ bytes: number }>) {
      const stop = new AbortController();
      const { promise: listening, resolve } = Promise.withResolvers<void>();
      const log = { debug: () => undefined, warn: () => undefined, info: () => resolve() };
      const done = serveTools(
        { socket, files, jobs: [served(COUNT, run)], scratch: `${socket}.scratch`, log },
        stop.signal,
      );
      const running: Running = { stop: () => stop.abort(), done };
      ends.push(async () => {
        stop.abort();
        await done.catch(() => undefined);
      });
      await Promise.race([listening, done]);
      return running;
    }

    const count = async ({ from, to }: { from: string; to: string }, work: Work) => {
      const bytes = readFileSync(await work.file('in', from));
      writeFileSync(await work.file('out', to), bytes);
      return { bytes: bytes.length };
    };
    /** Ends when it is told to, and says so. */
    const untilAborted = () => {
      const [begun, ended] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
      const run = async (_input: unknown, { signal }: Work): Promise<never> => {
        const aborted = once(signal, 'abort');
        begun.resolve();
        await aborted;
        ended.resolve();
        throw signal.reason;
      };
      return { begun: begun.promise, ended: ended.promise, run };
    };

    it('reads what is lent, and writes into the very file that it was lent to fill', async () => {
      await start(count);
      const [from, to] = [join(folder, 'from'), join(folder, 'to')];
      writeFileSync(from, 'bytes', { mode: 0o444 });
      writeFileSync(to, '');
      {
        await using source = await lendIn(files, from);
        await using target = await lendOut(files, to);
        const job = { from: source.name, to: target.name };
        expect(await callRunner({ socket, files }, COUNT, job, never)).toEqual({ bytes: 5 });
      }
      expect(readFileSync(to, 'utf8')).toBe('bytes');
      expect(statSync(from).nlink + statSync(to).nlink).toBe(2);
      expect(statSync(from).mode & 0o777).toBe(0o444);
    });

    it.each<[string, (path: string) => void, string, RegExp]>([
      ['a link', (path) => symlinkSync('/etc/hostname', path), 'InternalError', /refuses in\/.* it is no plain file/],
      ['a folder', (path) => mkdirSync(path), 'InternalError', /it is no plain file/],
      ['nothing', () => undefined, 'ToolRunnerUnavailable', /its --files must be the --tool-files of the controller/],
    ])('refuses %s in the place of a loan', async (_what, make, reason, message) => {
      await start(count);
      make(join(files, 'in', JOB.from));
      const failure = await refusal(call());
      expect(failure.message).toMatch(message);
      expect(failure.reason).toBe(reason);
    });

    it.each(['../../etc/passwd', '/etc/passwd', `${randomUUID()}/..`, ''])(
      'refuses a name that is no loan: "%s"',
      async (from) => {
        await start(count);
        const failure = await refusal(callRunner({ socket, files }, COUNT, { ...JOB, from }, never));
        expect(failure.reason).toBe('ToolFailed');
      },
    );

    it('refuses a job that it does not know', async () => {
      await start(count);
      const failure = await refusal(callRunner({ socket, files }, { ...COUNT, name: 'shell' }, JOB, never));
      expect(failure).toMatchObject({ reason: 'ToolFailed', message: 'the tool runner knows no job "shell"' });
    });

    it('ends a job that is given up, and only then is it given up', async () => {
      const job = untilAborted();
      await start(job.run);
      const abort = new AbortController();
      const asked = refusal(call(abort.signal));
      await job.begun;
      abort.abort();
      let ended = false;
      void job.ended.then(() => {
        ended = true;
      });
      expect((await asked).reason).toBe('Aborted');
      expect(ended).toBe(true);
    });

    it('ends the job of one who has vanished', async () => {
      const job = untilAborted();
      await start(job.run);
      const connection = connect({ path: socket });
      connection.write(`${JSON.stringify({ job: 'count', input: JOB })}\n`);
      await job.begun;
      connection.destroy();
      await job.ended;
    });

    it('cuts off who says more than a request', async () => {
      const job = untilAborted();
      await start(job.run);
      const connection = connect({ path: socket });
      const closed = once(connection, 'close');
      connection.on('error', () => undefined);
      connection.resume();
      connection.write(`${JSON.stringify({ job: 'count', input: JOB })}\n`);
      await job.begun;
      connection.write('{"job":"count"}\n');
      await closed;
      await job.ended;
    });

    it('stopped, it ends its jobs, whose askers hear that it is gone, and leaves no socket', async () => {
      const job = untilAborted();
      const runner = await start(job.run);
      const asked = refusal(call());
      await job.begun;
      runner.stop();
      await runner.done;
      await job.ended;
      expect(await asked).toMatchObject({ reason: 'ToolRunnerUnavailable' });
      expect(existsSync(socket)).toBe(false);
    });

    it('tells of progress while it works, and of the last before the result', async () => {
      await start(async (_input, { progress }) => {
        for (let bytes = 1; bytes <= 1000; bytes += 1) progress(bytes, 1000);
        return { bytes: 1000 };
      });
      const seen: [number, number | undefined][] = [];
      await call(never, (bytes, total) => seen.push([bytes, total]));
      expect(seen[0]).toEqual([1, 1000]);
      expect(seen.at(-1)).toEqual([1000, 1000]);
      expect(seen.length).toBeLessThan(100);
    });

    it('is for its user and its group', async () => {
      await start(count);
      expect(statSync(socket).mode & 0o777).toBe(0o660);
    });

    it('does no more than 64 jobs at a time', async () => {
      const job = untilAborted();
      await start(job.run);
      const abort = new AbortController();
      const many = Array.from({ length: 64 }, () => refusal(call(abort.signal)));
      await job.begun;
      // One after the other: whoever comes is either the 65th, or takes the place of one that has not arrived yet.
      let failure = await refusal(call(AbortSignal.timeout(200)));
      while (failure.reason === 'Aborted') failure = await refusal(call(AbortSignal.timeout(200)));
      expect(failure.reason).toBe('ToolRunnerUnavailable');
      abort.abort();
      expect((await Promise.all(many)).map(({ reason }) => reason)).toContain('Aborted');
    });

    it('takes over the socket of one that was killed', async () => {
      const dead = createServer();
      await once(dead.listen({ path: socket }), 'listening');
      // What a SIGKILL leaves: a file that nobody listens on.
      linkSync(socket, join(folder, 'kept'));
      dead.close();
      await once(dead, 'close');
      linkSync(join(folder, 'kept'), socket);
      await start(count);
      expect((await refusal(call())).message).toMatch(/does not see the file/);
    });

    it('leaves alone a socket that somebody answers on with his folder, and a file that is no socket', async () => {
      mkdirSync(join(`${socket}.scratch`, 'of-a-killed-one'), { recursive: true });
      await start(count);
      expect(existsSync(`${socket}.scratch`)).toBe(false);
      mkdirSync(join(`${socket}.scratch`, 'at-work'), { recursive: true });
      await expect(start(count)).rejects.toThrow(/--socket: another tool runner, or another program, has .*: stop it/);
      expect(existsSync(join(`${socket}.scratch`, 'at-work'))).toBe(true);
      expect((await refusal(call())).message).toMatch(/does not see the file/);
      socket = join(folder, 'precious');
      writeFileSync(socket, 'mine');
      await expect(start(count)).rejects.toThrow(/--socket: .*precious/);
      expect(readFileSync(socket, 'utf8')).toBe('mine');
    });
  });
});

describe('the folder of loans', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'loans-it-'));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  it('is made, and what a killed program has left in it is taken away, and nothing else', async () => {
    const sample = join(folder, 'sample');
    await prepareLoans(folder, sample);
    const [left, other] = [join(folder, 'in', randomUUID()), join(folder, 'out', 'notes.txt')];
    const strange = join(folder, 'out', randomUUID());
    writeFileSync(left, '');
    writeFileSync(other, '');
    mkdirSync(strange);
    await prepareLoans(folder, sample);
    expect([left, other, strange, sample].map((path) => existsSync(path))).toEqual([false, true, true, false]);
    expect(statSync(join(folder, 'in')).mode & 0o777).toBe(0o700);
  });

  it('on another file system than the cache is refused at the start, with the cure', async () => {
    const elsewhere = mkdtempSync('/dev/shm/loans-it-');
    try {
      expect(statSync(elsewhere).dev).not.toBe(statSync(folder).dev);
      const failure = await refusal(prepareLoans(elsewhere, join(folder, 'sample')));
      expect(failure.message).toMatch(
        /cannot be lent to the tool runner in .* \(EXDEV\): --tool-files must name a folder on the file system of the cache/,
      );
    } finally {
      rmSync(elsewhere, { recursive: true, force: true });
    }
  });
});
