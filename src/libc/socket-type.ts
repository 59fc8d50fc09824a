import { nativeFunction } from './native-function.ts'

const getsockopt = nativeFunction('int getsockopt(int fd, int level, int option, void *value, void *size)')
const SOL_SOCKET = 1
const SO_TYPE = 3
const SOCK_STREAM = 1

/** True for a stream socket; false for any other descriptor, and for none. */
export function isStreamSocket(descriptor: number): boolean {
  const type = Buffer.alloc(4)
  const size = Buffer.alloc(4)
  size.writeUInt32LE(type.length)
  return getsockopt(descriptor, SOL_SOCKET, SO_TYPE, type, size) === 0 && type.readUInt32LE(0) === SOCK_STREAM
}
