/**
 * Descriptors 0 and 1 of a program that an inetd, tcpserver or a checker starts on a connection.
 */
import { Socket } from 'node:net'
import type { Readable, Writable } from 'node:stream'

/**
 * Opens descriptor 0, a socket or a pipe. For a file or a terminal, as in a test by hand, returns
 * the runtime's own stream.
 */
export function standardInput(): Readable {
  try {
    return new Socket({ fd: 0, readable: true, writable: false })
  } catch {
    return process.stdin // ERR_INVALID_FD_TYPE: it is a file
  }
}

/** Opens descriptor 1, like `standardInput`. */
export function standardOutput(): Writable {
  try {
    return new Socket({ fd: 1, readable: false, writable: true })
  } catch {
    return process.stdout // ERR_INVALID_FD_TYPE: it is a file
  }
}
