/** The settings of a login process, and its certificate, which is kept current. */
import { existsSync, readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { asError, type Fault, messageOf, UsageFault } from '../../base/errors.ts'
import type { Log } from '../../base/log.ts'
import type { Ids } from '../../process/privileges.ts'
import { checkerContradictions } from '../../settings/contradictions.ts'
import { readSecretFile } from '../../settings/secret.ts'
import type { Settings } from '../../settings/settings.ts'
import {
  CertificateUnusable,
  daysLeft,
  parseCertificate,
  readCertificate,
  watchFiles,
} from '../../tunnel/certificate.ts'
import { rotateTicketKeys, type TicketKeys } from '../../tunnel/ticket-keys.ts'
import { formatNetwork, type NetworkSet } from '../../wire/ip-address.ts'
import type { LoginSettingsMessage } from '../../wire/workers/login-process.ts'

/** The parts of the settings that no reload changes. */
export type FixedLoginSettings = {
  readonly ids: Ids | undefined
  readonly directory: string
  readonly listeners: LoginSettingsMessage['listeners']
  readonly engine: LoginSettingsMessage['engine']
  readonly handoff: boolean
}

/**
 * The settings of a login process; secrets and certificates are read from their files.
 * @throws UsageFault naming every fault.
 */
export function loginSettings(
  { top, grants, popup, pop3d }: Settings,
  fixed: FixedLoginSettings & { readonly ticketKeys: TicketKeys },
): LoginSettingsMessage {
  const faults: Fault[] = [...checkerContradictions({ popup })]
  const collect = <T>(read: () => T, fallback: T): T => {
    try {
      return read()
    } catch (error) {
      if (!(error instanceof UsageFault)) throw error
      faults.push(...error.details)
      return fallback
    }
  }
  const upstream = collect(() => upstreamServer(popup), null)
  const preamble = collect(() => preambleSettings(popup), null)
  const needsCertificate = popup.stls || popup.tls_listen.length > 0
  const stls = collect(() => (needsCertificate ? tlsFiles(popup, fixed.ticketKeys) : null), null)
  if (faults.length > 0) throw new UsageFault(faults)
  return {
    ids: fixed.ids ?? null,
    logLevel: top.log_level,
    engine: fixed.engine,
    handoff: fixed.handoff,
    directory: fixed.directory,
    listeners: fixed.listeners,
    mode: popup.checker === 'chain' || popup.checker === 'upstream' ? popup.checker : 'verify',
    hostname: popup.hostname === '' ? hostname() : popup.hostname,
    apop: popup.apop,
    preamble,
    proxyTrust: texts(popup.proxy_trust),
    proxyTls: popup.proxy_tls,
    compat: popup.compat,
    requireTls: popup.require_tls,
    cleartextNets: texts(popup.cleartext_nets),
    cleartextLogins: [...popup.cleartext_logins],
    offersStls: popup.stls,
    stls,
    loginDelay: popup.login_delay,
    tries: popup.max_failures,
    // Each process counts separately, and gets its share.
    maxConnections: Math.ceil(popup.max_connections / popup.logins),
    maxPerAddress: Math.ceil(popup.max_per_address / popup.logins),
    maxPerLogin: Math.ceil(sessionsOf(popup.max_per_login, popup.max_connections, 0.1) / popup.logins),
    maxPerOwner: Math.ceil(sessionsOf(popup.max_per_owner, popup.max_connections, 0.9) / popup.logins),
    nat64Prefixes: grants.nat64_prefixes.map(formatNetwork),
    loginTime: popup.login_time * 1000,
    idleTime: pop3d.idle_time * 1000,
    upstream,
  }
}

/** A person may use several devices at the same time, also with a low total limit. */
const LEAST_SHARE = 5

/** The limit of the settings, or the part of all connections. */
const sessionsOf = (limit: number, all: number, part: number): number =>
  limit > 0 ? limit : Math.max(LEAST_SHARE, Math.floor(all * part))

const texts = (set: NetworkSet): string[] => set.networks.map(formatNetwork)

function upstreamServer(popup: Settings['popup']): LoginSettingsMessage['upstream'] {
  if (popup.checker !== 'upstream') return null
  const { upstream } = popup
  // checkerContradictions reports the missing server.
  if (upstream === undefined || upstream.kind === 'descriptor') return null
  const ca = popup.upstream_ca === '' ? null : readPem(popup.upstream_ca, 'popup.upstream_ca')
  return {
    address: upstream,
    tls: popup.upstream_tls ? { ca, verify: popup.upstream_verify } : null,
    proxyHeader: popup.upstream_proxy,
  }
}

/**
 * Without a file the feature is off. An invalid file is a fault, because the administrator has set
 * the file.
 */
function preambleSettings(popup: Settings['popup']): LoginSettingsMessage['preamble'] {
  if (popup.ssl_hack_pass === '' || !existsSync(popup.ssl_hack_pass)) return null
  const password = readSecretFile(popup.ssl_hack_pass).reveal()
  return { password, trust: texts(popup.ssl_hack_trust), reply: popup.ssl_reply }
}

function tlsFiles(
  { stls, stls_cert: cert, stls_key: key }: Settings['popup'],
  ticketKeys: TicketKeys,
): LoginSettingsMessage['stls'] {
  if (cert === '') {
    const user = stls ? 'popup.stls is on' : 'popup.tls_listen needs it'
    throw new UsageFault(`popup.stls_cert must name a PEM file: ${user}`)
  }
  try {
    const certificate = readCertificate(key === '' ? { cert } : { cert, key })
    return {
      cert: certificate.cert,
      key: certificate.key,
      path: cert,
      ticketKeys: [...ticketKeys],
    }
  } catch (error) {
    if (error instanceof CertificateUnusable) throw new UsageFault(error.message, error)
    throw error
  }
}

function readPem(path: string, setting: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    throw new UsageFault(`${setting}: cannot read ${path}: ${messageOf(error)}`, error)
  }
}

