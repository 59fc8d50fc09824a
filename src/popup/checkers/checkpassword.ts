import { checkpasswordMessage, verifyLogin } from '../../ucspi/checkpassword.ts'
import type { Environment } from '../../ucspi/environment.ts'
import type { CheckQueue } from './check-queue.ts'
import { type Checker, no, temporary } from './checker.ts'
import { checkerEnvironment } from './checker-environment.ts'
import { maildirPath } from './maildir-path.ts'

/**
 * Any checkpassword program, asked for a verdict only: what it would have run the POP3 server as is who the session
 * belongs to (spec/checkpassword.md). One that rewrites the server's mail directory (checkvpw) is heard.
 */
export function checkpasswordChecker(options: {
  readonly command: readonly string[]
  readonly maildir: string
  readonly environment: Environment
  readonly limitMs: number
  /** Bounds the programs that run at a time. */
  readonly programs: CheckQueue
}): Checker {
  const { command, maildir, environment, limitMs, programs } = options
  return {
    check: async request => {
      const { login, secret, timestamp } = request
      const credentials = { login, password: secret, timestamp }
      if (checkpasswordMessage(credentials) === undefined) {
        return { verdict: 'toolong', detail: 'longer than a checker can read' }
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
      if (answer.verdict === 'badauth') return no(answer.detail)
      if (answer.verdict !== 'ok') return { verdict: answer.verdict, detail: answer.detail }
      const path = maildirPath(answer.args[0] ?? '', answer.directory, maildir)
      if (path === undefined) return temporary('the checker left no directory')
      return { verdict: 'yes', maildrop: { uid: answer.uid, gid: answer.gid, maildir: path } }
    },
    close: () => {},
  }
}
