/**
 * Keeps SIGUSR1 from opening Node's inspector, through which any account of the host could run code
 * in this process. Every program imports this module before all others.
 *
 * The option `--disable-sigusr1` (Node.js 22.14) does the same from the first instruction on, and
 * `runtimeOptions` and the launcher give it. This listener covers a start
 * without the option: an older runtime, or a developer's own command line.
 */
if (!process.execArgv.includes('--disable-sigusr1')) process.on('SIGUSR1', () => {})
