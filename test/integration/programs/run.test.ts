import { existsSync } from 'node:fs';
import { afterAll, describe, expect, it } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import { collect, runTool, type ToolRun } from '../../../src/programs/run.ts';
import { installed, never, refusal, toolbox, Workspace } from '../images/workspace.ts';

const LIMITS = { addressSpaceBytes: 6 * 2 ** 30, cpuSeconds: 60, fileSizeBytes: 2 ** 20 };

describe.skipIf(!installed('prlimit', 'setpriv'))('the runner of outside programs', () => {
  const work = new Workspace();
  afterAll(() => work.clean());
  const script = (code: string, more: Partial<ToolRun> = {}): ToolRun => ({
    tool: 'node',
    args: ['-e', code],
    limits: LIMITS,
    cwd: work.folder,
    ...more,
  });

  it('gives no environment, the limits asked for, no core dump, and no way to more privileges', async () => {
    const chunks: Buffer[] = [];
    const code = `console.log(JSON.stringify(process.env), fs.readFileSync('/proc/self/limits', 'utf8'), fs.readFileSync('/proc/self/status', 'utf8'))`;
    const exit = await runTool(toolbox, script(code, { consume: collect(chunks, 2 ** 16) }), never);
    const text = Buffer.concat(chunks).toString();
    expect(exit.code).toBe(0);
    expect(text).toMatch(/^\{\} /);
    expect(text).toMatch(/Max address space +6442450944 +6442450944/);
    expect(text).toMatch(/Max cpu time +60 +65/);
    expect(text).toMatch(/Max file size +1048576 +1048576/);
    expect(text).toMatch(/Max core file size +0 +0/);
    expect(text).toMatch(/NoNewPrivs:\s+1/);
  });

  it('returns any exit code with the end of what the program complained of, cleaned', async () => {
    const exit = await runTool(
      toolbox,
      script(`process.stderr.write('x'.repeat(9000) + '\\u001b[31mlast words\\n'); process.exitCode = 3`),
      never,
    );
    expect(exit.code).toBe(3);
    expect(exit.stderr).toMatch(/^x+ \[31mlast words$/);
    expect(exit.stderr.length).toBeLessThanOrEqual(4096);
  });

  it('tells death by CPU time and by file size from other failures', async () => {
    const busy = await refusal(runTool(toolbox, script('for (;;);', { limits: { ...LIMITS, cpuSeconds: 1 } }), never));
    expect(busy).toMatchObject({ reason: 'ResourceLimit', message: 'node used up its 1 s of CPU time' });
    const killed = await refusal(runTool(toolbox, script(`process.kill(process.pid, 'SIGSEGV')`), never));
    expect(killed).toMatchObject({ reason: 'ToolFailed', message: 'node died by SIGSEGV' });
  });

  it('stops a program that says more than is wanted', async () => {
    const code = `const more = () => process.stdout.write('x'.repeat(65536), more); more()`;
    const failure = await refusal(runTool(toolbox, script(code, { consume: collect([], 2 ** 20) }), never));
    expect(failure).toMatchObject({ reason: 'ResourceLimit', message: expect.stringMatching(/1048576 bytes/) });
  });

  it('stops a program that takes longer than it may', async () => {
    const failure = await refusal(runTool(toolbox, script('setInterval(() => {}, 1000)', { timeoutMs: 300 }), never));
    expect(failure.reason).toBe('Timeout');
  });

  it('does not start anything for a signal that has fired', async () => {
    const failure = await refusal(runTool(toolbox, script(`fs.writeFileSync('started', '')`), AbortSignal.abort()));
    expect(failure.reason).toBe('Aborted');
    expect(existsSync(work.path('started'))).toBe(false);
  });

  it('kills the whole group on abort, also a grandchild that ignores SIGTERM', async () => {
    const abort = new AbortController();
    let grandchild = 0;
    const code = `
      process.on('SIGTERM', () => {});
      const child = child_process.spawn(process.execPath, ['-e', "process.on('SIGTERM', () => {}); console.log(process.pid); setInterval(() => {}, 1000)"], { stdio: ['ignore', 'inherit', 'inherit'] });
      setInterval(() => {}, 1000);`;
    const consume: ToolRun['consume'] = async (out) => {
      for await (const chunk of out as AsyncIterable<Buffer>) {
        grandchild = Number(chunk.toString());
        abort.abort();
      }
    };
    const failure = await refusal(runTool(toolbox, script(code, { consume }), abort.signal));
    expect(failure.reason).toBe('Aborted');
    expect(grandchild).toBeGreaterThan(1);
    expect(existsSync(`/proc/${grandchild}/exe`)).toBe(false);
  });

  it('passes on the failure of the reader, and ends the program', async () => {
    const consume = async () => {
      throw new Failure('TooLarge', 'enough');
    };
    const failure = await refusal(runTool(toolbox, script('setInterval(() => {}, 1000)', { consume }), never));
    expect(failure).toMatchObject({ reason: 'TooLarge', message: 'enough' });
  });

  it('lets no program outlive the process that started it, even when that is killed', async () => {
    const module = new URL('../../../src/programs/', import.meta.url).href;
    const starter = `
      import { runTool } from '${module}run.ts';
      import { createToolbox } from '${module}toolbox.ts';
      const code = "console.log(process.pid); setInterval(() => {}, 1000)";
      await runTool(createToolbox({}, '/usr/bin:/bin'), { tool: 'node', args: ['-e', code], limits: ${JSON.stringify(LIMITS)}, cwd: '/', consume: async (out) => {
        for await (const chunk of out) { process.stdout.write(chunk); process.kill(process.pid, 'SIGKILL'); }
      } }, new AbortController().signal);`;
    const chunks: Buffer[] = [];
    const run = { ...script(''), args: ['--input-type=module', '-e', starter], consume: collect(chunks, 4096) };
    expect((await refusal(runTool(toolbox, run, never))).reason).toBe('ResourceLimit');
    const orphan = Number(Buffer.concat(chunks).toString());
    expect(orphan).toBeGreaterThan(1);
    await expect.poll(() => existsSync(`/proc/${orphan}/exe`)).toBe(false);
  });
});
