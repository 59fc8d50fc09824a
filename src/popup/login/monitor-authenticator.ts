/**
 * Login by the monitor's checker, and the requests that every authenticator sends to the monitor.
 */
import { connect } from 'node:net'
import type { Log } from '../../base/log.ts'
import type { ControlChannel } from '../../process/worker-process.ts'
import { connectSharingReads } from '../../tunnel/relay.ts'
import type { IpAddress } from '../../wire/ip-address.ts'
import type { FromLoginMessage, ToLogin, UpstreamOutcome } from '../../wire/workers/login-process.ts'
import type { ClientDisconnect } from '../client-disconnect.ts'
import { type Authenticator, failed, type LoginRequest, type LoginResult, type WorkerSession } from './authenticator.ts'
import type { HandoffSender } from './handoff-sender.ts'

/** An answer of the monitor to one request. */
type Answer = Exclude<ToLogin, { type: 'settings' | 'drain' }>

/** One request to the monitor and its continuation. */
type MonitorRequest = {
  readonly n: number
  /** The next answer. */
  answer(): Promise<Answer>
  /** Sends the monitor the result of another server. */
  report(outcome: UpstreamOutcome): void
  /**
   * The client has disconnected: the monitor drops the request, and a waiting caller gets
   * `temporary`.
   */
  cancel(): void
  /** No further answer is expected. */
  end(): void
}

/** Maximum unsent characters to the monitor; above it a login gets a temporary failure. */
const MAX_UNSENT = 4_194_304

type Verify = Extract<FromLoginMessage, { type: 'verify' }>
type Attempt = Extract<FromLoginMessage, { type: 'attempt' }>
type Waiting = { readonly answers: Answer[]; wake: (() => void) | undefined }

/** Matches the monitor's answers to the requests of this login process. */
export class MonitorRequests {
  readonly #channel: ControlChannel
  readonly #waiting = new Map<number, Waiting>()
  #last = 0

  constructor(channel: ControlChannel) {
    this.#channel = channel
  }

  /** Sends a request to check a secret. */
  verify(request: Omit<Verify, 'type' | 'n'>): MonitorRequest {
    return this.#begin(n => ({ type: 'verify', n, ...request }))
  }

  /** Requests admission to a server that checks the login. */
  attempt(attempt: Omit<Attempt, 'type' | 'n'>): MonitorRequest {
    return this.#begin(n => ({ type: 'attempt', n, ...attempt }))
  }

  preambleRefused(ip: IpAddress, reason: 'badpass' | 'badhost'): void {
    this.#send({ type: 'preambleRefused', ip, reason })
  }

  ready(): void {
    this.#send({ type: 'ready' })
  }

  /** An answer has arrived. Answers to ended requests are dropped. */
  receive(answer: Answer): void {
    const waiting = this.#waiting.get(answer.n)
    waiting?.answers.push(answer)
    waiting?.wake?.()
  }

  #begin(make: (n: number) => FromLoginMessage): MonitorRequest {
    this.#last += 1
    const n = this.#last
    const waiting: Waiting = { answers: [], wake: undefined }
    this.#waiting.set(n, waiting)
    const isAsked = this.#channel.unsent <= MAX_UNSENT
    if (isAsked) this.#send(make(n))
    else waiting.answers.push({ type: 'failed', n, failure: 'temporary' })
    return {
      n,
      answer: async () => {
        for (;;) {
          const answer = waiting.answers.shift()
          if (answer !== undefined) return answer
          await new Promise<void>(resolve => {
            waiting.wake = resolve
          })
        }
      },
      report: outcome => this.#send({ type: 'outcome', n, outcome }),
      cancel: () => {
        if (isAsked) this.#send({ type: 'cancel', n })
        this.receive({ type: 'failed', n, failure: 'temporary' })
      },
      end: () => {
        this.#waiting.delete(n)
      },
    }
  }

  #send(message: FromLoginMessage): void {
    this.#channel.send(message)
  }
}

/**
 * The monitor's checker decides. A pop3d worker then serves the maildrop, and its first reply
 * answers the password. Without `sender` every session is relayed.
 */
export function monitorAuthenticator(
  monitor: MonitorRequests,
  sender: HandoffSender | undefined,
  log: Log,
): Authenticator {
  return (request, disconnect) =>
    withRequest(askToVerify(monitor, request), disconnect, async ({ answer }) => {
      const reply = await answer()
      if (reply.type !== 'open') return failureIn(reply)
      const { socket, ticket } = reply
      const channel = sender?.to(socket)
      const opened = channel instanceof Promise ? await channel : channel
      const worker: WorkerSession = {
        owner: socket,
        pass: (client, readAhead, ended) => opened?.pass(client, ticket, readAhead, ended) === true,
        bridge: readAhead => opened?.bridge(ticket, readAhead),
        connect: () => openMaildrop(socket, ticket, log),
      }
      return { kind: 'maildrop', worker }
    })
}

/** Sends the login to the monitor. */
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

/** Runs `work`, and sends the monitor a message if the client disconnects before it is done. */
export async function withRequest(
  request: MonitorRequest,
  disconnect: ClientDisconnect,
  work: (request: MonitorRequest) => Promise<LoginResult>,
): Promise<LoginResult> {
  disconnect.listen(() => request.cancel())
  try {
    return await work(request)
  } finally {
    request.end()
  }
}

export const failureIn = (answer: Answer): LoginResult =>
  failed(answer.type === 'failed' ? answer.failure : 'temporary')

async function openMaildrop(path: string, ticket: string, log: Log): Promise<LoginResult> {
  // A client in TLS gets its mail through one buffer, because a new buffer for each read would make
  // this process grow with a long message.
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
  return { kind: 'open', stream, reply: [] }
}
