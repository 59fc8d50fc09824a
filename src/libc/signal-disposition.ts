import { constants } from 'node:os'
import { lastErrno, nativeFunction, SystemCallError } from './native-function.ts'

const signalCall = nativeFunction('intptr_t signal(int signal, intptr_t handler)')
const SIG_DFL = 0
const SIG_ERR = -1

/**
 * Gives signals their default action again. The runtime ignores SIGPIPE and SIGXFSZ, and what is ignored stays so through execve:
 * a program started after us would never die of a closed connection.
 */
export function resetSignals(signals: readonly NodeJS.Signals[]): void {
  for (const name of signals)
    if (signalCall(constants.signals[name], SIG_DFL) === SIG_ERR) throw new SystemCallError('signal', lastErrno())
}
