import { Socket } from 'node:net'
import type { Readable, Writable } from 'node:stream'

/** Descriptor 0. A file or a terminal (a test by hand) is read by Node's own stream. */
export function standardInput(): Readable {
  try {
    return new Socket({ fd: 0, readable: true, writable: false })
  } catch {
    return process.stdin
  }
}

/** Descriptor 1; as standardInput. */
export function standardOutput(): Writable {
  try {
    return new Socket({ fd: 1, readable: false, writable: true })
  } catch {
    return process.stdout
  }
}
