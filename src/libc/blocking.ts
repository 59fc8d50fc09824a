import { checked, nativeFunction } from './native-function.ts'

const fcntl = nativeFunction('int fcntl(int fd, int command, int argument)')
const [F_GETFL, F_SETFL] = [3, 4]
const O_NONBLOCK = 0o4000

/**
 * Makes a descriptor blocking or not. The flag belongs to the open file, so everyone who holds it is concerned: a program written for
 * a blocking socket must not inherit one from the event loop. Throws SystemCallError.
 */
export function setBlocking(descriptor: number, blocking: boolean): void {
  const flags = checked('fcntl', fcntl(descriptor, F_GETFL, 0))
  const wanted = blocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK
  if (wanted !== flags) checked('fcntl', fcntl(descriptor, F_SETFL, wanted))
}
