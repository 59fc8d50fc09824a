/** The server's side of a TLS handshake, with limits of time and the reasons of failures. */
import type { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import { destroyOnTlsError, onceSecure, removeKeylogHook, verifyErrorOf } from '../base/node-internals.ts'
import { type ClientHello, parseClientHello } from '../wire/client-hello.ts'
import type { TlsContexts } from './tls-contexts.ts'

export type AcceptTlsOptions = {
  readonly contexts: TlsContexts
  /** Application protocol of the listener, e.g. `pop3`. It is chosen if the client offers it. */
  readonly alpn?: string | undefined
  /**
   * Refuses clients that offer only other protocols (alert no_application_protocol). Otherwise they
   * are served without a protocol.
   */
  readonly alpnStrict?: boolean | undefined
  /**
   * `required`: the handshake fails without a certificate that one of the authorities has signed.
   */
  readonly clientCertificate?: 'none' | 'optional' | 'required' | undefined
  /** Milliseconds until the client's first octet. Undefined: only `limit` counts. */
  readonly firstOctetLimit?: number | undefined
  /** Milliseconds until the end of the handshake. */
  readonly limit: number
}

/**
 * The end of a handshake. `closed`: the peer closed the connection before its first octet, as
 * health checks and port scans do. `failed`: `reason` is for the log.
 */
export type AcceptedTls =
  | {
      readonly kind: 'secure'
      readonly socket: TLSSocket
      readonly servername: string | undefined
      readonly alpn: string | undefined
    }
  | { readonly kind: 'closed' }
  | { readonly kind: 'failed'; readonly reason: string }

/**
 * Performs the server's side of a TLS handshake. The socket must allow half-open connections. For
 * STLS the caller first discards the clear text that the client sent behind the command, because
 * an attacker may have inserted it (RFC 2595 §4).
 *
 * Never rejects. Unless the outcome is `secure`, the socket is destroyed. The TLS socket destroys
 * itself on a later error; the caller listens for its `error` and `close`.
 */
export async function acceptTls(raw: Socket, options: AcceptTlsOptions): Promise<AcceptedTls> {
  raw.on('error', ignore)
  // Use one timer length for all clients, because the runtime keeps a list for each length.
  const { limit, firstOctetLimit = limit } = options
  let tooLate: string | undefined
  const endWith = (reason: string): void => {
    tooLate = reason
    raw.destroy()
  }
  const timer = setTimeout(() => endWith(`no handshake within ${limit} ms`), limit)
  const firstOctet =
    firstOctetLimit < limit
      ? setTimeout(() => endWith(`no octet within ${firstOctetLimit} ms: ${WAITS_FOR_GREETING}`), firstOctetLimit)
      : undefined
  const hello = await peekHello(raw, () => clearTimeout(firstOctet))
  const accepted = 'kind' in hello ? hello : await handshake(raw, hello, options)
  clearTimeout(timer)
  clearTimeout(firstOctet)
  if (accepted.kind !== 'secure') raw.destroy()
  return tooLate === undefined ? accepted : { kind: 'failed', reason: tooLate }
}

/** Reason of a failure: the first octets are not TLS. */
export const NO_TLS = 'the client does not speak TLS'

/** True for the reasons of failures of old devices, whose versions or ciphers are refused. */
export const isOldTls = (reason: string): boolean => OLD_TLS.has(reason)
const OLD_TLS: ReadonlySet<string> = new Set(['unsupported protocol', 'no shared cipher', 'version too low'])

const WAITS_FOR_GREETING = 'a client without TLS waits for a greeting; this port speaks TLS from the first octet'

/**
 * Reads the client's first message and puts it back for OpenSSL. The message decides the
 * certificate and the protocol.
 */
function peekHello(raw: Socket, onFirstOctet: () => void): Promise<ClientHello | AcceptedTls> {
  return new Promise(resolve => {
    let seen: Buffer | undefined
    const settle = (answer: ClientHello | AcceptedTls): void => {
      raw.off('data', look)
      raw.off('end', closed)
      raw.off('close', closed)
      raw.pause()
      if (seen !== undefined && !raw.destroyed) raw.unshift(seen)
      resolve(answer)
    }
    const look = (chunk: Buffer): void => {
      if (seen === undefined) onFirstOctet()
      seen = seen === undefined ? chunk : Buffer.concat([seen, chunk])
      const answer = parseClientHello(seen)
      if (answer.kind === 'plain') settle({ kind: 'failed', reason: NO_TLS })
      if (answer.kind === 'hello') settle(answer.hello)
    }
    const closed = (): void =>
      settle(
        seen === undefined ? { kind: 'closed' } : { kind: 'failed', reason: 'the client closed during the handshake' },
      )
    raw.on('data', look)
    raw.on('end', closed)
    raw.on('close', closed)
    if (raw.destroyed) closed()
    // Resume at the end of this loop turn, because a caller that answers STLS may still pause the
    // socket in this turn.
    else process.nextTick(() => raw.resume())
  })
}

function handshake(raw: Socket, hello: ClientHello, options: AcceptTlsOptions): Promise<AcceptedTls> {
  const { contexts, alpn, alpnStrict = false, clientCertificate = 'none' } = options
  const chooses = alpn !== undefined && hello.alpn.length > 0 && (alpnStrict || hello.alpn.includes(alpn))
  return new Promise(resolve => {
    const socket = new TLSSocket(raw, {
      isServer: true,
      secureContext: contexts.select(hello.servername),
      ...(chooses ? { ALPNProtocols: [alpn] } : {}),
      ...(clientCertificate === 'none'
        ? {}
        : { requestCert: true, rejectUnauthorized: clientCertificate === 'required' }),
    })
    removeKeylogHook(socket)
    const settle = (answer: AcceptedTls): void => {
      forget()
      socket.off('error', failed)
      socket.off('close', closed)
      if (answer.kind !== 'secure') {
        socket.on('error', ignore)
        socket.destroy()
      }
      resolve(answer)
    }
    const failed = (error: Error): void => settle({ kind: 'failed', reason: reasonOf(error) })
    const closed = (): void => settle({ kind: 'failed', reason: 'the client closed during the handshake' })
    const secure = (): void => {
      const refusal = clientCertificate === 'none' ? undefined : verifyErrorOf(socket)
      if (
        refusal !== undefined &&
        (clientCertificate === 'required' || socket.getPeerX509Certificate() !== undefined)
      ) {
        settle({ kind: 'failed', reason: `client certificate: ${refusal}` })
        return
      }
      settle({ kind: 'secure', socket, servername: hello.servername, alpn: socket.alpnProtocol || undefined })
    }
    const forget = onceSecure(socket, secure)
    socket.on('error', failed)
    socket.on('close', closed)
    destroyOnTlsError(socket)
  })
}

/**
 * Returns OpenSSL's reason without its source location: `unsupported protocol`, `no shared cipher`,
 * `no application protocol`.
 */
function reasonOf(error: Error): string {
  const reason: unknown = Reflect.get(error, 'reason')
  return typeof reason === 'string' ? reason : error.message
}

/** Errors are in the outcome. An `error` event without a listener would end the process. */
const ignore = (): void => {}
