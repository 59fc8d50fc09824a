/** The interface of every client connection, its idle timer, and the join of two connections. */
import type { Duplex } from 'node:stream'

/** What happens on a connection. */
export interface ConnectionListener {
  /** Octets have come; they are the listener's to keep. */
  data(octets: Buffer): void
  /** The peer sends no more. It may still read. */
  end(): void
  /**
   * `unsent` is 0 again. Called if octets were unsent at the end of a turn of the event loop; not
   * for octets that the kernel accepts in the turn of their write. Never called from inside `write`
   * or `writeChunk`.
   */
  drained(): void
  /**
   * The connection is closed, by either side: no callback follows. It may be called from inside
   * `destroy` and `end`.
   */
  closed(): void
}

/** A byte stream to a client, of any engine. It is paused until it is first resumed. */
export interface Connection {
  /**
   * Replaces the listener; undefined removes it. On a closed connection the new listener gets
   * `closed`.
   */
  listen(listener: ConnectionListener | undefined): void
  readonly isPaused: boolean
  /**
   * The listener gets no octets and no end until `resume`; they stay in the kernel. If the client
   * resets the connection during a pause, `closed` comes at once, with the next write, or after
   * `resume`. A paused stream of the runtime does not read its socket. A session that may pause for
   * long needs a timer.
   */
  pause(): void
  resume(): void
  /**
   * Sends a text in Latin-1 and octets behind it, at the latest with this turn of the event loop;
   * both may change once this returns. Nothing happens on a closed connection.
   */
  write(text: string, octets?: Uint8Array): void
  /**
   * Sends octets that must not change until this is fulfilled: true when they are on their way,
   * false if the connection is closed or ending.
   */
  writeChunk(octets: Uint8Array): Promise<boolean>
  /**
   * Limits the octets of one read from now on, where the engine can: a listener that pauses has to
   * keep them. Without it, and on streams of the runtime, one read brings up to 64 KiB.
   */
  readAtMost(octets: number): void
  /**
   * Written octets that the kernel has not accepted. Those written in this turn of the event loop
   * may not count until it ends.
   */
  readonly unsent: number
  readonly isDestroyed: boolean
  /**
   * Calls back once the client's connection is closed here, before the listener's `closed`. Also if
   * it closes as the stream that it became. Never after `handOver`. On a closed connection the
   * callback comes in a microtask.
   */
  onceClosed(callback: () => void): void
  /** Calls back if no octet is read or written for this number of milliseconds. */
  onIdle(milliseconds: number, idle: () => void): void
  /**
   * Sends the last octets, in Latin-1, and closes when all output is sent; later input is
   * discarded.
   */
  end(lastWords?: string): void
  /**
   * Closes at once, also the stream that the connection became; octets that are unsent are lost.
   */
  destroy(): void
  /**
   * The same connection as a stream of the runtime, paused, that first sends the unsent octets.
   * This object is then unused: `isDestroyed` is true, and the listener gets no more callbacks. An
   * error destroys the stream. Throws if the connection is closed.
   */
  toStream(): Duplex
  /**
   * Hands the connection over to another process. `give` is called with the descriptor, and returns
   * whether the other process gets it. If so, the connection is closed here, and no listener is
   * called. Octets read so far are not part of it.
   *
   * Returns false, without an effect, if `give` returns false or if octets are unsent. Also if
   * octets pass through this process: TLS, relays, and all connections of the engine `node`.
   */
  handOver(give: (descriptor: number) => boolean): boolean
}

/** Calls back after a time without activity. Not set, or cleared, it does nothing. */
export class IdleTimer {
  #timer: NodeJS.Timeout | undefined

  /** Restarts with this number of milliseconds. */
  set(milliseconds: number, idle: () => void): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(idle, milliseconds)
  }

  /** Something has happened: the time begins again. */
  refresh(): void {
    this.#timer?.refresh()
  }

  clear(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
  }
}

/** A connection whose output can be ended while its input goes on. */
export interface HalfClosable extends Connection {
  /** Ends the output after the written octets, and continues to read. */
  endOutput(): void
}

/** Octets that one side has not accepted, above which nothing more is read from the other. */
const HIGH_WATER = 65_536
/** Octets of a reply that are cheaper to copy than to wait for. */
const SMALL = 4_096
/** Milliseconds that the server is given to take what a client said before it left. */
const LINGER_MS = 5_000

export type JoinOptions = {
  /** Milliseconds without an octet in either direction after which both are closed. */
  readonly idleLimit: number
}

/**
 * Why the connections ended. `idle`: no octet came within the limit. `left`: the client closed
 * first. `ended`: the server closed first.
 */
export type JoinEnd = {
  readonly reason: 'idle' | 'left' | 'ended'
  readonly bytesFromClient: number
  readonly bytesFromServer: number
}

/**
 * Joins a client's connection to a server's until one of them is closed. Octets keep their order;
 * back-pressure and the end of the client's input are passed on.
 *
 * The last octets of the server are delivered, and so are the last octets of the client. Small
 * messages pass without a promise, an event or a timer each. Both connections may be paused. Never
 * rejects.
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
        // Closing with unread replies would reset the connection, and the server could lose
        // commands.
        server.endOutput()
        server.listen({ data: () => {}, end: settle, drained: () => {}, closed: settle })
        server.resume()
        linger = setTimeout(settle, LINGER_MS)
      },
    }
    const fromServer: ConnectionListener = {
      data: octets => {
        bytesFromServer += octets.length
        // A large part of a message is not copied once more: the garbage would make the process
        // grow.
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
