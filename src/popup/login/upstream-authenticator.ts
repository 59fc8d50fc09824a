import { randomBytes } from 'node:crypto'
import { connect, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { connect as connectTls } from 'node:tls'
import { KeyedHash } from '../../base/keyed-hash.ts'
import type { Credentials } from '../../pop3/authorization.ts'
import { type FirstLine, isPositive, readReply } from '../../tunnel/first-line.ts'
import { type Endpoint, formatProxyV2 } from '../../wire/preamble.ts'
import type { Outcome, UpstreamServer } from '../../wire/workers/login-process.ts'
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
        const answer = await loginUpstream(
          server,
          { login, secret },
          {
            ...{ id, tls },
            source: { ip, port: port ?? 0 },
            destination: { ip: localIp ?? ip, port: localPort ?? 110 },
          },
        )
        request.report(answer.outcome)
        const reply = await request.answer()
        if (answer.outcome !== 'yes') return failureIn(reply)
        if (reply.type === 'announced') {
          return { outcome: 'open', stream: answer.stream, reply: [answer.reply.line, answer.reply.rest] }
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
  | { readonly outcome: 'yes'; readonly stream: Duplex; readonly reply: FirstLine }
  | { readonly outcome: Exclude<Outcome, 'yes'> }

/**
 * Logs in to the upstream server with the client's credentials. Its first +OK after the password is
 * the proof of login; the caller passes that line on when the login is announced. Never rejects.
 */
async function loginUpstream(
  server: UpstreamServer,
  { login, secret }: Credentials,
  client: UpstreamClient,
): Promise<UpstreamAnswer> {
  // SASL can carry characters that a POP3 line cannot, and a line break must not begin a second
  // command.
  if (/[\r\n\0]/.test(login + secret)) return { outcome: 'no' }
  const stream = await open(server, client)
  if (stream === undefined) return { outcome: 'temporary' }
  const fail = (outcome: Exclude<Outcome, 'yes'>): UpstreamAnswer => {
    stream.destroy()
    return { outcome }
  }
  const greeting = await readReply(stream, LIMIT_MS)
  if (greeting === undefined || !isPositive(greeting)) return fail('temporary')
  stream.write(`USER ${login}\r\n`, 'latin1')
  const user = await readReply(stream, LIMIT_MS, greeting.rest)
  if (user === undefined) return fail('temporary')
  if (!isPositive(user)) return fail(refusalIn(user))
  stream.write(`PASS ${secret}\r\n`, 'latin1')
  const reply = await readReply(stream, LIMIT_MS, user.rest)
  if (reply === undefined) return fail('temporary')
  return isPositive(reply) ? { outcome: 'yes', stream, reply } : fail(refusalIn(reply))
}

/**
 * Meaning of the server's response code (RFC 2449 §8, RFC 3206); without a code the reply is about
 * the password.
 */
function refusalIn({ line }: FirstLine): Exclude<Outcome, 'yes'> {
  const code = /^-ERR \[([A-Za-z/-]{1,32})[^\]]*\]/.exec(line.toString('latin1'))?.[1]?.toUpperCase()
  if (code === 'IN-USE') return 'inUse'
  if (code === 'LOGIN-DELAY') return 'loginDelay'
  return code?.startsWith('SYS/') === true ? 'temporary' : 'no'
}

/** The header is sent before the TLS handshake, as the PROXY protocol requires. */
async function open(
  { address, tls, proxyHeader }: UpstreamServer,
  client: UpstreamClient,
): Promise<Duplex | undefined> {
  const target = address.type === 'unix' ? { path: address.path } : { host: address.host, port: address.port }
  const raw: Socket = connect({ ...target, allowHalfOpen: true, noDelay: true })
  if (!(await settled(raw, 'connect'))) return undefined
  if (proxyHeader) {
    const fields = { uniqueId: client.id, ...(client.tls ? { tls: { verified: false } } : {}) }
    raw.write(formatProxyV2(client.source, client.destination, fields))
  }
  if (tls === null) return raw
  const secure = connectTls({
    socket: raw,
    ...(address.type === 'tcp'
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
    // The listener stays: a later error ends the stream, and `close` reports it.
    stream.on('error', () => settle(false))
  })
}
