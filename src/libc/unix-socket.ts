import { checked, nativeFunction } from './native-function.ts'

const socketCall = nativeFunction('int socket(int domain, int type, int protocol)')
const connectCall = nativeFunction('int connect(int fd, const void *address, int size)')

const AF_UNIX = 1
const SOCK_STREAM = 1
const SOCK_NONBLOCK = 0o4000
const SOCK_CLOEXEC = 0o2000000
/** sizeof(sun_path), with its NUL. */
const LONGEST_PATH = 108

/** A Unix stream socket, connected to nothing; no program started later inherits it. The caller must close it. Throws SystemCallError. */
export const unixSocket = ({ blocking }: { readonly blocking: boolean }): number =>
  checked('socket', socketCall(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | (blocking ? 0 : SOCK_NONBLOCK), 0))

/** Connects it to whoever listens at a path, at once: a listener's queue that is full is an error for a socket that does not block (EAGAIN). Throws SystemCallError, RangeError. */
export function connectUnix(socket: number, path: string): void {
  const name = Buffer.from(path)
  if (name.length >= LONGEST_PATH) throw new RangeError(`the path of a Unix socket ends at ${LONGEST_PATH - 1} octets`)
  const address = Buffer.alloc(2 + LONGEST_PATH)
  address.writeUInt16LE(AF_UNIX, 0)
  name.copy(address, 2)
  checked('connect', connectCall(socket, address, address.length))
}
