import { checked, nativeFunction } from './native-function.ts'

const fcntl = nativeFunction('int fcntl(int fd, int command, int argument)')
const F_SETFD = 2
const FD_CLOEXEC = 1

/** Closes the descriptor when this process is replaced by another program, or lets it pass. Throws SystemCallError. */
export function setCloseOnExec(descriptor: number, close: boolean): void {
  checked('fcntl', fcntl(descriptor, F_SETFD, close ? FD_CLOEXEC : 0))
}
