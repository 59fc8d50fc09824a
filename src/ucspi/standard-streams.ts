/**
 * Descriptors 0 and 1 of a program that an inetd, tcpserver or a checker starts on a connection.
 */
import { Socket } from 'node:net'
import type { Readable, Writable } from 'node:stream'

/** Descriptor 0. The runtime's own stream reads a file or a terminal, in a test by hand. */
export function standardInput(): Readable {
  try {
    return new Socket({ fd: 0, readable: true, writable: false })
  } catch {
    return process.stdin // ERR_INVALID_FD_TYPE: it is a file
  }
}

/** Descriptor 1, as `standardInput`. */
export function standardOutput(): Writable {
  try {
    return new Socket({ fd: 1, readable: false, writable: true })
  } catch {
    return process.stdout // as above
  }
}
