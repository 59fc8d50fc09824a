import { connect } from 'node:net'
import type { Log } from '../../daemon/log.ts'
import { connectSharingReads } from '../../tunnel/shared-read.ts'
import type { Departure } from '../departure.ts'
import { failed, type Judge, type Judgement, type LoginRequest, type MaildropDoor } from './judge.ts'
import type { Answer, KeeperRequest, KeeperRequests } from './keeper-requests.ts'
import type { MaildropLinks } from './maildrop-links.ts'

/** The keeper's checker decides; the mail is in a pop3d worker's hands, whose first reply answers the password. */
export function keeperJudge(keeper: KeeperRequests, links: MaildropLinks, log: Log): Judge {
  return (request, departure) =>
    withRequest(askToVerify(keeper, request), departure, async ({ answer }) => {
      const said = await answer()
      if (said.type !== 'open') return failureIn(said)
      const { socket, ticket } = said
      const link = links.to(socket)
      const opened = link instanceof Promise ? await link : link
      const door: MaildropDoor = {
        owner: socket,
        pass: (client, readAhead, ended) => opened?.pass(client, ticket, readAhead, ended) === true,
        connect: () => openMaildrop(socket, ticket, log),
      }
      return { outcome: 'maildrop', door }
    })
}

/** Puts a login before the keeper. */
export function askToVerify(
  keeper: KeeperRequests,
  { login, secret, method, client, timestamp }: LoginRequest,
): KeeperRequest {
  const { id, ip, port, localIp, localPort, tls, proxyIp } = client
  return keeper.verify({ id, login, secret, method, ip, tls, timestamp, remotePort: port, localIp, localPort, proxyIp })
}

/** Runs `work`, and tells the keeper if the client goes away before it is done. */
export async function withRequest(
  request: KeeperRequest,
  departure: Departure,
  work: (request: KeeperRequest) => Promise<Judgement>,
): Promise<Judgement> {
  departure.listen(() => request.cancel())
  try {
    return await work(request)
  } finally {
    request.end()
  }
}

export const failureIn = (answer: Answer): Judgement => failed(answer.type === 'failed' ? answer.failure : 'temporary')

async function openMaildrop(path: string, ticket: string, log: Log): Promise<Judgement> {
  // A client in TLS is given its mail from one buffer: fresh memory for each read would make this process grow with a long message.
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
