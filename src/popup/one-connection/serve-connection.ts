/**
 * popup for one connection under tcpserver: its command line, its environment, and its one session.
 */
import { existsSync } from 'node:fs'
import { systemClock } from '../../base/clock.ts'
import { EXIT, UsageFault } from '../../base/errors.ts'
import { createLog, type Log } from '../../base/log.ts'
import { err } from '../../pop3/reply.ts'
import { readSecretFile } from '../../settings/secret.ts'
import { parseSettings, type Settings } from '../../settings/settings.ts'
import { readProxyHeaderAndRest } from '../../sockets/proxy-header.ts'
import { StreamConnection } from '../../sockets/stream-connection.ts'
import type { Chain } from '../../ucspi/checkpassword.ts'
import {
  changeEnvironment,
  connectionEnvironment,
  type Environment,
  localIpOf,
  portOf,
  remoteIpOf,
} from '../../ucspi/environment.ts'
import { type IpAddress, parseIpAddress } from '../../wire/ip-address.ts'
import { formatTimestamp, loginOctets, loginText, sessionId } from '../../wire/login-event.ts'
import type { Client } from '../login/client.ts'
import { authorizationOptions } from '../login/client.ts'
import { LoginSession, type LoginSessionHost } from '../login/session.ts'
import { Announcer, loginRefusal } from '../monitor/announcer.ts'
import { AuthdConnection } from '../monitor/authd-connection.ts'
import { DescriptorStream } from './descriptor-stream.ts'
import { programAuthenticator } from './program-authenticator.ts'

/** qmail-popup's own limit for each read. */
const QMAIL_TIMEOUT_MS = 1_200_000
const LAST_WORDS_MS = 5_000

/**
 * `popup HOST CHECKER PROG…` under tcpserver: one connection on descriptors 0 and 1, no settings
 * file. Settings come from the environment under their usual names (COMPAT, SSL_HACK_PASS,
 * REQUIRE_TLS, AUTHD_SOCKET, …). Returns the exit status, which is always 1, as in the original:
 * it has no meaning for supervisors.
 * @throws UsageFault for a setting that has no meaning.
 */
export async function serveConnection(words: readonly string[], own: Environment): Promise<number> {
  const proxied = words[0] === '-P' || own['AUTHRELAY_PROXY'] === '1'
  const [hostname, ...command] = words[0] === '-P' ? words.slice(1) : words
  const stream = new DescriptorStream()
  if (hostname === undefined || command.length === 0) {
    await stream.lastWords(err('usage: popup hostname subprogram'), LAST_WORDS_MS)
    return EXIT.no
  }
  const settings = settingsFrom(own)
  const log = createLog('popup', { level: settings.top.log_level })
  const authd = own['AUTHD_SOCKET'] === undefined ? undefined : authdConnection(settings, log)
  const announcer = new Announcer(authd, loginRefusal(settings), settings.top.syslog, log)
  const known = await knownClient(proxied, own, settings, stream, log)
  if (known !== undefined) {
    await new OneConnection(hostname, command, settings, { ...known, announcer, log, stream }).serve()
  }
  await announcer.close()
  stream.destroy()
  return EXIT.no
}

const authdConnection = ({ authd, popup, grants }: Settings, log: Log): AuthdConnection =>
  new AuthdConnection(
    { path: authd.socket, grantWait: popup.grant_wait, keepFor: grants.exp_time * 1000 },
    log,
    systemClock,
  )

function settingsFrom(own: Environment): Settings {
  const texts: Record<string, string> = {}
  for (const [name, value] of Object.entries(own)) if (typeof value === 'string') texts[name] = value
  return parseSettings('', 'environment', texts).settings
}

/** The client as tcpserver or the proxy names it. If the address is unknown, nothing is granted. */
type KnownClient = { readonly client: Client | undefined; readonly environment: Environment }

