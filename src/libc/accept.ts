import { lastErrno, nativeFunction } from './native-function.ts'
import { readSocketName, type SocketName } from './socket-name.ts'

const accept4 = nativeFunction('int accept4(int fd, void *address, void *length, int flags)')

const SOCK_CLOEXEC = 0o2000000
const SOCK_NONBLOCK = 0o4000
/** struct sockaddr_storage. */
const SIZE = 128

const address = Buffer.alloc(SIZE)
const length = Buffer.alloc(4)

/** A connection just accepted: its descriptor, which is the caller's, and its other end. */
export type Accepted = { readonly fd: number; readonly peer: SocketName | undefined }

/**
 * Takes the next connection of a listening socket, which must not be blocking. A negative errno if there is none. No program started later
 * inherits the descriptor; `blocking` is for one that is started on it on purpose.
 */
export function acceptFrom(listening: number, { blocking }: { readonly blocking: boolean }): Accepted | number {
  length.writeUInt32LE(SIZE)
  const fd = accept4(listening, address, length, SOCK_CLOEXEC | (blocking ? 0 : SOCK_NONBLOCK))
  return fd < 0 ? -lastErrno() : { fd, peer: readSocketName(address, length.readUInt32LE(0)) }
}
