import type { Socket } from 'node:net'
import { peerCredentials } from '../libc/sockets.ts'

/**
 * Decides, beside the mode of the directory, who may speak on a Unix socket: the kernel's word for the peer's uid
 * (SO_PEERCRED). Root and our own account always may. Anything unreadable is a no.
 */
export function peerIsAllowed(socket: Socket, uids: ReadonlySet<number>): boolean {
  try {
    const { uid } = peerCredentials(socket)
    return uid === 0 || uid === process.geteuid?.() || uids.has(uid)
  } catch {
    return false // closed meanwhile, or no Unix socket: nobody is there to be allowed
  }
}
