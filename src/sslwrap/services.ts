/** The rules for the clients of each listener, and the connection to the server behind it. */
import { createConnection, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { formatSocketAddress, type SocketAddress } from '../process/socket-address.ts'
import type { AcceptedTls } from '../tunnel/accept-tls.ts'
import { connectSharingReads } from '../tunnel/relay.ts'
import { TicketKeyRing } from '../tunnel/ticket-keys.ts'
import { TlsContexts } from '../tunnel/tls-contexts.ts'
import { NetworkSet, parseNetwork } from '../wire/ip-address.ts'
import type { Endpoint } from '../wire/preamble.ts'
import type { ServeOrder, TlsListener } from '../wire/workers/tls-worker.ts'

/**
 * The rules for the clients of a listener. A reload replaces the whole object; running sessions
 * keep the old one.
 */
export type Service = {
  readonly name: string
  /**
   * Connects to the server behind, or starts it, after the client's handshake. Rejects with
   * BackEndUnavailable.
   */
  readonly open: (client: Secured, ends: ClientEndpoints) => Promise<Duplex>
  readonly preamble: 'ssl' | 'proxy-v1' | 'proxy-v2' | 'none'
  readonly protocol: 'pop3' | 'smtp' | 'other'
  readonly contexts: TlsContexts
  /** Networks that may connect; undefined: all networks. */
  readonly allow: NetworkSet | undefined
  readonly preamblePassword: string
  readonly preambleReply: 'ok' | 'none'
  readonly alpnStrict: boolean
  readonly clientCertificate: 'none' | 'optional' | 'required'
  /** Milliseconds. */
  readonly handshakeLimit: number
  readonly connectLimit: number
  readonly idleLimit: number
}

/** A client whose handshake is complete. */
export type Secured = Extract<AcceptedTls, { kind: 'secure' }>
/** Both ends of the client's connection. */
export type ClientEndpoints = { readonly source: Endpoint; readonly destination: Endpoint }

/**
 * Makes the services of an order, one for each listener. Throws OpenSSL's error if a certificate or
 * the cipher list cannot be used.
 */
export function servicesOf(order: ServeOrder): readonly Service[] {
  const tickets = new TicketKeyRing(order.ticketKeys)
  return order.listeners.map(listener => serviceOf(listener, order, tickets))
}

function serviceOf(listener: TlsListener, order: ServeOrder, tickets: TicketKeyRing): Service {
  return {
    name: listener.name,
    open: () => connectBackEnd(listener.backend, order.connectLimit),
    preamble: listener.preamble,
    protocol: listener.protocol,
    contexts: new TlsContexts(
      listener.certificates,
      { versions: listener.versions, ciphers: order.ciphers, clientCa: order.clientCa },
      tickets,
    ),
    allow:
      listener.allow === undefined
        ? undefined
        : new NetworkSet(listener.allow.map(parseNetwork).filter(network => network !== undefined)),
    preamblePassword: order.preamblePassword ?? '',
    preambleReply: order.preambleReply,
    alpnStrict: order.alpnStrict,
    clientCertificate: order.clientCertificate,
    handshakeLimit: order.handshakeLimit,
    connectLimit: order.connectLimit,
    idleLimit: order.idleLimit,
  }
}

/**
 * The server behind is unreachable. The message is for the log; the client gets a generic sentence.
 */
export class BackEndUnavailable extends Error {
  override readonly name = 'BackEndUnavailable'
}

/**
 * Connects to the server behind. The socket allows a half-open connection, sends without Nagle's
 * delay, is paused and keeps an error listener.
 * @throws BackEndUnavailable after `limit` milliseconds, or if the server refuses.
 */
export function connectBackEnd(address: SocketAddress, limit: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = open(address)
    const name = formatSocketAddress(address)
    const fail = (why: string, cause?: Error): void => {
      clearTimeout(timer)
      socket.destroy()
      reject(new BackEndUnavailable(`${name}: ${why}`, { cause }))
    }
    const timer = setTimeout(() => fail(`no connection within ${limit} ms`), limit)
    const refused = (error: Error): void => fail('cannot connect', error)
    socket.once('error', refused)
    socket.once('connect', () => {
      clearTimeout(timer)
      socket.off('error', refused)
      // Between two stages of a session an error is ignored, because each stage first checks
      // `destroyed`.
      socket.on('error', () => {})
      resolve(socket)
    })
  })
}

function open(address: SocketAddress): Socket {
  switch (address.kind) {
    case 'tcp':
      return connectSharingReads(onread =>
        createConnection({ host: address.host, port: address.port, allowHalfOpen: true, noDelay: true, onread }),
      )
    case 'unix':
      return connectSharingReads(onread => createConnection({ path: address.path, allowHalfOpen: true, onread }))
    case 'descriptor':
      throw new TypeError('a back end is not a descriptor')
  }
}
