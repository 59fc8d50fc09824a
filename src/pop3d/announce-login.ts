import { spawnSync } from 'node:child_process'
import { formatLoginLine, LOGIN_TAG, type LoginLineFacts } from '../syslog/login-line.ts'
import { remoteIpOf } from '../ucspi/connection.ts'
import type { Environment } from '../ucspi/environment.ts'

/** Milliseconds that syslog may keep a login waiting. */
const LOGGER_TIME = 2000

/**
 * Tells syslog of the login, for a popup that is not ours: the line of spec/syslog.md §6, facility mail. Our own popup
 * announces logins itself, before it starts us, and says so by AUTHRELAY_ANNOUNCED=1.
 */
export function announceLogin(environment: Environment): void {
  if (environment['AUTHRELAY_ANNOUNCED'] === '1') return
  const line = formatLoginLine(loginOf(environment))
  const tag = `${LOGIN_TAG}[${process.pid}]`
  process.stderr.write(`${tag}: ${line}\n`)
  // No logger(1), or no syslog: the line on standard error is all we can do, and the user's mail does not wait for it.
  spawnSync('logger', ['-p', 'mail.info', '-t', tag, '--', line], { stdio: 'ignore', timeout: LOGGER_TIME })
}

/** Who logged in, as the environment of the checker says it (spec/popup.md §7). */
export function loginOf(environment: Environment): LoginLineFacts {
  const login = environment['AUTHRELAY_LOGIN'] ?? environment['USER'] ?? ''
  const method = environment['AUTHRELAY_METHOD']
  return {
    ip: remoteIpOf(environment),
    tls: environment['AUTHRELAY_TLS'] === '1',
    method: method === 'apop' || method === 'sasl' ? method : 'pass',
    user: typeof login === 'string' ? login : Buffer.from(login).toString('utf8'),
  }
}
