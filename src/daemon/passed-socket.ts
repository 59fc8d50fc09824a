import type { Socket } from 'node:net'
import { descriptorOf } from '../libc/descriptor.ts'
import { loadNativeModule } from '../libc/native-function.ts'
import { receiveDescriptor, sendDescriptor } from '../libc/pass-descriptor.ts'
import type { ClientSocket } from './client-socket.ts'

export { loadNativeModule }

/**
 * Gives a client's socket to the process at the other end of `through`, a Unix socket from which that process reads by takeDescriptor alone, and closes it
 * here. What this process has read of the client is not part of it. False, and nothing has happened, if it cannot be done now.
 */
export function giveSocket(through: Socket, client: ClientSocket): boolean {
  try {
    return client.giveAway(fd => sendDescriptor(descriptorOf(through), fd))
  } catch {
    return false // one of the two is closed: whoever notices says so
  }
}

/** The next descriptor that was given through a socket, as receiveDescriptor says it. Its owner must close it. */
export function takeDescriptor(through: Socket): number | null | undefined {
  try {
    return receiveDescriptor(descriptorOf(through))
  } catch {
    return undefined // closed: nobody gives anything any more
  }
}
