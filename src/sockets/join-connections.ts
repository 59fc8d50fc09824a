/** The join of two connections: octets, back-pressure and ends pass from each to the other. */
import type { Connection, ConnectionListener, HalfClosable } from './connection.ts'

/** Unsent octets of one side above which the other side is not read. */
const HIGH_WATER_OCTETS = 65_536
/** Largest chunk in octets that is copied, because a copy costs less than a promise. */
const SMALL_OCTETS = 4_096
/** Time for the server to end after the client has closed. It may still read the last commands. */
const LINGER_MS = 5_000

type JoinOptions = {
  /** Milliseconds without an octet in either direction after which both are closed. */
  readonly idleLimit: number
}

/**
 * The end of a join. `idle`: no octet came within the limit. `left`: the client closed first.
 * `ended`: the server closed first.
 */
type JoinEnd = {
  readonly reason: 'idle' | 'left' | 'ended'
  readonly bytesFromClient: number
  readonly bytesFromServer: number
}

/**
 * Joins a client's connection to a server's until one of them is closed. Octets keep their order;
 * back-pressure and the end of the client's input are passed on. The last octets of both sides are
 * delivered. Both connections may be paused. Never rejects.
 *
 * Small messages pass without a promise, an event or a timer each, because these cost more than the
 * message.
 */
export function joinConnections(
  client: Connection,
  server: HalfClosable,
  { idleLimit }: JoinOptions,
): Promise<JoinEnd> {
  return new Promise(resolve => {
    let bytesFromClient = 0
    let bytesFromServer = 0
    let reason: JoinEnd['reason'] | undefined
    let linger: NodeJS.Timeout | undefined
    const settle = (): void => {
      clearTimeout(linger)
      client.listen(undefined)
      server.listen(undefined)
      server.destroy()
      resolve({ reason: reason ?? 'ended', bytesFromClient, bytesFromServer })
    }
    const fromClient: ConnectionListener = {
      data: octets => {
        bytesFromClient += octets.length
        server.write('', octets)
        if (server.unsent > HIGH_WATER_OCTETS) client.pause()
      },
      end: () => server.endOutput(),
      drained: () => server.resume(),
      closed: () => {
        reason ??= 'left'
        if (server.isDestroyed) return settle()
        // Read and discard the replies: closing with unread replies would reset the connection, and
        // the server could lose commands.
        server.endOutput()
        server.listen({ data: () => {}, end: settle, drained: () => {}, closed: settle })
        server.resume()
        linger = setTimeout(settle, LINGER_MS)
      },
    }
    const fromServer: ConnectionListener = {
      data: octets => {
        bytesFromServer += octets.length
        // Large chunks are not copied, because the garbage would increase the memory of the
        // process.
        if (octets.length > SMALL_OCTETS) void client.writeChunk(octets)
        else client.write('', octets)
        if (client.unsent > HIGH_WATER_OCTETS) server.pause()
      },
      end: () => {
        reason ??= 'ended'
        server.listen(undefined)
        server.destroy()
        client.end()
        if (client.isDestroyed) settle()
      },
      drained: () => client.resume(),
      closed: () => {
        reason ??= 'ended'
        client.end()
        if (client.isDestroyed) settle()
      },
    }
    client.onIdle(idleLimit, () => {
      reason = 'idle'
      client.destroy()
    })
    client.listen(fromClient)
    server.listen(fromServer)
    client.resume()
    server.resume()
  })
}
