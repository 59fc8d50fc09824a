/**
 * Login by a checker and a server that run as children of popup, for one connection without a
 * monitor.
 */
import { closeSync } from 'node:fs'
import { Socket } from 'node:net'
import { messageOf } from '../../base/errors.ts'
import { openSocketPair } from '../../libc/sockets.ts'
import type { LoginFailure } from '../../pop3/authorization.ts'
import type { FailReason } from '../../syslog/login-line.ts'
import { isPositive, readReply } from '../../tunnel/first-line.ts'
import { type Chain, checkpasswordMessage, refusalOf, startChain } from '../../ucspi/checkpassword.ts'
import { announcedClientChanges, changeEnvironment, type Environment, loginChanges } from '../../ucspi/environment.ts'
import { type Authenticator, failed } from '../login/authenticator.ts'
import type { Client } from '../login/client.ts'

/** Characters of a program's line that are logged. */
const MOST_SHOWN = 80

export type ProgramAuthenticatorOptions = {
  /** Checker, server behind it, and their arguments. */
  readonly command: readonly string[]
  /** This connection's UCSPI environment. */
  readonly environment: Environment
  readonly compat: 'none' | 'qmail'
  readonly checkTimeout: number
  /** The login was accepted: fulfilled when +OK may go out. */
  readonly accepted: (client: Client, login: string, method: 'pass' | 'apop' | 'sasl') => Promise<void>
  readonly refused: (
    client: Client,
    login: string,
    method: 'pass' | 'apop' | 'sasl',
    reason: FailReason,
    detail: string,
  ) => void
  /** The program that accepted: its end is the end of the session. */
  readonly running: (chain: Chain) => void
}

/**
 * Runs checker and server as popup's child, with a socket of popup as their descriptors 0 and 1. So
 * the input that the client sent ahead is not lost, and popup reads the first +OK.
 */
export function programAuthenticator(options: ProgramAuthenticatorOptions): Authenticator {
  const { command, compat, checkTimeout } = options
  const isQmail = compat === 'qmail'
  return async ({ login, secret, method, client, timestamp }, disconnect) => {
    const refuse = (reason: FailReason, failure: LoginFailure, detail: string) => {
      options.refused(client, login, method, reason, detail)
      return failed(failure)
    }
    const credentials = { login, password: secret, timestamp }
    if (checkpasswordMessage(credentials) === undefined) {
      return refuse('toolong', 'credentials', 'longer than a checker can read')
    }
    const [ours, theirs] = openSocketPair()
    let chain: Chain
    try {
      const started = startChain({
        checker: command,
        program: [],
        credentials,
        environment: environmentFor(options.environment, client, login, method),
        session: theirs,
        limitMs: checkTimeout,
      })
      if ('kind' in started) throw new Error(started.detail)
      chain = started
    } catch (error) {
      closeSync(ours)
      return refuse('temp', 'temporary', messageOf(error))
    } finally {
      closeSync(theirs)
    }
    const session = new Socket({ fd: ours, readable: true, writable: true, allowHalfOpen: true })
    session.on('error', () => {}) // the program has ended, and its exit status is reported
    disconnect.listen(() => session.destroy())
    const reply = await readReply(session, checkTimeout + 30_000)
    if (reply !== undefined && isPositive(reply)) {
      chain.accepted()
      await options.accepted(client, login, method)
      options.running(chain)
      return { kind: 'open', stream: session, reply: [reply.line, reply.rest] }
    }
    if (reply !== undefined) {
      // The server's text about the missing session, for example that a maildrop is in use.
      const text = reply.line.toString('latin1').trimEnd().slice(0, MOST_SHOWN)
      options.refused(client, login, method, 'temp', `the first line from checker and program is no +OK: ${text}`)
      options.running(chain)
      return { kind: 'open', stream: session, reply: [reply.line, reply.rest] }
    }
    session.destroy()
    const { ending, timedOut } = await chain.ended
    if (isQmail && 'code' in ending && ending.code === 0) return { kind: 'closed' }
    const { kind: verdict, detail } = refusalOf(command, ending)
    if (timedOut) return refuse('temp', 'temporary', 'the checker did not answer in time')
    if (verdict === 'crash') return refuse('crash', 'crashed', detail)
    return verdict === 'badauth' ? refuse('badauth', 'credentials', detail) : refuse('temp', 'temporary', detail)
  }
}

/** docs/spec/popup.md §6 and §7. pop3d must not announce a login that popup has announced. */
function environmentFor(base: Environment, client: Client, login: string, method: string): Environment {
  const { ip, tls, proxyIp } = client
  const announced = proxyIp === undefined ? {} : announcedClientChanges({ ip, tls, proxyIp })
  return changeEnvironment(changeEnvironment(base, announced), {
    ...loginChanges('', method),
    AUTHRELAY_LOGIN: Buffer.from(login, 'latin1'),
    AUTHRELAY_ANNOUNCED: '1',
    NODE_OPTIONS: undefined,
  })
}
