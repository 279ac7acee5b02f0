import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Stage } from './stage.ts';

/** How this very program is called: installed by its name, from a checkout by its path. */
function programName(): string {
  const launcher = fileURLToPath(new URL('../../../bin/imageproxy', import.meta.url));
  if (launcher.includes('/node_modules/')) return 'imageproxy';
  const path = relative(process.cwd(), launcher);
  return path.startsWith('..') ? launcher : path;
}

/** What to type now. */
export function tryNext(stage: Stage, env: NodeJS.ProcessEnv): void {
  const program = programName();
  const { out } = stage;
  out.line();
  out.line(out.paint('bold', 'Try next'));
  out.line();
  out.line('   A real image, in one line:');
  stage.code([
    'mkdir -p ~/shelf && cat > shelf.yaml <<END',
    'apiVersion: imageproxy.dev/v1beta1',
    'kind: ImageSite',
    'metadata: { name: shelf }',
    `spec: { directory: { path: ${env['HOME'] ?? '/root'}/shelf } }`,
    'END',
    'url=https://cloud.debian.org/images/cloud/bookworm/latest/debian-12-nocloud-amd64.qcow2',
    "sum=$(curl -sL ${url%/*}/SHA512SUMS | awk '/ debian-12-nocloud-amd64.qcow2$/ {print $1}')",
    `${program} register $url --sha512 $sum --site shelf.yaml`,
  ]);
  out.line();
  out.line('   Many images, by manifests that you edit while it runs:');
  stage.code([
    'mkdir -p manifests && cp shelf.yaml manifests/',
    `${program} run --manifests manifests        # in one terminal`,
    `${program} watch                            # in another`,
  ]);
  out.line();
  out.line('   What can be said, and what is there:');
  stage.code([`${program} explain vmimage.spec`, `${program} get -A`, `${program} --help`]);
}
