import { randomBytes } from 'node:crypto'
import { KeyedHash } from '../../base/keyed-hash.ts'
import type { UpstreamServer } from '../messages.ts'
import { type Authenticator, failed } from './authenticator.ts'
import { failureIn, withRequest } from './monitor-authenticator.ts'
import type { MonitorRequests } from './monitor-requests.ts'
import { loginUpstream } from './upstream-login.ts'

/**
 * Another POP3 server decides. Its secrets go there and nowhere else: the monitor, who delays and
 * announces, sees none, and
 * reads nothing that the network sent.
 */
export function upstreamAuthenticator(monitor: MonitorRequests, server: UpstreamServer): Authenticator {
  const proofs = new KeyedHash(randomBytes(32))
  return async ({ login, secret, method, client }, departure) => {
    // The digest is over our own timestamp: nobody behind could check it.
    if (method === 'apop') return failed('credentials')
    const { id, ip, port, localIp, localPort, tls } = client
    return withRequest(
      monitor.attempt({ id, login, method, ip, tls, proof: proofs.hex(`${login}\0${secret}`) }),
      departure,
      async request => {
        const leave = await request.answer()
        if (leave.type !== 'proceed') return failureIn(leave)
        const answer = await loginUpstream(
          server,
          { login, secret },
          {
            ...{ id, tls },
            source: { ip, port: port ?? 0 },
            destination: { ip: localIp ?? ip, port: localPort ?? 110 },
          },
        )
        request.report(answer.outcome)
        const said = await request.answer()
        if (answer.outcome !== 'yes') return failureIn(said)
        if (said.type === 'announced') {
          return { outcome: 'open', stream: answer.stream, reply: [answer.reply.line, answer.reply.rest] }
        }
        answer.stream.destroy()
        return failureIn(said)
      },
    )
  }
}
