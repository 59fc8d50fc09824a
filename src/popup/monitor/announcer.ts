/** Reports of logins: to authd, to the log of popup, and to syslog. */
import { type Clock, monotonicClock } from '../../base/clock.ts'
import type { FieldsOf, Log } from '../../base/log.ts'
import { policyOf } from '../../grants/grant-policy.ts'
import type { Settings } from '../../settings/settings.ts'
import {
  FAIL_TAG,
  type FailReason,
  formatFailLine,
  formatLoginLine,
  formatPreambleFailLine,
  LOGIN_TAG,
} from '../../syslog/login-line.ts'
import type { IpAddress } from '../../wire/ip-address.ts'
import type { LoginAnswer, LoginEvent, LoginRefusal, LoginText, SessionId } from '../../wire/login-event.ts'
import type { AuthdConnection } from './authd-connection.ts'
import { SyslogWriter } from './syslog-writer.ts'

/** The fields of every line about an attempt to log in. */
export type Attempt = Omit<LoginEvent, 'daemon' | 'id' | 'user'> & { readonly id: SessionId; readonly user: LoginText }

/**
 * Returns the reason why no login can open the relay for an address; undefined if one can. The
 * grant policy decides.
 */
type RefusalOf = (ip: IpAddress) => LoginRefusal | undefined

/** Makes that function from these settings. */
export function loginRefusal(settings: Settings): RefusalOf {
  const { neverList } = policyOf(settings)
  return ip => neverList.loginRefusal(ip)
}

/**
 * Announces logins to authd, which grants; to the log; and to syslog, for other readers of the mail
 * log.
 */
export class Announcer {
  readonly #authd: AuthdConnection | undefined
  readonly #log: Log
  readonly #logins: SyslogWriter | undefined
  readonly #failures: SyslogWriter | undefined
  readonly #clock: Clock
  #refusal: RefusalOf

  /** Without authd only the syslog lines report the login. */
  constructor(
    authd: AuthdConnection | undefined,
    refusal: RefusalOf,
    syslog: boolean,
    log: Log,
    clock: Clock = monotonicClock,
  ) {
    this.#clock = clock
    this.#authd = authd
    this.#refusal = refusal
    this.#log = log
    this.#logins = syslog ? new SyslogWriter(LOGIN_TAG, 'info', log) : undefined
    this.#failures = syslog ? new SyslogWriter(FAIL_TAG, 'notice', log) : undefined
  }

  /** Puts another policy in force for logins from now on. */
  useRefusal(refusal: RefusalOf): void {
    this.#refusal = refusal
  }

  /**
   * Announces a login; fulfilled when +OK may be sent. An ungrantable login goes only to popup's
   * log, because authd or a syslog reader on another host may lack the list of proxies.
   */
  async login(attempt: Attempt): Promise<void> {
    const { id, ip, user, method, tls } = attempt
    const refusal = this.#refusal(ip)
    // Without a settings file popup has no value of grant_loopback, so authd decides about
    // loopback.
    const isRefused = refusal !== undefined && refusal !== 'loopback'
    const begun = this.#clock()
    const answer: LoginAnswer | undefined = isRefused
      ? { verdict: 'refused', id, reason: refusal }
      : await this.#authd?.announce({ ...attempt, daemon: 'popup' })
    const waited = Math.round(this.#clock() - begun)
    this.#log.info('login_accepted', { id, ip, user, method, tls, ...grantFields(answer, waited) })
    if (!isRefused) this.#logins?.write(formatLoginLine(attempt))
  }

  /** `detail` is for popup's own log only. An unknown address is `unknown`. */
  failure(
    { id, ip, user, method, tls }: Omit<Attempt, 'ip'> & { readonly ip: IpAddress | undefined },
    reason: FailReason | 'logindelay' | 'uid',
    detail?: string,
  ): void {
    this.#log.info('login_failed', { id, ip: ip ?? 'unknown', user, method, tls, reason, detail })
    // The syslog line has a closed list of reasons: a login that the site's rules refuse is a
    // failed login there.
    const known = reason === 'logindelay' || reason === 'uid' ? 'badauth' : reason
    this.#failures?.write(formatFailLine({ ip, tls, method, user }, known))
  }

  preambleFailure(ip: IpAddress, reason: 'badpass' | 'badhost'): void {
    this.#log.warn('preamble_refused', { ip, reason })
    this.#failures?.write(formatPreambleFailLine(ip, reason))
  }

  async close(): Promise<void> {
    await this.#authd?.close(1000)
    this.#logins?.close()
    this.#failures?.close()
  }
}

function grantFields(answer: LoginAnswer | undefined, waited: number): FieldsOf<'login_accepted'> {
  switch (answer?.verdict) {
    case undefined:
      return {}
    case 'committed':
      return { grant: 'committed', grant_ms: waited, until: answer.until }
    case 'queued':
      return { grant: 'queued', grant_ms: waited }
    case 'refused':
      return { grant: 'refused', reason: answer.reason }
  }
}
