/**
 * Keeps SIGUSR1 from opening Node's inspector, through which any account of the host could run code
 * in this process. Every program imports this module before all others.
 *
 * The option `--disable-sigusr1` (Node.js 22.14) does the same from the first instruction on, and
 * `runtimeOptions` and the launcher give it. This listener covers a start without the option: an
 * older runtime, or a developer's own command line.
 */
if (!process.execArgv.includes('--disable-sigusr1')) process.on('SIGUSR1', () => {})

/**
 * SIGUSR1 opens no inspector. Node.js before 22.14 does not have the option, and ends if it is
 * given.
 */
const NO_INSPECTOR = '--disable-sigusr1'

/** An option of this process that opens an inspector, with its value. */
const INSPECT = /^--inspect(-brk|-wait)?(=|$)/

/**
 * Options of Node.js for a child program of this project: the options of this process, without an
 * inspector.
 */
export function runtimeOptions(
  own: readonly string[] = process.execArgv,
  known: ReadonlySet<string> = process.allowedNodeEnvironmentFlags,
): readonly string[] {
  const inherited = own.filter(option => option !== NO_INSPECTOR && !INSPECT.test(option))
  return known.has(NO_INSPECTOR) ? [NO_INSPECTOR, ...inherited] : inherited
}
