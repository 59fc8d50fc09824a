import { TicketKeyRing } from '../tunnel/ticket-keys.ts'
import { TlsContexts } from '../tunnel/tls-contexts.ts'
import { NetworkSet, parseNetwork } from '../wire/ip-address.ts'
import { connectBackEnd } from './back-end.ts'
import type { ListenerPlan, Serve } from './control-messages.ts'
import type { Service } from './session.ts'

/**
 * The services of an order, ready for clients. Throws what OpenSSL says if a certificate or the
 * cipher list cannot be used.
 */
export function servicesOf(order: Serve): readonly Service[] {
  const tickets = new TicketKeyRing(order.ticketKeys)
  return order.listeners.map(listener => serviceOf(listener, order, tickets))
}

function serviceOf(listener: ListenerPlan, order: Serve, tickets: TicketKeyRing): Service {
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
