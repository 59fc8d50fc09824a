import { randomBytes } from 'node:crypto'
import { connect, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { connect as connectTls } from 'node:tls'
import { KeyedHash } from '../../base/keyed-hash.ts'
import type { Credentials } from '../../pop3/authorization.ts'
import { type FirstLine, isPositive, readReply } from '../../tunnel/first-line.ts'
import { type Endpoint, formatProxyV2 } from '../../wire/preamble.ts'
import type { UpstreamOutcome, UpstreamServer } from '../../wire/workers/login-process.ts'
import { ClientDisconnect } from '../client-disconnect.ts'
import { type Authenticator, failed } from './authenticator.ts'
import { failureIn, type MonitorRequests, withRequest } from './monitor-authenticator.ts'

/** Login by another POP3 server, and the dialogue with it. */

/** One key for the whole process, so that a reload makes no repeated wrong password a new one. */
const proofs = new KeyedHash(randomBytes(32))

/**
 * Another POP3 server decides. The client's secrets go only to that server. The monitor delays and
 * announces; it gets no secret and reads nothing that the network sent.
 */
export function upstreamAuthenticator(monitor: MonitorRequests, server: UpstreamServer): Authenticator {
  return async ({ login, secret, method, client }, disconnect) => {
    // The digest is over popup's timestamp, so the server behind could not check it.
    if (method === 'apop') return failed('credentials')
    const { id, ip, port, localIp, localPort, tls } = client
    return withRequest(
      monitor.attempt({ id, login, method, ip, tls, proof: proofs.hex(`${login}\0${secret}`) }),
      disconnect,
      async request => {
        const leave = await request.answer()
        if (leave.type !== 'proceed') return failureIn(leave)
        const answered = request.answer()
        // An answer before the outcome means that the client has disconnected, or the time is over.
        const cancelled = new ClientDisconnect()
        void answered.then(() => cancelled.signal())
        const answer = await loginUpstream(
          server,
          { login, secret },
          {
            ...{ id, tls },
            source: { ip, port: port ?? 0 },
            destination: { ip: localIp ?? ip, port: localPort ?? 110 },
          },
          cancelled,
        )
        request.report(answer.kind)
        const reply = await answered
        if (answer.kind !== 'yes') return failureIn(reply)
        if (reply.type === 'announced') {
          return { kind: 'open', stream: answer.stream, reply: [answer.reply.line, answer.reply.rest] }
        }
        answer.stream.destroy()
        return failureIn(reply)
      },
    )
  }
}

/**
 * Time limit for the connection, and again for each line of the upstream server, in milliseconds.
 */
const LIMIT_MS = 30_000

type UpstreamClient = {
  readonly id: string
  readonly source: Endpoint
  readonly destination: Endpoint
  readonly tls: boolean
}

/** `yes`: the server's answer to the password is held back in `reply`. */
type UpstreamAnswer =
  | { readonly kind: 'yes'; readonly stream: Duplex; readonly reply: FirstLine }
  | { readonly kind: Exclude<UpstreamOutcome, 'yes'> }

/**
 * Logs in to the upstream server with the client's credentials. Its first +OK after the password is
 * the proof of login; the caller passes that line on when the login is announced. `cancelled`
 * closes the connection until then. Never rejects.
 */
async function loginUpstream(
  server: UpstreamServer,
  { login, secret }: Credentials,
  client: UpstreamClient,
  cancelled: ClientDisconnect,
): Promise<UpstreamAnswer> {
  const commands = commandsFor(login, secret)
  if (commands === undefined) return { kind: 'no' }
  const stream = await open(server, client, cancelled)
  if (stream === undefined) return { kind: 'temporary' }
  const outcome = await converse(stream, commands)
  cancelled.listen(undefined)
  if (typeof outcome === 'object') return { kind: 'yes', stream, reply: outcome }
  stream.destroy()
  return { kind: outcome }
}

/** Returns the reply of the server that proves the login, or its refusal. */
async function converse(
  stream: Duplex,
  { user, pass }: LoginCommands,
): Promise<FirstLine | Exclude<UpstreamOutcome, 'yes'>> {
  const greeting = await onlyReply(stream)
  if (greeting === undefined || !isPositive(greeting)) return 'temporary'
  stream.write(user, 'latin1')
  const named = await onlyReply(stream)
  if (named === undefined) return 'temporary'
  if (!isPositive(named)) return refusalIn(named)
  stream.write(pass, 'latin1')
  const reply = await onlyReply(stream)
  if (reply === undefined) return 'temporary'
  return isPositive(reply) ? reply : refusalIn(reply)
}

/**
 * The next reply. Undefined if none comes in time, or if octets follow it: with two replies to one
 * command it is unknown which of them is about the password.
 */
async function onlyReply(stream: Duplex): Promise<FirstLine | undefined> {
  const reply = await readReply(stream, LIMIT_MS)
  return reply === undefined || reply.rest.length > 0 ? undefined : reply
}

/**
 * Longest command line that every server accepts, with CRLF (RFC 2449 §4). popup itself accepts
 * longer ones. A server with a smaller buffer could run the rest of a line as a second command, and
 * the reply to that command would count as the reply to PASS.
 */
const MAX_COMMAND_OCTETS = 255

/** USER and PASS with their line ends. */
type LoginCommands = { readonly user: string; readonly pass: string }

/**
 * The two commands of a login. Undefined if the server could read other commands, or another name:
 * SASL can carry characters and lengths that a POP3 line cannot. A name has no space (RFC 1939 §3),
 * because a server that ignores a part of it would open another login than the announced one. A
 * password may have spaces (§7).
 */
function commandsFor(login: string, secret: string): LoginCommands | undefined {
  const isSound = !/[\x00-\x20\x7f]/.test(login) && !/[\r\n\0]/.test(secret)
  const user = `USER ${login}\r\n`
  const pass = `PASS ${secret}\r\n`
  return isSound && Math.max(user.length, pass.length) <= MAX_COMMAND_OCTETS ? { user, pass } : undefined
}

/**
 * Meaning of the server's response code (RFC 2449 §8, RFC 3206); without a code the reply is about
 * the password.
 */
function refusalIn({ line }: FirstLine): Exclude<UpstreamOutcome, 'yes'> {
  const code = /^-ERR \[([A-Za-z/-]{1,32})[^\]]*\]/.exec(line.toString('latin1'))?.[1]?.toUpperCase()
  if (code === 'IN-USE') return 'inUse'
  if (code === 'LOGIN-DELAY') return 'loginDelay'
  return code?.startsWith('SYS/') === true ? 'temporary' : 'no'
}

