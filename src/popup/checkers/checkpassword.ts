import { verifyLogin } from '../../ucspi/checkpassword.ts'
import type { Environment } from '../../ucspi/environment.ts'
import { type Checker, temporary } from './checker.ts'
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
}): Checker {
  const { command, maildir, environment, limitMs } = options
  return {
    check: async request => {
      const { login, secret, timestamp } = request
      const answer = await verifyLogin({
        checker: command,
        credentials: { login, password: secret, timestamp },
        environment: checkerEnvironment(environment, request),
        args: [maildir],
        limitMs,
      })
      switch (answer.verdict) {
        case 'ok': {
          const path = maildirPath(answer.args[0] ?? '', answer.directory, maildir)
          if (path === undefined) return temporary('the checker left no directory')
          return { verdict: 'yes', maildrop: { uid: answer.uid, gid: answer.gid, maildir: path } }
        }
        case 'badauth':
          return { verdict: 'no', detail: answer.detail }
        case 'temporary':
        case 'crash':
          return answer
      }
    },
    close: () => {},
  }
}