/**
 * The settings of the login processes that are in force. New files of the certificate take effect
 * at once.
 */
export class CurrentLoginSettings {
  readonly #fixed: FixedLoginSettings
  readonly #certificate: LoginCertificate
  #settings: Settings
  #message: LoginSettingsMessage

  /**
   * `changed` is called when the login processes need their settings again because of the
   * certificate. @throws UsageFault naming every fault.
   */
  constructor(settings: Settings, fixed: FixedLoginSettings, log: Log, changed: () => void) {
    this.#fixed = fixed
    this.#settings = settings
    this.#certificate = new LoginCertificate(log, () => {
      this.prepare(this.#settings)()
      changed()
      log.info('certificate_read', { path: this.#settings.popup.stls_cert })
    })
    this.#message = this.#messageFor(settings)
  }

  get message(): LoginSettingsMessage {
    return this.#message
  }

  /**
   * Makes the message for new settings, with a new key of session tickets. Returns the function
   * that puts it in force. @throws UsageFault naming every fault.
   */
  prepare(settings: Settings): () => void {
    this.#certificate.rotate()
    const message = this.#messageFor(settings)
    return () => {
      this.#settings = settings
      this.#message = message
      this.watchCertificate()
    }
  }

  /** Watches the files of the certificate, and logs a warning if it ends soon. */
  watchCertificate(): void {
    const { stls_cert, stls_key } = this.#settings.popup
    this.#certificate.use(this.#message.stls, [stls_cert, stls_key])
  }

  close(): void {
    this.#certificate.close()
  }

  #messageFor(settings: Settings): LoginSettingsMessage {
    return loginSettings(settings, { ...this.#fixed, ticketKeys: this.#certificate.ticketKeys })
  }
}

/** Time after which session tickets get a new key. */
const ROTATION_MS = 12 * 3_600_000
/** Days before the end from which the log warns at each start and reload, and twice a day. */
const EXPIRY_WARNING_DAYS = 14

type TlsSettings = LoginSettingsMessage['stls']

/**
 * Keeps the certificate of the login processes current: loads new files, changes the keys of
 * session tickets, and logs a warning before the certificate ends.
 */
class LoginCertificate {
  readonly #log: Log
  readonly #changed: () => void
  readonly #rotation: NodeJS.Timeout
  #keys = rotateTicketKeys()
  #stopWatching = (): void => {}

  /**
   * `changed` is called when login processes need their settings again. It may throw: then the old
   * ones stay in force.
   */
  constructor(log: Log, changed: () => void) {
    this.#log = log
    this.#changed = () => this.#attempt(changed)
    this.#rotation = setInterval(this.#changed, ROTATION_MS).unref()
  }

  get ticketKeys(): TicketKeys {
    return this.#keys
  }

  /** Tickets are made with a fresh key from now on; older ones stay valid for a while. */
  rotate(): void {
    this.#keys = rotateTicketKeys(this.#keys)
  }

  /** The certificate now in force, and its files. */
  use(tls: TlsSettings | undefined, files: readonly string[]): void {
    this.#stopWatching()
    if (tls === null || tls === undefined) {
      this.#stopWatching = () => {}
      return
    }
    this.#stopWatching = watchFiles(
      files.filter(file => file !== ''),
      this.#changed,
    )
    const certificate = parseCertificate(tls.cert, tls.key, tls.path)
    const days = daysLeft(certificate, Date.now())
    const fields = { path: tls.path, days, expires: new Date(certificate.expires) }
    if (days < 0) this.#log.error('certificate_expired', fields)
    else if (days <= EXPIRY_WARNING_DAYS) this.#log.warn('certificate_expiring', fields)
  }

  close(): void {
    clearInterval(this.#rotation)
    this.#stopWatching()
  }

  #attempt(changed: () => void): void {
    try {
      changed()
    } catch (error) {
      this.#log.error('certificate_refused', { reason: asError(error) })
    }
  }
}
