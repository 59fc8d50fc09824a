import type { Socket } from 'node:net'
import type { Log } from '../../base/log.ts'
import type { Authenticator } from './authenticator.ts'
import type { ChainConnections } from './chain-connections.ts'
import { isPositive, readFirstLine } from './first-line.ts'
import { askToVerify, failureIn, withRequest } from './monitor-authenticator.ts'
import type { MonitorRequests } from './monitor-requests.ts'

/** Above the longest time that the monitor gives a checker. */
const LIMIT_MS = 610_000
/** Characters of a program's line that the log shows. */
const MOST_SHOWN = 80

/**
 * A checkpassword program with a POP3 server behind it decides, run by the monitor. The server's
 * first +OK is the proof. It
 * is held back until the login is announced, and so is what the client sent ahead: servers of qmail's time lose that.
 */
export function chainAuthenticator(monitor: MonitorRequests, chains: ChainConnections, log: Log): Authenticator {
  return (login, departure) =>
    withRequest(askToVerify(monitor, login), departure, async request => {
      const answered = request.answer()
      const program = new Promise<Socket>(resolve => chains.expect(request.n, resolve))
      const first = await Promise.race([program, answered])
      chains.forget(request.n)
      if ('type' in first) return failureIn(first)
      const reply = await readFirstLine(first, LIMIT_MS)
      if (reply !== undefined && isPositive(reply)) request.report('yes')
      else {
        const line = reply?.line.toString('latin1').trimEnd().slice(0, MOST_SHOWN)
        if (line !== undefined) log.warn('chain_reply_unexpected', { id: login.client.id, line })
        first.destroy()
      }
      // Without +OK the monitor says what the program's end means.
      const answer = await answered
      if (reply !== undefined && answer.type === 'announced') {
        return { outcome: 'open', stream: first, reply: [reply.line, reply.rest] }
      }
      first.destroy()
      return failureIn(answer)
    })
}
