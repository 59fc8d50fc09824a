import type { Log } from '../../base/log.ts'
import { daysLeft, parseCertificate } from '../../tunnel/certificate.ts'
import { watchFiles } from '../../tunnel/file-watch.ts'
import { rotateTicketKeys, type TicketKeys } from '../../tunnel/ticket-keys.ts'
import type { LoginSettingsMessage } from '../messages.ts'

/** Session tickets are made with a fresh key after so long. */
const ROTATION_MS = 12 * 3_600_000
/** From so many days before the end the log warns at each start and reload, and twice a day. */
const EXPIRY_WARNING_DAYS = 14

type TlsSettings = LoginSettingsMessage['stls']

/**
 * Keeps the certificate of the login processes fresh: new files are taken by themselves, the keys
 * of session tickets change, and the log
 * warns before the certificate ends.
 */
export class LoginCertificate {
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
    else if (days <= EXPIRY_WARNING_DAYS) this.#log.warn('certificate_expires', fields)
  }

  close(): void {
    clearInterval(this.#rotation)
    this.#stopWatching()
  }

  #attempt(changed: () => void): void {
    try {
      changed()
    } catch (error) {
      this.#log.error('certificate_refused', { reason: error instanceof Error ? error : String(error) })
    }
  }
}
