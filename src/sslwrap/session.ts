/** A session of sslwrap: its admission, the handshake, the preamble, and the relay. */
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { TLSSocket } from 'node:tls'
import type { DailyHints, Log } from '../base/log.ts'
import type { ConnectionLimits, WaitingConnections } from '../process/connection-limits.ts'
import { acceptTls, isOldTls, NO_TLS } from '../tunnel/accept-tls.ts'
import { holdDialogue } from '../tunnel/preamble-dialogue.ts'
import { relay } from '../tunnel/relay.ts'
import { type IpAddress, parseSocketIp } from '../wire/ip-address.ts'
import { type SessionId, sessionIdOfGreeting } from '../wire/login-event.ts'
import { formatProxyV1, formatProxyV2, formatSslPreamble, type ProxyTls } from '../wire/preamble.ts'
import { BackEndUnavailable, type ClientEndpoints, type Secured, type Service } from './services.ts'

/** Time for the first octet. It is short, because a client of TLS sends first. */
const FIRST_OCTET_MS = 5_000
/** Time for a client to close after the last reply. */
const LAST_REPLY_MS = 5_000

/** A client whose handshake is not complete. `giveWay` closes it, so that its place is free. */
export type Handshake = { giveWay(): void }

export type TlsSessionParts = {
  readonly service: Service
  readonly limits: ConnectionLimits
  /** If every place is taken, one of these is closed for a new client. */
  readonly handshakes: WaitingConnections<Handshake>
  readonly hints: DailyHints
  readonly log: Log
  readonly nextId: () => SessionId
}

/**
 * Serves one client from its first octet to its last. Never rejects because of the client or the
 * server. In each case the socket is closed at the end, and its place is free. `ends`: the
 * addresses of the client, if they differ from those of the socket.
 */
export async function serveClient(raw: Socket, parts: TlsSessionParts, ends = endsOf(raw)): Promise<void> {
  const ip = ends?.source.ip
  const reason = ip === undefined ? undefined : admit(ip, parts)
  if (ip === undefined || ends === undefined || reason !== undefined) {
    // The client gets no reply, because before the handshake there is no channel for it.
    raw.on('error', ignore)
    raw.destroy()
    if (reason !== undefined) parts.log.warn('connection_refused', { ip, reason, listener: parts.service.name })
    return
  }
  const place = new Place(raw, ip, parts)
  try {
    await secureAndServe(raw, ends, place, parts)
  } finally {
    place.leave()
  }
}

/** A remedy for the administrator, for a reason of acceptTls; undefined if none is known. */
function remedyFor(reason: string): string | undefined {
  if (isOldTls(reason))
    return 'for old devices: add a listener with tls = "old", and their networks to sslwrap.old_tls_nets'
  if (reason === NO_TLS) return 'clients without TLS belong to port 110, and a PROXY header is not read here'
  return undefined
}

/** Takes a place for a client, or returns why it gets none. */
function admit(
  ip: IpAddress,
  { service, limits, handshakes }: TlsSessionParts,
): 'network' | 'max_connections' | 'max_per_address' | undefined {
  if (service.allow?.has(ip) === false) return 'network'
  // Check this limit first: a client that has reached it must not displace another client.
  if (!limits.customerHasRoom(ip)) return 'max_per_address'
  if (limits.acquire(ip) === 'ok') return undefined
  handshakes.toEvict()?.giveWay()
  return limits.acquire(ip) === 'ok' ? undefined : 'max_connections'
}

/** The place of a client within the limits. It is freed once, with the client's socket. */
class Place implements Handshake {
  readonly #raw: Socket
  readonly #ip: IpAddress
  readonly #parts: TlsSessionParts
  #isLeft = false
  #gaveWay = false

  constructor(raw: Socket, ip: IpAddress, parts: TlsSessionParts) {
    this.#raw = raw
    this.#ip = ip
    this.#parts = parts
    parts.handshakes.add(this, parts.limits.customerOf(ip))
  }

  /** True if the client was closed for another one. The failure of its handshake is not logged. */
  get gaveWay(): boolean {
    return this.#gaveWay
  }

  /** Ends the time in which another client can displace this one, because the handshake is over. */
  keep(): void {
    this.#parts.handshakes.delete(this)
  }