/** The header is sent before the TLS handshake, as the PROXY protocol requires. */
async function open(
  { address, tls, proxyHeader }: UpstreamServer,
  client: UpstreamClient,
  cancelled: ClientDisconnect,
): Promise<Duplex | undefined> {
  if (cancelled.hasDisconnected) return undefined
  const target = address.kind === 'unix' ? { path: address.path } : { host: address.host, port: address.port }
  const raw: Socket = connect({ ...target, allowHalfOpen: true, noDelay: true })
  cancelled.listen(() => raw.destroy())
  if (!(await settled(raw, 'connect'))) return undefined
  if (proxyHeader) {
    const fields = { uniqueId: client.id, ...(client.tls ? { tls: { verified: false } } : {}) }
    raw.write(formatProxyV2(client.source, client.destination, fields))
  }
  if (tls === null) return raw
  const secure = connectTls({
    socket: raw,
    ...(address.kind === 'tcp'
      ? { servername: /^[\d.:]+$/.test(address.host) ? '' : address.host, host: address.host }
      : {}),
    ...(tls.ca === null ? {} : { ca: tls.ca }),
    rejectUnauthorized: tls.verify,
  })
  return (await settled(secure, 'secureConnect')) ? secure : undefined
}

function settled(stream: Duplex, event: 'connect' | 'secureConnect'): Promise<boolean> {
  return new Promise(resolve => {
    const settle = (good: boolean): void => {
      clearTimeout(timer)
      if (!good) stream.destroy()
      resolve(good)
    }
    const timer = setTimeout(() => settle(false), LIMIT_MS)
    stream.once(event, () => settle(true))
    stream.once('close', () => settle(false))
    // The listener stays: a later error ends the stream, and `close` reports it.
    stream.on('error', () => settle(false))
  })
}
