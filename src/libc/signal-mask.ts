import { constants } from 'node:os'
import { nativeFunction, SystemCallError } from './native-function.ts'

const sigmask = nativeFunction('int pthread_sigmask(int how, const void *set, void *before)')
const [SIG_UNBLOCK, SIG_SETMASK] = [1, 2]
/** sizeof(sigset_t); signal n is bit n - 1. */
const SET_OCTETS = 128

/** Lets the main thread receive a signal again. The runtime blocks SIGUSR1 under `--disable-sigusr1`, and a listener would never hear it. */
export function unblockSignal(name: NodeJS.Signals): void {
  const set = Buffer.alloc(SET_OCTETS)
  const bit = constants.signals[name] - 1
  set.writeUInt8(1 << (bit & 7), bit >> 3)
  change(SIG_UNBLOCK, set)
}

/** Blocks no signal: what is blocked stays so through execve, and a program started in our place expects none. */
export const unblockEverySignal = (): void => change(SIG_SETMASK, Buffer.alloc(SET_OCTETS))

function change(how: number, set: Uint8Array): void {
  const errno = sigmask(how, set, null)
  if (errno !== 0) throw new SystemCallError('pthread_sigmask', errno)
}
