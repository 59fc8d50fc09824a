import { connect } from 'node:net'
import type { Log } from '../../base/log.ts'
import { connectSharingReads } from '../../tunnel/shared-read.ts'
import type { ClientGone } from '../client-gone.ts'
import { type Authenticator, failed, type LoginRequest, type LoginResult, type MaildropDoor } from './authenticator.ts'
import type { HandoffSender } from './handoff-sender.ts'
import type { Answer, MonitorRequest, MonitorRequests } from './monitor-requests.ts'

/**
 * The monitor's checker decides; the mail is in a pop3d worker's hands, whose first reply answers the password. Without
 * `links` every session is relayed.
 */
export function monitorAuthenticator(
  monitor: MonitorRequests,
  links: HandoffSender | undefined,
  log: Log,
): Authenticator {
  return (request, departure) =>
    withRequest(askToVerify(monitor, request), departure, async ({ answer }) => {
      const said = await answer()
      if (said.type !== 'open') return failureIn(said)
      const { socket, ticket } = said
      const link = links?.to(socket)
      const opened = link instanceof Promise ? await link : link
      const door: MaildropDoor = {
        owner: socket,
        pass: (client, readAhead, ended) => opened?.pass(client, ticket, readAhead, ended) === true,
        bridge: readAhead => opened?.bridge(ticket, readAhead),
        connect: () => openMaildrop(socket, ticket, log),
      }
      return { outcome: 'maildrop', door }
    })
}

/** Puts a login before the monitor. */
export function askToVerify(
  monitor: MonitorRequests,
  { login, secret, method, client, timestamp }: LoginRequest,
): MonitorRequest {
  const { id, ip, port, localIp, localPort, tls, proxyIp } = client
  return monitor.verify({
    id,
    login,
    secret,
    method,
    ip,
    tls,
    timestamp,
    remotePort: port,
    localIp,
    localPort,
    proxyIp,
  })
}

/** Runs `work`, and tells the monitor if the client goes away before it is done. */
export async function withRequest(
  request: MonitorRequest,
  departure: ClientGone,
  work: (request: MonitorRequest) => Promise<LoginResult>,
): Promise<LoginResult> {
  departure.listen(() => request.cancel())
  try {
    return await work(request)
  } finally {
    request.end()
  }
}

export const failureIn = (answer: Answer): LoginResult =>
  failed(answer.type === 'failed' ? answer.failure : 'temporary')

async function openMaildrop(path: string, ticket: string, log: Log): Promise<LoginResult> {
  // A client in TLS is given its mail from one buffer: fresh memory for each read would make this
  // process grow with a long message.
  const stream = connectSharingReads(onread => connect({ path, allowHalfOpen: true, onread }))
  const error = await new Promise<Error | undefined>(resolve => {
    stream.once('connect', () => resolve(undefined))
    stream.on('error', resolve) // stays: later errors end the relay
  })
  if (error !== undefined) {
    log.error('maildrop_unreachable', { reason: error })
    return failed('temporary')
  }
  stream.write(`${ticket}\n`)
  return { outcome: 'open', stream, reply: [] }
}
