import { Socket } from 'node:net'
import type { Readable, Writable } from 'node:stream'
import type { Connection } from './session.ts'

/** A connection over two descriptors, 0 and 1 of a program under a UCSPI server: sockets, pipes or files. */
export function descriptorConnection(input: Readable, output: Writable): Connection {
  return {
    input,
    output,
    onIdle(milliseconds, idle) {
      const timer = setTimeout(idle, milliseconds)
      // A long message drains again and again as long as the client reads.
      input.on('data', () => timer.refresh())
      output.on('drain', () => timer.refresh())
      output.on('close', () => clearTimeout(timer))
    },
    destroy() {
      input.destroy()
      output.destroy()
    },
  }
}

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