  giveWay(): void {
    const { log, service } = this.#parts
    this.#gaveWay = true
    this.leave()
    log.warn('connection_refused', { ip: this.#ip, reason: 'max_connections', listener: service.name })
  }

  leave(): void {
    if (this.#isLeft) return
    this.#isLeft = true
    this.keep()
    this.#raw.destroy()
    this.#parts.limits.release(this.#ip)
  }
}

async function secureAndServe(raw: Socket, ends: ClientEndpoints, place: Place, parts: TlsSessionParts): Promise<void> {
  const { service, log } = parts
  const ip = ends.source.ip
  const accepted = await acceptTls(raw, {
    contexts: service.contexts,
    alpn: service.protocol === 'other' ? undefined : service.protocol,
    alpnStrict: service.alpnStrict,
    clientCertificate: service.clientCertificate,
    firstOctetLimit: FIRST_OCTET_MS,
    limit: service.handshakeLimit,
  })
  place.keep()
  if (place.gaveWay) return
  if (accepted.kind === 'closed') {
    log.debug('connection_closed', { ip, listener: service.name })
    return
  }
  if (accepted.kind === 'failed') {
    const known = remedyFor(accepted.reason)
    const remedy = known !== undefined && parts.hints.isDue(`${known} ${ip}`) ? known : undefined
    log.info('tls_failed', { ip, reason: accepted.reason, remedy, listener: service.name })
    return
  }
  accepted.socket.on('error', ignore)
  await joinBackEnd(accepted, ends, parts)
}

async function joinBackEnd(accepted: Secured, ends: ClientEndpoints, parts: TlsSessionParts): Promise<void> {
  const { service, log } = parts
  const client = accepted.socket
  const ip = ends.source.ip
  let id = parts.nextId()
  let server: Duplex | undefined
  try {
    server = await service.open(accepted, ends)
    if (client.destroyed) return
    const greeted = await introduce(server, accepted, ends, id, service)
    id = greeted.id ?? id
    if (greeted.final) {
      log.warn('upstream_failed', { id, ip, reason: 'the server greeted with a refusal', listener: service.name })
      await sendLast(client, greeted.bytes)
      return
    }
    log.info('client_connected', { id, ip, port: ends.source.port, ...tlsFields(accepted), listener: service.name })
    const started = performance.now()
    if (greeted.bytes.length > 0) client.write(greeted.bytes)
    const end = await relay(client, server, {
      idleLimit: service.idleLimit,
      // A POP3 session without QUIT changes nothing. A reset also prevents the check of a password
      // whose client has disconnected.
      resetsServer: service.protocol === 'pop3',
    })
    log.info('session_ended', {
      id,
      ip,
      reason: end.reason,
      first: end.first,
      detail: end.error,
      in: end.bytesFromClient,
      out: end.bytesFromServer + greeted.bytes.length,
      ms: Math.round(performance.now() - started),
    })
  } catch (error) {
    if (!(error instanceof BackEndUnavailable)) throw error
    log.error('upstream_failed', { ip, reason: error, listener: service.name })
    if (service.protocol === 'pop3') await sendLast(client, Buffer.from('-ERR [SYS/TEMP] service unavailable\r\n'))
  } finally {
    client.destroy()
    server?.destroy()
  }
}

/** The first octets for the client. `final`: no octets follow. `id`: from the server's greeting. */
type Greeted = { readonly bytes: Buffer; readonly final: boolean; readonly id?: SessionId | undefined }
const NOTHING_YET: Greeted = { bytes: Buffer.alloc(0), final: false }

/** Sends the preamble of the listener to the server. @throws BackEndUnavailable */
async function introduce(
  server: Duplex,
  accepted: Secured,
  ends: ClientEndpoints,
  id: SessionId,
  service: Service,
): Promise<Greeted> {
  switch (service.preamble) {
    case 'none':
      return NOTHING_YET
    case 'proxy-v1':
      server.write(formatProxyV1(ends.source, ends.destination))
      return NOTHING_YET
    case 'proxy-v2':
      server.write(
        formatProxyV2(ends.source, ends.destination, {
          alpn: accepted.alpn,
          authority: accepted.servername,
          uniqueId: id,
          tls: proxyTls(accepted.socket, service.clientCertificate !== 'none'),
        }),
      )
      return NOTHING_YET
    case 'ssl': {
      const end = await holdDialogue(server, {
        preamble: formatSslPreamble({ host: ends.source.ip, pass: service.preamblePassword }),
        reply: service.preambleReply,
        limit: service.connectLimit,
      })
      if (end.kind === 'failed') throw new BackEndUnavailable(end.reason, { cause: end.error })
      if (end.kind === 'refused') return { bytes: end.greeting, final: true }
      const bytes = end.rest.length === 0 ? end.greeting : Buffer.concat([end.greeting, end.rest])
      return { bytes, final: false, id: sessionIdOfGreeting(end.greeting.toString('latin1')) }
    }
  }
}

function proxyTls(socket: TLSSocket, asked: boolean): ProxyTls {
  // acceptTls accepts no client whose certificate is not trusted.
  const certificate = asked ? socket.getPeerX509Certificate() : undefined
  const commonName = certificate === undefined ? undefined : /^CN=(.+)$/m.exec(certificate.subject)?.[1]
  return {
    version: socket.getProtocol() ?? undefined,
    cipher: socket.getCipher().name,
    commonName,
    verified: certificate !== undefined,
  }
}

function tlsFields({ socket, servername, alpn }: Secured) {
  return { tls_version: socket.getProtocol() ?? undefined, cipher: socket.getCipher().name, sni: servername, alpn }
}

/**
 * Sends the last octets and close_notify. Settles when the client has closed, or after
 * LAST_REPLY_MS. Until then the client's input is read and discarded, because closing with unread
 * input would reset the connection and lose the last octets.
 */
function sendLast(client: TLSSocket, bytes: Buffer): Promise<void> {
  return new Promise(resolve => {
    const timer = setTimeout(resolve, LAST_REPLY_MS)
    client.once('close', () => {
      clearTimeout(timer)
      resolve()
    })
    client.resume()
    client.end(bytes)
  })
}

function endsOf({ remoteAddress, remotePort, localAddress, localPort }: Socket): ClientEndpoints | undefined {
  const [source, destination] = [parseSocketIp(remoteAddress), parseSocketIp(localAddress)]
  // A client that has already disconnected has no address.
  if (source === undefined || destination === undefined || remotePort === undefined || localPort === undefined)
    return undefined
  return { source: { ip: source, port: remotePort }, destination: { ip: destination, port: localPort } }
}

/**
 * Each stage reports errors by its outcome. An `error` event without a listener would end the
 * process.
 */
const ignore = (): void => {}
