import { closeSync } from 'node:fs'
import type { Socket } from 'node:net'
import { descriptorOf } from '../libc/descriptor.ts'
import { loadNativeModule } from '../libc/native-function.ts'
import { receiveDescriptor, sendDescriptor } from '../libc/pass-descriptor.ts'

export { loadNativeModule }

/**
 * Gives a client's socket to the process at the other end of `through`, a Unix socket from which that process reads by takeDescriptor alone.
 * What this process has read of the client is not part of it. The caller drains the socket before and destroys it after, in the same turn of the
 * event loop: nothing can then be read in between and be lost. False, and nothing has happened, if it cannot be done now.
 */
export function giveSocket(through: Socket, client: Socket): boolean {
  try {
    return sendDescriptor(descriptorOf(through), descriptorOf(client))
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

/** Closes a descriptor that nobody has made a socket of. */
export const dropDescriptor = (descriptor: number): void => closeSync(descriptor)
