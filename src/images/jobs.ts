import { z } from 'zod';
import { type Job, LoanName } from '../programs/runner/protocol.ts';
import { TOOL_PACKAGES, type ToolName } from '../programs/toolbox.ts';
import { COMPRESSIONS, FORMATS } from './format.ts';
import { QEMU_DRIVERS, type QemuFormat } from './qemu.ts';
import { VERSIONED_TOOLS, type VersionedTool } from './tools.ts';

/** What a tool runner does for this room. Files are told by the names of their loans: `from` is lent for reading, `to` for writing. */

const Bytes = z.number().int().nonnegative();
const Files = { from: LoanName, to: LoanName };
/** A file that was made is its own result: who asked measures it himself. */
const Made = z.strictObject({});
type Made = z.infer<typeof Made>;

export const INFO = {
  name: 'info',
  input: z.strictObject({
    from: LoanName,
    format: z.enum(Object.keys(QEMU_DRIVERS) as [QemuFormat, ...QemuFormat[]]),
    span: z.strictObject({ offset: Bytes, size: Bytes }).exactOptional(),
  }),
  output: z.strictObject({ virtualSize: Bytes }),
} satisfies Job<unknown, { virtualSize: number }>;

export const UNPACK = {
  name: 'unpack',
  input: z.strictObject({ ...Files, compression: z.enum(COMPRESSIONS), maxOutputBytes: Bytes }),
  output: Made,
} satisfies Job<unknown, Made>;

export const EXTRACT = {
  name: 'extract',
  input: z.strictObject({ ...Files, member: z.string().max(4096), maxOutputBytes: Bytes }),
  output: z.strictObject({ found: z.boolean() }),
} satisfies Job<unknown, { found: boolean }>;

export const CONVERT = {
  name: 'convert',
  input: z.strictObject({
    ...Files,
    fromFormat: z.enum(FORMATS),
    toFormat: z.enum(FORMATS),
    limits: z.strictObject({
      maxOutputBytes: Bytes,
      addressSpaceBytes: Bytes.exactOptional(),
      cpuSeconds: Bytes.exactOptional(),
    }),
  }),
  output: Made,
} satisfies Job<unknown, Made>;

export const VERSION = {
  name: 'version',
  input: z.strictObject({ tool: z.enum(VERSIONED_TOOLS) }),
  output: z.strictObject({ version: z.string().regex(/^[\w.+-]{1,64}$/) }),
} satisfies Job<{ tool: VersionedTool }, { version: string }>;

export const MISSING = {
  name: 'missing',
  input: z.strictObject({}),
  output: z.strictObject({ tools: z.array(z.enum(Object.keys(TOOL_PACKAGES) as [ToolName, ...ToolName[]])).max(16) }),
} satisfies Job<unknown, { tools: ToolName[] }>;
