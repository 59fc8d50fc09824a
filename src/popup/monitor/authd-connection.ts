/**
 * The monitor's connection to authd: events in flight, events that wait, and the new connection
 * after a loss.
 */

import { connect, type Socket } from 'node:net'
import type { Clock } from '../../base/clock.ts'
import type { Log } from '../../base/log.ts'
import { LineSplitter } from '../../wire/lines.ts'
import {
  formatLoginEvent,
  type LoginAnswer,
  type LoginEvent,
  MAX_LOGIN_EVENT_LINE,
  parseLoginAnswer,
} from '../../wire/login-event.ts'

/** Default of `maxKept`. */
const MAX_KEPT = 20_000
const RECONNECT_FIRST_MS = 20
const RECONNECT_LONGEST_MS = 2_000

type Kept = {
  readonly event: LoginEvent
  readonly since: number
  readonly answered: (answer: LoginAnswer) => void
}

export type AuthdConnectionOptions = {
  /** Path of authd's Unix socket. */
  readonly path: string
  /** Milliseconds that a login waits for the answer. */
  readonly grantWait: number
  /** Milliseconds after which an undelivered event expires. */
  readonly keepFor: number
  /** Number of events that are kept while authd does not answer; above it the oldest is dropped. */
  readonly maxKept?: number
}

/** The times of the connection. */
export type AuthdConnectionTimes = Omit<AuthdConnectionOptions, 'path' | 'maxKept'>

/**
 * One connection to authd, restored after each loss. Several events are in flight at once. Events
 * without an answer are sent again on the next connection, so that no login is lost while authd
 * restarts.
 */
export class AuthdConnection {
  #options: AuthdConnectionOptions
  readonly #log: Log
  readonly #clock: Clock
  readonly #kept = new Map<string, Kept>()
  #socket: Socket | undefined
  #connected = false
  /** Events of this event loop turn that are not sent yet. */
  #unsent = ''
  #downSince: number
  #retry: NodeJS.Timeout | undefined
  #wait = RECONNECT_FIRST_MS
  #complained = false
  #closed = false

  constructor(options: AuthdConnectionOptions, log: Log, clock: Clock) {
    this.#options = options
    this.#log = log
    this.#clock = clock
    this.#downSince = clock()
    this.#connect()
  }

  /**
   * Announces a login and waits for the answer, at most `grantWait`. After that the answer is
   * `queued` and the event is delivered later; at once if authd has been unreachable for longer
   * than that.
   */
  announce(event: LoginEvent): Promise<LoginAnswer> {
    return new Promise(resolve => {
      const queued: LoginAnswer = { verdict: 'queued', id: event.id }
      const isUnreachable = !this.#connected && this.#clock() - this.#downSince > this.#options.grantWait
      const timer = setTimeout(() => resolve(queued), isUnreachable ? 0 : this.#options.grantWait)
      this.#kept.delete(event.id)
      this.#kept.set(event.id, {
        event,
        since: this.#clock(),
        answered: answer => {
          clearTimeout(timer)
          resolve(answer)
        },
      })
      this.#dropOldest()
      if (this.#connected) this.#send(event)
    })
  }

  /** Sends an event again, with its age. Less than a second counts as now. */
  #sendAgain({ event, since }: Kept): void {
    const age = this.#clock() - since
    this.#send(age < 1000 ? event : { ...event, age: Math.ceil(age / 1000) })
  }

  /** The events of one event-loop turn are sent together. */
  #send(event: LoginEvent): void {
    if (this.#unsent === '') {
      setImmediate(() => {
        if (this.#connected && this.#unsent !== '') this.#socket?.write(this.#unsent)
        this.#unsent = ''
      })
    }
    this.#unsent += `${formatLoginEvent(event)}\n`
  }

  /** Puts other times in force for logins from now on. */
  use(times: AuthdConnectionTimes): void {
    this.#options = { ...this.#options, ...times }
  }

  /** Number of events that have no answer yet. */
  get unanswered(): number {
    return this.#kept.size
  }

  /** Gives unanswered events up to `limit` milliseconds more, then closes. */
  async close(limit = 0): Promise<void> {
    if (this.#kept.size > 0 && limit > 0 && this.#connected) {
      await new Promise<void>(resolve => {
        const timer = setTimeout(resolve, limit)
        this.#idle = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
    this.#closed = true
    clearTimeout(this.#retry)
    this.#socket?.destroy()
    if (this.#kept.size > 0) this.#log.error('login_events_lost', { count: this.#kept.size })
  }

  #idle: () => void = () => {}

  #connect(): void {
    const socket = connect({ path: this.#options.path })
    const lines = new LineSplitter(MAX_LOGIN_EVENT_LINE)
    this.#socket = socket
    socket.on('connect', () => {
      this.#connected = true
      this.#wait = RECONNECT_FIRST_MS
      if (this.#complained) this.#log.info('authd_reconnected', { kept: this.#kept.size })
      this.#complained = false
      for (const kept of this.#kept.values()) this.#sendAgain(kept)
    })
    socket.on('data', chunk => {
      for (const line of lines.push(chunk).lines) this.#answer(line)
    })
    socket.on('error', error => {
      if (this.#complained || this.#closed) return
      this.#complained = true
      this.#log.warn('authd_unreachable', { path: this.#options.path, reason: error })
    })
    socket.on('close', () => {
      if (this.#connected) this.#downSince = this.#clock()
      this.#connected = false
      this.#unsent = ''
      if (this.#closed) return
      this.#retry = setTimeout(() => this.#connect(), this.#wait)
      this.#wait = Math.min(this.#wait * 2, RECONNECT_LONGEST_MS)
    })
  }

  #answer(line: string): void {
    const answer = parseLoginAnswer(line)
    const kept = answer === undefined ? undefined : this.#kept.get(answer.id)
    if (answer === undefined || kept === undefined) {
      this.#log.warn('authd_answer_unknown', { line: line.slice(0, 80) })
      return
    }
    // `queued` means that authd will store the event later, so that it is not sent again.
    this.#kept.delete(answer.id)
    kept.answered(answer)
    if (this.#kept.size === 0) this.#idle()
  }

  #dropOldest(): void {
    const { keepFor, maxKept = MAX_KEPT } = this.#options
    const tooOld = this.#clock() - keepFor
    for (const [id, { since, event }] of this.#kept) {
      if (since > tooOld && this.#kept.size <= maxKept) return
      this.#kept.delete(id)
      this.#log.error('login_event_dropped', { id, ip: event.ip, user: event.user })
    }
  }
}