async function knownClient(
  proxied: boolean,
  own: Environment,
  { popup }: Settings,
  stream: DescriptorStream,
  log: Log,
): Promise<KnownClient | undefined> {
  const id = sessionId(process.pid, 1)
  const ip = remoteIpOf(own)
  const peer: Client | undefined =
    ip === undefined
      ? undefined
      : {
          id,
          ip,
          port: portOf(own, 'TCPREMOTEPORT'),
          localIp: localIpOf(own),
          localPort: portOf(own, 'TCPLOCALPORT'),
          tls: own['AUTHRELAY_TLS'] === '1',
          proxyIp: undefined,
        }
  if (!proxied) return { client: peer, environment: own }
  if (peer === undefined || !popup.proxy_trust.has(peer.ip)) {
    log.warn('proxy_refused', { id, ip: peer?.ip, reason: 'not listed in PROXY_TRUST' })
    return undefined
  }
  const connection = new StreamConnection(stream, stream)
  const read = await readProxyHeaderAndRest(connection)
  connection.toStream()
  if ('reason' in read || read.header.kind === 'unknown') {
    log.warn('proxy_refused', { id, ip: peer.ip, reason: 'reason' in read ? read.reason : 'client unknown' })
    return undefined
  }
  const { header, rest } = read
  if (rest.length > 0) stream.unshift(rest)
  if (header.kind === 'local') return { client: peer, environment: own }
  const { source, destination, fields } = header
  const client: Client = {
    id,
    ip: source.ip,
    port: source.port,
    localIp: destination.ip,
    localPort: destination.port,
    tls: fields.tls !== undefined || popup.proxy_tls,
    proxyIp: undefined,
  }
  const ends = connectionEnvironment({
    remoteIp: source.ip,
    remotePort: source.port,
    localIp: destination.ip,
    localPort: destination.port,
  })
  const environment = changeEnvironment(own, {
    ...ends,
    TCPLOCALHOST: undefined,
    AUTHRELAY_TLS: client.tls ? '1' : undefined,
    AUTHRELAY_PROXYIP: peer.ip,
  })
  return { client, environment }
}

/** Stands for an unknown address; it is never granted. */
const UNKNOWN: IpAddress | undefined = parseIpAddress('0.0.0.0')

function strangerOf(id: Client['id']): Client {
  if (UNKNOWN === undefined) throw new TypeError('0.0.0.0 is an address')
  return { id, ip: UNKNOWN, port: undefined, localIp: undefined, localPort: undefined, tls: false, proxyIp: undefined }
}

const ipOf = ({ ip }: Client): IpAddress | undefined => (ip === UNKNOWN ? undefined : ip)

/** The one session of this process, and its parts. */
class OneConnection {
  readonly #hostname: string
  readonly #command: readonly string[]
  readonly #settings: Settings
  readonly #known: KnownClient
  readonly #announcer: Announcer
  readonly #log: Log
  readonly #stream: DescriptorStream
  #program: Chain | undefined

  constructor(
    hostname: string,
    command: readonly string[],
    settings: Settings,
    parts: KnownClient & { readonly announcer: Announcer; readonly log: Log; readonly stream: DescriptorStream },
  ) {
    this.#hostname = hostname
    this.#command = command
    this.#settings = settings
    this.#known = parts
    this.#announcer = parts.announcer
    this.#log = parts.log
    this.#stream = parts.stream
  }

