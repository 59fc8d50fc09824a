import type { Socket } from 'node:net'
import { descriptorOf } from './descriptor.ts'
import { checked, nativeFunction } from './native-function.ts'

/** Who is at the other end of a Unix socket, as the kernel knows it (SO_PEERCRED, unix(7)). */
export type PeerCredentials = { readonly pid: number; readonly uid: number; readonly gid: number }

const SOL_SOCKET = 1
const SO_PEERCRED = 17

const getsockopt = nativeFunction('int getsockopt(int fd, int level, int name, void *value, void *length)')

/** Credentials of the peer at the time it connected. Throws if the socket is no connected Unix socket. */
export function peerCredentials(socket: Socket): PeerCredentials {
  const value = Buffer.alloc(12)
  const length = Buffer.alloc(4)
  length.writeUInt32LE(value.length)
  checked('getsockopt(SO_PEERCRED)', getsockopt(descriptorOf(socket), SOL_SOCKET, SO_PEERCRED, value, length))
  return { pid: value.readInt32LE(0), uid: value.readUInt32LE(4), gid: value.readUInt32LE(8) }
}
