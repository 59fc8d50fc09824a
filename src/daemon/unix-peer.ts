import type { Socket } from 'node:net'
import { type PeerCredentials, peerCredentials } from '../libc/peer-credentials.ts'

/**
 * Decides, beside the mode of the directory, who may speak on a Unix socket: the kernel's word for the peer's uid
 * (SO_PEERCRED). Root and our own account always may. Undefined, also for anything unreadable, is a no.
 */
export function allowedPeer(socket: Socket, uids: ReadonlySet<number>): PeerCredentials | undefined {
  try {
    const peer = peerCredentials(socket)
    return peer.uid === 0 || peer.uid === process.geteuid?.() || uids.has(peer.uid) ? peer : undefined
  } catch {
    return undefined // closed meanwhile, or no Unix socket: nobody is there to be allowed
  }
}

/** As allowedPeer, for those who need not know which process it is. */
export const peerIsAllowed = (socket: Socket, uids: ReadonlySet<number>): boolean =>
  allowedPeer(socket, uids) !== undefined
