import { constants } from 'node:os'
import { lastErrno, nativeFunction, SystemCallError } from './native-function.ts'

/** The address that a socket is bound to (getsockname(2)). A Unix socket without a name has the path ''. */
export type SocketName =
  | { readonly family: 'unix'; readonly path: string }
  /** 4 or 16 octets. */
  | { readonly family: 'internet'; readonly octets: Uint8Array; readonly port: number }

const [AF_UNIX, AF_INET, AF_INET6] = [1, 2, 10]
/** struct sockaddr_storage. */
const SIZE = 128

const getsockname = nativeFunction('int getsockname(int fd, void *address, void *length)')

/** Where a socket is bound. Undefined for what is no socket, or one of another family. Throws SystemCallError for a descriptor that is closed. */
export function socketName(descriptor: number): SocketName | undefined {
  const address = Buffer.alloc(SIZE)
  const length = Buffer.alloc(4)
  length.writeUInt32LE(SIZE)
  if (getsockname(descriptor, address, length) === -1) {
    const errno = lastErrno()
    if (errno === constants.errno.ENOTSOCK) return undefined
    throw new SystemCallError('getsockname', errno)
  }
  return readSocketName(address, length.readUInt32LE(0))
}

/** A struct sockaddr of so many octets. The octets of an address are a view of it. */
export function readSocketName(address: Buffer, length: number): SocketName | undefined {
  switch (address.readUInt16LE(0)) {
    case AF_UNIX: {
      const name = address.toString('utf8', 2, Math.min(length, SIZE))
      // An abstract name begins with NUL; a path ends with one.
      return { family: 'unix', path: name.startsWith('\0') ? name : name.replace(/\0.*$/s, '') }
    }
    case AF_INET:
      return { family: 'internet', octets: address.subarray(4, 8), port: address.readUInt16BE(2) }
    case AF_INET6:
      return { family: 'internet', octets: address.subarray(8, 24), port: address.readUInt16BE(2) }
    default:
      return undefined
  }
}
