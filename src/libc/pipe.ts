import { checked, nativeFunction } from './native-function.ts'

const pipe2 = nativeFunction('int pipe2(void *descriptors, int flags)')
const socketpairCall = nativeFunction('int socketpair(int domain, int type, int protocol, void *descriptors)')
const O_CLOEXEC = 0o2000000
const AF_UNIX = 1
const SOCK_STREAM = 1

/** An anonymous pipe: blocking, both ends close-on-exec. The caller closes them. Throws SystemCallError (EMFILE). */
export function openPipe(): { readonly readEnd: number; readonly writeEnd: number } {
  const descriptors = Buffer.alloc(8)
  checked('pipe2', pipe2(descriptors, O_CLOEXEC))
  return { readEnd: descriptors.readInt32LE(0), writeEnd: descriptors.readInt32LE(4) }
}

/** A connected pair of Unix stream sockets: blocking, close-on-exec. The caller closes them. Throws SystemCallError (EMFILE). */
export function openSocketPair(): readonly [number, number] {
  const descriptors = Buffer.alloc(8)
  checked('socketpair', socketpairCall(AF_UNIX, SOCK_STREAM | O_CLOEXEC, 0, descriptors))
  return [descriptors.readInt32LE(0), descriptors.readInt32LE(4)]
}
