import type { Server, Socket } from 'node:net'

/**
 * The file descriptor under a socket or server. Node has no public name for it; system calls (getsockopt, posix_spawn)
 * need it. Throws if there is none: the socket is closed, or was never open.
 */
export function descriptorOf(socket: Socket | Server): number {
  const handle: unknown = Reflect.get(socket, '_handle')
  const fd: unknown = typeof handle === 'object' && handle !== null ? Reflect.get(handle, 'fd') : undefined
  if (typeof fd !== 'number' || fd < 0) throw new Error('the socket has no file descriptor: it is closed')
  return fd
}
