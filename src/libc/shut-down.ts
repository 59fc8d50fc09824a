import { checked, nativeFunction } from './native-function.ts'

const shutdownCall = nativeFunction('int shutdown(int fd, int how)')
const SHUT_WR = 1

/** Says that nothing more will be sent; what the other end sends is still read (shutdown(2)). Throws SystemCallError. */
export const endOutput = (socket: number): void => void checked('shutdown', shutdownCall(socket, SHUT_WR))
