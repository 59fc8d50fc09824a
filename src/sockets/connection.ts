/**
 * Connections, whatever engine carries them: what a session sees of one, its idle time, and two of
 * them joined.
 */
import type { Duplex } from 'node:stream'

/** What happens on a connection. */
export interface ConnectionListener {
  /** Octets have come; they are the listener's to keep. */
  data(octets: Buffer): void
  /** The peer sends no more. It may still read. */
  end(): void
  /**
   * `unsent` has come down to 0. It is told after octets were left unsent at the end of a turn of
   * the event loop; octets that
   * the kernel takes in the turn in which they are written need not be told of. Never from inside
   * `write` or `writeChunk`.
   */
  drained(): void
  /**
   * The connection is closed, whoever closed it: nothing comes after this. It may be told from
   * inside `destroy` and `end`.
   */
  closed(): void
}

/** A byte stream with a client at its other end, whatever carries it. It is paused until it is first resumed. */
export interface Connection {
  /**
   * Tells this listener from now on, instead of the one before; undefined: nobody. On a closed
   * connection it is told `closed`.
   */
  listen(listener: ConnectionListener | undefined): void
  readonly isPaused: boolean
  /**
   * The listener is told of no octets and no end until `resume`; they stay with the kernel. If the client resets the
   * connection meanwhile, `closed` may come at once, or only with the next octets written or after
   * `resume`: a paused stream
   * of the runtime does not look at its socket. A session that may pause for long needs a timer.
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
   * Reads at most so many octets at a time from now on, where the engine can: they are the octets
   * that a listener which pauses
   * has to keep. Without it, and on streams of the runtime, one read brings up to 64 KiB.
   */
  readAtMost(octets: number): void
  /**
   * Octets written that the kernel has not taken. Those written in this turn of the event loop may
   * not count until it ends.
   */
  readonly unsent: number
  readonly isDestroyed: boolean
  /**
   * Calls back once the client's connection is closed here, before the listener is told `closed`;
   * also if it closes as the
   * stream that it became. Never after `handOver`. On a closed connection the callback comes at once, in a microtask.
   */
  onceClosed(callback: () => void): void
  /** Calls back once nothing has been read or written for so many milliseconds. */
  onIdle(milliseconds: number, idle: () => void): void
  /**
   * Sends last words, in Latin-1, and closes when everything written is on its way; what still
   * comes is thrown away.
   */
  end(lastWords?: string): void
  /** Closes at once, also the stream that the connection became; octets that are unsent are lost. */
  destroy(): void
  /**
   * The same connection as a stream of the runtime, paused, that first sends what is unsent. This
   * object is done with it:
   * `isDestroyed` is true, and the listener is told nothing more. An error destroys the stream.
   * Throws if the connection is closed.
   */
  toStream(): Duplex
  /**
   * Lets another process have the connection: `give` is called with the descriptor, and returns
   * whether the other process
   * gets it. If so, the connection is closed here, and nobody is told. Octets read so far are not
   * part of it. False, and
   * nothing has happened, if `give` says so, with octets unsent, and wherever octets pass through
   * this process: TLS, relays, and
   * all connections of the engine `node`.
   */
  handOver(give: (descriptor: number) => boolean): boolean
}

/** Calls back once nothing has happened for so long. Not set, or cleared, it does nothing. */
export class IdleTimer {
  #timer: NodeJS.Timeout | undefined

  /** Begins anew with so many milliseconds. */
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
