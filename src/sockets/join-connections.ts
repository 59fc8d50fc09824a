import type { Connection, ConnectionListener } from './connection.ts'

/** A connection whose output can be ended while its input goes on. */
export interface HalfClosable extends Connection {
  /** Sends nothing more once everything written is on its way, and goes on listening. */
  endOutput(): void
}

/** Octets that one side has not taken, above which nothing more is read from the other. */
const HIGH_WATER = 65_536
/** Octets of a reply that are cheaper to copy than to wait for. */
const SMALL = 4_096
/** Milliseconds that the server is given to take what a client said before it left. */
const LINGER_MS = 5_000

export type JoinOptions = {
  /** Milliseconds without an octet in either direction after which both are closed. */
  readonly idleLimit: number
}

/** `idle`: nothing came for too long. `left`: the client closed first. `ended`: the server did. */
export type JoinEnd = {
  readonly reason: 'idle' | 'left' | 'ended'
  readonly bytesFromClient: number
  readonly bytesFromServer: number
}

/**
 * Joins a client's connection to a server's until one of them is closed: octets in order,
 * back-pressure passed on, the end of the
 * client's input too. What the server sent before it closed is delivered, and what the client sent
 * before it left reaches the
 * server. Small messages pass without a promise, an event or a timer of their own. Both connections
 * may be paused. Never rejects.
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
        if (server.unsent > HIGH_WATER) client.pause()
      },
      end: () => server.endOutput(),
      drained: () => server.resume(),
      closed: () => {
        reason ??= 'left'
        if (server.isDestroyed) return settle()
        // Closing over replies that nobody read would reset the connection, and the server could lose commands with it.
        server.endOutput()
        server.listen({ data: () => {}, end: settle, drained: () => {}, closed: settle })
        server.resume()
        linger = setTimeout(settle, LINGER_MS)
      },
    }
    const fromServer: ConnectionListener = {
      data: octets => {
        bytesFromServer += octets.length
        // A large part of a message is not copied once more: the garbage would make the process grow.
        if (octets.length > SMALL) void client.writeChunk(octets)
        else client.write('', octets)
        if (client.unsent > HIGH_WATER) server.pause()
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
