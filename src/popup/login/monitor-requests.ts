import type { ControlChannel } from '../../process/worker-process.ts'
import type { IpAddress } from '../../wire/ip-address.ts'
import type { FromLoginMessage, Outcome, ToLogin } from '../messages.ts'

/** An answer of the monitor to one request. */
export type Answer = Exclude<ToLogin, { type: 'settings' | 'drain' }>

/** One question to the monitor and what follows from it. */
export type MonitorRequest = {
  readonly n: number
  /** The next answer. */
  answer(): Promise<Answer>
  /** Says what another server answered. */
  report(outcome: Outcome): void
  /** The client is gone: the monitor forgets it, and whoever waits for an answer here is told `temporary`. */
  cancel(): void
  /** Nothing more is expected. */
  end(): void
}

/** Characters that the monitor has not taken, above which it is asked nothing more: a login is told to come again. */
const MAX_UNSENT = 4_194_304

type Verify = Extract<FromLoginMessage, { type: 'verify' }>
type Attempt = Extract<FromLoginMessage, { type: 'attempt' }>
type Waiting = { readonly answers: Answer[]; wake: (() => void) | undefined }

/** Matches the monitor's answers to the questions of this login process. */
export class MonitorRequests {
  readonly #channel: ControlChannel
  readonly #waiting = new Map<number, Waiting>()
  #last = 0

  constructor(channel: ControlChannel) {
    this.#channel = channel
  }

  /** Asks whether a secret is right. */
  verify(request: Omit<Verify, 'type' | 'n'>): MonitorRequest {
    return this.#begin(n => ({ type: 'verify', n, ...request }))
  }

  /** Asks to be let through to a server that judges by itself. */
  attempt(attempt: Omit<Attempt, 'type' | 'n'>): MonitorRequest {
    return this.#begin(n => ({ type: 'attempt', n, ...attempt }))
  }

  preambleRefused(ip: IpAddress, reason: 'badpass' | 'badhost'): void {
    this.#send({ type: 'preambleRefused', ip, reason })
  }

  ready(): void {
    this.#send({ type: 'ready' })
  }

  /** An answer has come. Those to requests that have ended are of no use to anybody. */
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
