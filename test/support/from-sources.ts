/**
 * Before the path of a program that Node.js runs from its sources, as bin/imageproxy has them, which says why: threads of it strip the
 * types of their sources as well, and now and then such a process died of SIGSEGV.
 */
export const FROM_SOURCES: readonly string[] = ['--disable-warning=ExperimentalWarning', '--no-wasm-code-gc'];
