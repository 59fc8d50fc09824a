/**
 * Programs of the checkpassword interface: the checker that runs one, and the environment of every
 * one.
 */
import { checkpasswordMessage, verifyLogin } from '../../ucspi/checkpassword.ts'
import {
  announcedClientChanges,
  changeEnvironment,
  connectionEnvironment,
  type Environment,
  loginChanges,
} from '../../ucspi/environment.ts'
import type { CheckQueue } from './check-queue.ts'
import { type Checker, type CheckRequest, maildirPath, no, temporary } from './checker.ts'

/**
 * Any checkpassword program in verify mode: the account under which it would have run the POP3
 * server owns the session. A program that changes the server's mail directory (checkvpw) is
 * supported.
 */
export function checkpasswordChecker(options: {
  readonly command: readonly string[]
  readonly maildir: string
  readonly environment: Environment
  readonly limitMs: number
  /** Limits the number of programs that run at a time. */
  readonly programs: CheckQueue
}): Checker {
  const { command, maildir, environment, limitMs, programs } = options
  return {
    check: async request => {
      const { login, secret, timestamp } = request
      const credentials = { login, password: secret, timestamp }
      if (checkpasswordMessage(credentials) === undefined) {
        return { kind: 'tooLong', detail: 'longer than a checker can read' }
      }
      const answer = await programs.run(request.applicant, () =>
        verifyLogin({
          checker: command,
          credentials,
          environment: checkerEnvironment(environment, request),
          args: [maildir],
          limitMs,
        }),
      )
      if (answer.kind === 'badauth') return no(answer.detail)
      if (answer.kind !== 'ok') return { kind: answer.kind, detail: answer.detail }
      const path = maildirPath(answer.args[0] ?? '', answer.directory, maildir)
      if (path === undefined) return temporary('the checker left no directory')
      return { kind: 'yes', maildrop: { uid: answer.uid, gid: answer.gid, maildir: path } }
    },
    close: () => {},
  }
}

/** Variables of the monitor that no child gets. */
const NOT_INHERITED = /PASS|SECRET|^NODE_OPTIONS$|^NODE_COMPILE_CACHE$|^NOTIFY_SOCKET$|^WATCHDOG_|^LISTEN_|^AUTHRELAY_/

/** The environment of checkers: that of this program without secrets. */
export function inheritable(own: Environment): Environment {
  return Object.fromEntries(Object.entries(own).filter(([name]) => !NOT_INHERITED.test(name)))
}

/** UCSPI's variables for the client, added to those of every checker. */
export function checkerEnvironment(base: Environment, request: Omit<CheckRequest, 'applicant'>): Environment {
  const { ip, tls, proxyIp, remotePort, localIp, localPort, login, method } = request
  const ends = connectionEnvironment({
    remoteIp: ip,
    remotePort: remotePort ?? 0,
    localIp: localIp ?? ip,
    localPort: localPort ?? 110,
  })
  const connected = changeEnvironment(changeEnvironment(base, ends), {
    ...(localIp === undefined ? { TCPLOCALIP: undefined, TCP6LOCALIP: undefined } : {}),
    ...(remotePort === undefined ? { TCPREMOTEPORT: undefined, TCP6REMOTEPORT: undefined } : {}),
    AUTHRELAY_TLS: tls ? '1' : undefined,
  })
  const announced =
    proxyIp === undefined ? connected : changeEnvironment(connected, announcedClientChanges({ ip, tls, proxyIp }))
  // The login name for checkpassword's programs, as octets.
  return changeEnvironment(announced, { ...loginChanges('', method), AUTHRELAY_LOGIN: Buffer.from(login, 'latin1') })
}
