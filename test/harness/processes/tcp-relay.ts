import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'

/** A TCP relay to a server of 127.0.0.1. A test can delay its data or break its connections. */
export class TcpRelay {
  /** Delay of each piece of data, in milliseconds. */
  delay = 0
  readonly #server: Server
  readonly #sockets = new Set<Socket>()

  private constructor(to: number) {
    this.#server = createServer(near => {
      const far = connect(to, '127.0.0.1')
      this.#join(near, far)
      this.#join(far, near)
    })
  }

  /** A relay from that address (port 0: a free port) to the port. */
  static async open(from: { readonly host: string; readonly port: number }, to: number): Promise<TcpRelay> {
    const relay = new TcpRelay(to)
    relay.#server.listen(from.port, from.host)
    await once(relay.#server, 'listening')
    return relay
  }

  get port(): number {
    const address = this.#server.address()
    return address === null || typeof address === 'string' ? 0 : address.port
  }

  close(): void {
    this.#server.close()
    for (const socket of this.#sockets) socket.destroy()
  }

  #join(from: Socket, to: Socket): void {
    this.#sockets.add(from)
    from.on('error', () => {}) // the event 'close' follows
    from.on('data', chunk => {
      if (this.delay === 0) to.write(chunk)
      else setTimeout(() => to.write(chunk), this.delay)
    })
    from.on('close', () => {
      this.#sockets.delete(from)
      to.destroy()
    })
  }
}
