import type { Log } from '../../base/log.ts'
import {
  FAIL_TAG,
  type FailReason,
  formatFailLine,
  formatLoginLine,
  formatPreambleFailLine,
  LOGIN_TAG,
} from '../../syslog/login-line.ts'
import type { IpAddress } from '../../wire/ip-address.ts'
import type { LoginAnswer, LoginEvent } from '../../wire/login-event.ts'
import type { SessionId } from '../../wire/session-ticket.ts'
import type { LoginText } from '../login-name.ts'
import type { AuthdLink } from './authd-link.ts'
import { SyslogWriter } from './syslog-writer.ts'

/** Who tried to log in; what every line about an attempt says. */
export type Attempt = Omit<LoginEvent, 'daemon' | 'id' | 'user'> & { readonly id: SessionId; readonly user: LoginText }

/**
 * Says of an address why no login can open the relay for it; undefined if one can. The policy of
 * the grants decides it.
 */
export type LoginRefusal = (ip: IpAddress) => string | undefined

/** Tells of logins: authd, which grants; the log; and syslog, for whatever else reads the mail log. */
export class Announcer {
  readonly #authd: AuthdLink | undefined
  readonly #log: Log
  readonly #logins: SyslogWriter | undefined
  readonly #failures: SyslogWriter | undefined
  #refusal: LoginRefusal

  /** Without authd the syslog lines are all that is said. */
  constructor(authd: AuthdLink | undefined, refusal: LoginRefusal, syslog: boolean, log: Log) {
    this.#authd = authd
    this.#refusal = refusal
    this.#log = log
    this.#logins = syslog ? new SyslogWriter(LOGIN_TAG, 'info', log) : undefined
    this.#failures = syslog ? new SyslogWriter(FAIL_TAG, 'notice', log) : undefined
  }

  /** Puts another policy in force for logins from now on. */
  useRefusal(refusal: LoginRefusal): void {
    this.#refusal = refusal
  }

  /**
   * Announces a login; fulfilled when +OK may go out. A login that can never be granted is told to
   * our own log alone: authd or
   * a reader of syslog on another host may not know that its address is a proxy's.
   */
  async login(attempt: Attempt): Promise<void> {
    const { id, ip, user, method, tls } = attempt
    const refusal = this.#refusal(ip)
    // Without a settings file popup does not know of grant_loopback: authd decides about loopback.
    const isRefused = refusal !== undefined && refusal !== 'loopback'
    const answer: LoginAnswer | undefined = isRefused
      ? { verdict: 'refused', id, reason: refusal }
      : await this.#authd?.announce({ ...attempt, daemon: 'popup' })
    this.#log.info('login', { id, ip, user, method, tls: tls ? 1 : 0, ...grantFields(answer) })
    if (!isRefused) this.#logins?.write(formatLoginLine(attempt))
  }

  /** `detail` is for our own log alone. An address that is not known is `unknown`. */
  failure(
    { id, ip, user, method, tls }: Omit<Attempt, 'ip'> & { readonly ip: IpAddress | undefined },
    reason: FailReason | 'logindelay' | 'uid',
    detail?: string,
  ): void {
    this.#log.info('fail', { id, ip: ip ?? 'unknown', user, method, tls: tls ? 1 : 0, reason, detail })
    // The syslog line has a closed list of reasons: what the site's own rules refuse is a failed login there.
    const known = reason === 'logindelay' || reason === 'uid' ? 'badauth' : reason
    this.#failures?.write(formatFailLine({ ip, tls, method, user }, known))
  }

  preambleFailure(ip: IpAddress, reason: 'badpass' | 'badhost'): void {
    this.#log.warn('sslfail', { ip, reason })
    this.#failures?.write(formatPreambleFailLine(ip, reason))
  }

  async close(): Promise<void> {
    await this.#authd?.close(1000)
    this.#logins?.close()
    this.#failures?.close()
  }
}

function grantFields(answer: LoginAnswer | undefined): Record<string, string | number> {
  switch (answer?.verdict) {
    case undefined:
      return {}
    case 'committed':
      return { grant: 'committed', until: answer.until }
    case 'queued':
      return { grant: 'queued' }
    case 'refused':
      return { grant: 'refused', reason: answer.reason }
  }
}
