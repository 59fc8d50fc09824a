import { checked, nativeFunction } from './native-function.ts'

const socketpair = nativeFunction('int socketpair(int domain, int type, int protocol, void *ends)')

const AF_UNIX = 1
const SOCK_STREAM = 1
const SOCK_CLOEXEC = 0o2000000

/** Two Unix stream sockets that are connected to each other; no program started later inherits either by itself. The caller must close both. Throws SystemCallError. */
export function socketPair(): readonly [number, number] {
  const ends = Buffer.alloc(8)
  checked('socketpair', socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
  return [ends.readInt32LE(0), ends.readInt32LE(4)]
}