  /** Fulfilled when session and program are over and the log is written. */
  async serve(): Promise<void> {
    const over = Promise.withResolvers<void>()
    new LoginSession(
      this.#host(over.resolve),
      new StreamConnection(this.#stream, this.#stream),
      this.#known.client ?? strangerOf(sessionId(process.pid, 1)),
    ).start()
    await over.promise
    const { popup } = this.#settings
    const end = await this.#program?.ended
    if (end === undefined) return this.#stream.lastWords('', LAST_WORDS_MS)
    if (!('signal' in end.ending)) {
      // qmail-popup cannot distinguish a failed program from a failed login.
      const failed = popup.compat === 'qmail' && end.ending.code !== 0
      return this.#stream.lastWords(failed ? err('authorization failed') : '', LAST_WORDS_MS)
    }
    this.#log.warn('login_aborted', {
      id: sessionId(process.pid, 1),
      ip: this.#known.client?.ip,
      reason: `program killed by ${end.ending.signal}`,
    })
    return this.#stream.lastWords(popup.compat === 'qmail' ? err('aack, child crashed') : '', LAST_WORDS_MS)
  }

  #host(over: () => void): LoginSessionHost {
    const { popup, pop3d } = this.#settings
    const preamble = this.#preamble()
    return {
      log: this.#log,
      authenticate: programAuthenticator({
        command: this.#command,
        environment: this.#known.environment,
        compat: popup.compat,
        checkTimeout: popup.check_timeout * 1000,
        accepted: (client, login, method) => this.#accepted(client, login, method),
        refused: (client, login, method, reason, detail) =>
          this.#announcer.failure({ ...this.#attempt(client, login), ip: ipOf(client), method }, reason, detail),
        running: program => {
          this.#program = program
        },
      }),
      loginTime: popup.compat === 'qmail' ? QMAIL_TIMEOUT_MS : popup.login_time * 1000,
      idleLimit: pop3d.idle_time * 1000 + 60_000,
      preamble,
      stls: undefined,
      apop: popup.apop || popup.compat === 'qmail',
      timestampFor: ({ id }) => {
        const seconds = Math.floor(systemClock() / 1000)
        // A process has one connection, so the form of qmail is unique too.
        return popup.compat === 'qmail'
          ? `<${process.pid}.${seconds}@${this.#hostname}>`
          : formatTimestamp(id, seconds, this.#hostname)
      },
      optionsFor: client =>
        authorizationOptions(
          {
            compat: popup.compat,
            requireTls: popup.require_tls,
            cleartextNets: popup.cleartext_nets,
            cleartextLogins: popup.cleartext_logins,
            loginDelay: 0,
            tries: popup.max_failures,
            preambleTrust: preamble === undefined ? undefined : popup.ssl_hack_trust,
            stls: false,
          },
          client,
        ),
      preambleRefused: (peer, reason) => this.#announcer.preambleFailure(peer, reason),
      oldTlsRemedy: () => undefined,
      anotherProtocol: ({ id, ip }, protocol) =>
        this.#log.warn(protocol === 'PROXY' ? 'proxy_header_refused' : 'tls_refused', {
          id,
          ip,
          reason:
            protocol === 'PROXY'
              ? 'a PROXY header came: start popup with -P for the connections of a proxy'
              : 'a TLS handshake came to a port without TLS',
        }),
      moveTo: () => true,
      admit: () => true,
      loggedIn: () => {},
      left: over,
      disconnected: () => {},
    }
  }

  /** Grants belong to addresses. Without an address there is nothing to announce. */
  async #accepted(client: Client, login: string, method: 'pass' | 'apop' | 'sasl'): Promise<void> {
    if (ipOf(client) === undefined) {
      this.#log.warn('login_accepted', { id: client.id, ip: 'unknown', user: loginText(loginOctets(login)), method })
      return
    }
    await this.#announcer.login({ ...this.#attempt(client, login), method })
  }

  #attempt({ id, ip, tls }: Client, login: string) {
    return { id, ip, tls, user: loginText(loginOctets(login)) }
  }

  #preamble(): LoginSessionHost['preamble'] {
    const { popup } = this.#settings
    if (popup.ssl_hack_pass === '' || !existsSync(popup.ssl_hack_pass)) return undefined
    try {
      return { password: readSecretFile(popup.ssl_hack_pass), reply: popup.ssl_reply }
    } catch (error) {
      if (!(error instanceof UsageFault)) throw error
      // This connection is served without the feature; the log names the reason for the
      // administrator.
      this.#log.error('ssl_hack_pass_unusable', { reason: error })
      return undefined
    }
  }
}
