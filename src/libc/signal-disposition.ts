import { constants } from 'node:os'
import { lastErrno, nativeFunction, SystemCallError } from './native-function.ts'

const signalCall = nativeFunction('intptr_t signal(int signal, intptr_t handler)')
const [SIG_DFL, SIG_IGN, SIG_ERR] = [0, 1, -1]

/**
 * Gives signals their default action again. The runtime ignores SIGPIPE and SIGXFSZ, and what is ignored stays so through execve:
 * a program started after us would never die of a closed connection. A signal that is pending is forgotten.
 */
export function resetSignals(signals: readonly NodeJS.Signals[]): void {
  for (const name of signals)
    for (const action of [SIG_IGN, SIG_DFL])
      if (signalCall(constants.signals[name], action) === SIG_ERR) throw new SystemCallError('signal', lastErrno())
}
