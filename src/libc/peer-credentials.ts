import type { Socket } from 'node:net'
import koffi from 'koffi'
import { descriptorOf } from './descriptor.ts'

/** Who is at the other end of a Unix socket, as the kernel knows it (SO_PEERCRED, unix(7)). */
export type PeerCredentials = { readonly pid: number; readonly uid: number; readonly gid: number }

const SOL_SOCKET = 1
const SO_PEERCRED = 17

const load = () => {
  const libc = koffi.load('libc.so.6')
  return libc.func('int getsockopt(int fd, int level, int name, void *value, _Inout_ uint32_t *length)')
}
let getsockopt: ReturnType<typeof load> | undefined

/** Credentials of the peer at the time it connected. Throws if the socket is no connected Unix socket. */
export function peerCredentials(socket: Socket): PeerCredentials {
  getsockopt ??= load()
  const value = Buffer.alloc(12)
  const failed: unknown = getsockopt(descriptorOf(socket), SOL_SOCKET, SO_PEERCRED, value, [value.length])
  if (failed !== 0) throw new Error(`getsockopt SO_PEERCRED: errno ${koffi.errno()}`)
  return { pid: value.readInt32LE(0), uid: value.readUInt32LE(4), gid: value.readUInt32LE(8) }
}
