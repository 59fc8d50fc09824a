/**
 * One session on descriptors 0 and 1: settings from the environment, the login line for syslog,
 * streams.
 */
import { spawnSync } from 'node:child_process'
import * as v from 'valibot'
import { EXIT, UsageFault } from '../base/errors.ts'
import { createLog } from '../base/log.ts'
import { capabilityLines } from '../pop3/reply.ts'
import { POP3D, POPUP } from '../settings/pop3-sections.ts'
import { defaultOf, environmentNameOf, type Row, type Section } from '../settings/rows.ts'
import { StreamConnection } from '../sockets/stream-connection.ts'
import { formatLoginLine, LOGIN_TAG, type LoginLineFacts } from '../syslog/login-line.ts'
import { type Environment, remoteIpOf } from '../ucspi/environment.ts'
import { standardInput, standardOutput } from '../ucspi/standard-streams.ts'
import { MaildropService, type MaildropServiceOptions, NO_MAILDROP } from './serve-maildrop.ts'

/**
 * Runs `pop3d MAILDIR` as a checker starts it: one session on descriptors 0 and 1, under the user
 * that the checker has set (spec/pop3d.md §1). Returns exit status 0, or the status for a temporary
 * failure as uid 0.
 * @throws UsageFault for an invalid setting in the environment.
 */
export async function serveStandalone(maildir: string | undefined, environment: Environment): Promise<number> {
  if (process.getuid?.() === 0) {
    // A checker that keeps uid 0 is set up wrongly. Status 1 would report a wrong password to the
    // client.
    process.stderr.write('qmail-pop3d invoked as uid 0, terminating\n')
    return EXIT.temporary
  }
  const options = optionsFrom(environment)
  const connection = new StreamConnection(standardInput(), standardOutput())
  // The checker has accepted the password. The login counts for the relay even if there is no
  // maildrop.
  announceLogin(environment)
  if (maildir === undefined || !entered(maildir)) {
    connection.end(NO_MAILDROP)
    return EXIT.done
  }
  const log = createLog('pop3d', { level: 'warn' }).with({ pid: process.pid })
  await new MaildropService(options).serve(connection, '.', new Uint8Array(0), log)
  return EXIT.done
}

function entered(maildir: string): boolean {
  try {
    process.chdir(maildir)
    return true
  } catch {
    return false // The client gets the reply for a missing maildrop.
  }
}

/**
 * Reads COMPAT, SIZES, EXTRA_BLANK, LOCK and POP3D_IDLE_TIME. Their defaults are those of the
 * settings file.
 */
function optionsFrom(environment: Environment): MaildropServiceOptions {
  const faults: string[] = []
  const read = <Output>(
    section: Section,
    name: string,
    row: Row<Output>,
    fallback: unknown = row.default,
  ): Output | undefined => {
    const variable = environmentNameOf(section, name)
    const text = environment[variable]
    const result = v.safeParse(row, typeof text === 'string' ? row.fromText(text) : fallback)
    if (result.success) return result.output
    faults.push(`environment ${variable}: ${result.issues[0].message}`)
    return undefined
  }
  const { rows } = POP3D
  const compat = read(POPUP, 'compat', POPUP.rows.compat)
  // `compat` decides the defaults of the other settings.
  const sizes = read(POP3D, 'sizes', rows.sizes, defaultOf(rows.sizes, { compat }))
  const extraBlank = read(POP3D, 'extra_blank', rows.extra_blank, defaultOf(rows.extra_blank, { compat }))
  const lock = read(POP3D, 'lock', rows.lock)
  const idleSeconds = read(POP3D, 'idle_time', rows.idle_time)
  if (
    compat === undefined ||
    sizes === undefined ||
    extraBlank === undefined ||
    lock === undefined ||
    idleSeconds === undefined
  ) {
    throw new UsageFault(faults)
  }
  const capabilities = capabilityLines('TRANSACTION', {
    user: true,
    // The capabilities that another popup announced before login are unknown here.
    sasl: [],
    stls: false,
    loginDelay: 0,
    expire: 'NEVER',
    implementation: 'auth-relay',
  })
  return { compat, sizes, extraBlank, lock, idleTime: idleSeconds * 1000, capabilities }
}

/** Milliseconds for which logger(1) may delay a login. */
const LOGGER_TIME_MS = 2000

/**
 * Writes the login line for syslog (spec/syslog.md §6, facility mail) on behalf of a popup that
 * does not announce logins. auth-relay's popup announces logins before it starts pop3d, and sets
 * AUTHRELAY_ANNOUNCED=1.
 */
function announceLogin(environment: Environment): void {
  if (environment['AUTHRELAY_ANNOUNCED'] === '1') return
  const line = formatLoginLine(loginOf(environment))
  const tag = `${LOGIN_TAG}[${process.pid}]`
  process.stderr.write(`${tag}: ${line}\n`)
  // The result is ignored: without logger(1) or syslog, the line above on standard error is the
  // only report.
  spawnSync('logger', ['-p', 'mail.info', '-t', tag, '--', line], { stdio: 'ignore', timeout: LOGGER_TIME_MS })
}

/** Reads the login from the environment of the checker (spec/popup.md §7). */
function loginOf(environment: Environment): LoginLineFacts {
  const login = environment['AUTHRELAY_LOGIN'] ?? environment['USER'] ?? ''
  const method = environment['AUTHRELAY_METHOD']
  return {
    ip: remoteIpOf(environment),
    tls: environment['AUTHRELAY_TLS'] === '1',
    method: method === 'apop' || method === 'sasl' ? method : 'pass',
    user: typeof login === 'string' ? login : Buffer.from(login).toString('utf8'),
  }
}
