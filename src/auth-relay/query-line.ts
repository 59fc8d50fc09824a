/** One request to a line service of this host, with a deadline. */

import { once } from 'node:events'
import { createConnection } from 'node:net'
import { createInterface } from 'node:readline'
import type { SocketAddress } from '../process/socket-address.ts'

/**
 * Sends a line to a service of this host and returns the first line of its answer. Rejects without
 * one within `deadlineMs`.
 */
export async function queryLine(address: SocketAddress, query: string, deadlineMs: number): Promise<string> {
  if (address.kind === 'descriptor') throw new Error('a descriptor of another program cannot be reached')
  const socket = createConnection(
    address.kind === 'unix' ? { path: address.path } : { host: address.host, port: address.port },
  )
  const signal = AbortSignal.timeout(deadlineMs)
  try {
    await once(socket, 'connect', { signal })
    socket.write(`${query}\n`)
    const lines = createInterface({ input: socket })
    const ended = once(lines, 'close', { signal }).then(() => {
      throw new Error('the connection was closed without an answer')
    })
    const [answer] = await Promise.race([once(lines, 'line', { signal }), ended])
    return String(answer)
  } finally {
    socket.on('error', () => {})
    socket.destroy()
  }
}
