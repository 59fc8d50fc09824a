import { spawnSync } from 'node:child_process'
import { Socket } from 'node:net'
import type { Readable, Writable } from 'node:stream'
import * as v from 'valibot'
import { EXIT, UsageFault } from '../base/errors.ts'
import { createLog } from '../base/log.ts'
import { capabilityLines } from '../pop3/reply.ts'
import { POP3D, POPUP } from '../settings/pop3-sections.ts'
import { defaultOf, environmentNameOf, type Row, type Section } from '../settings/rows.ts'
import { StreamConnection } from '../sockets/stream-connection.ts'
import { formatLoginLine, LOGIN_TAG, type LoginLineFacts } from '../syslog/login-line.ts'
import { type Environment, remoteIpOf } from '../ucspi/environment.ts'
import { MaildropService, NO_MAILDROP, type ServiceOptions } from './serve-maildrop.ts'

/**
 * One session on descriptors 0 and 1: its settings from the environment, its line in syslog, its
 * streams.
 */

/**
 * `pop3d MAILDIR` as the program that a checker starts: one session on descriptors 0 and 1, as the
 * user the checker made us
 * (spec/pop3d.md §1). The exit status is 0, but for uid 0, which is temporary.
 * @throws UsageFault for a setting in the environment that has no meaning.
 */
export async function serveStandalone(maildir: string | undefined, environment: Environment): Promise<number> {
  if (process.getuid?.() === 0) {
    // A checker that did not become the user is a broken set-up: status 1 would blame the client
    // for a wrong password.
    process.stderr.write('qmail-pop3d invoked as uid 0, terminating\n')
    return EXIT.temporary
  }
  const options = optionsFrom(environment)
  const connection = new StreamConnection(standardInput(), standardOutput())
  // The password was right: that is what the relay gate asks, mail or no mail.
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
    return false // the client is told; the name comes from the site's own run script
  }
}

/** COMPAT, SIZES, EXTRA_BLANK, LOCK and POP3D_IDLE_TIME, with the defaults of the settings file. */
function optionsFrom(environment: Environment): ServiceOptions {
  const faults: string[] = []
  const read = <Output>(
    section: Section,
    name: string,
    row: Row<Output>,
    fallback: unknown = row.default,
  ): Output | undefined => {
    const variable = environmentNameOf(section, name)
    const text = environment[variable]
    const result = v.safeParse(row.schema, typeof text === 'string' ? row.fromText(text) : fallback)
    if (result.success) return result.output
    faults.push(`environment ${variable}: ${result.issues[0].message}`)
    return undefined
  }
  const { rows } = POP3D
  const compat = read(POPUP, 'compat', POPUP.rows.compat)
  // All of qmail's ways come together, unless a variable says otherwise.
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
    // What a foreign popup offered before login is not known here.
    sasl: [],
    stls: false,
    loginDelay: 0,
    expire: 'NEVER',
    implementation: 'auth-relay',
  })
  return { compat, sizes, extraBlank, lock, idleTime: idleSeconds * 1000, capabilities }
}

/** Milliseconds that syslog may keep a login waiting. */
const LOGGER_TIME = 2000

/**
 * Tells syslog of the login, for a popup that is not ours: the line of spec/syslog.md §6, facility
 * mail. Our own popup announces logins itself, before it starts us, and says so by
 * AUTHRELAY_ANNOUNCED=1.
 */
function announceLogin(environment: Environment): void {
  if (environment['AUTHRELAY_ANNOUNCED'] === '1') return
  const line = formatLoginLine(loginOf(environment))
  const tag = `${LOGIN_TAG}[${process.pid}]`
  process.stderr.write(`${tag}: ${line}\n`)
  // No logger(1), or no syslog: the line on standard error is all we can do, and the user's mail
  // does not wait for it.
  spawnSync('logger', ['-p', 'mail.info', '-t', tag, '--', line], { stdio: 'ignore', timeout: LOGGER_TIME })
}

/** Who logged in, as the environment of the checker says it (spec/popup.md §7). */
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

/** Descriptor 0. A file or a terminal (a test by hand) is read by Node's own stream. */
function standardInput(): Readable {
  try {
    return new Socket({ fd: 0, readable: true, writable: false })
  } catch {
    return process.stdin
  }
}

/** Descriptor 1; as standardInput. */
function standardOutput(): Writable {
  try {
    return new Socket({ fd: 1, readable: false, writable: true })
  } catch {
    return process.stdout
  }
}
