/** The SMTP front: the sockets, the limits and the log lines of a FrontDialogue. */
import type { FieldsOf, Log } from '../../base/log.ts'
import { FrontDialogue } from '../../smtp/front-dialogue.ts'
import type { FrontEnd, FrontEvent } from '../../smtp/front-options.ts'
import type { FrontRules } from '../../smtp/transaction.ts'
import { IdleTimer } from '../../sockets/connection.ts'
import type { OpenTwoWay, TwoWaySocket } from '../../sockets/two-way-socket.ts'
import { familyOf, type IpAddress } from '../../wire/ip-address.ts'
import type { ClientFault } from '../../wire/services/gate-report.ts'
import { scanContent } from './content-scan.ts'

export type SmtpFrontOptions = {
  readonly ip: IpAddress
  readonly rules: FrontRules
  /** Looks up the grant before each MAIL. Has a deadline and never rejects. */
  readonly renewRules: () => Promise<void>
  /** Called at the start of each message, after its MAIL. */
  readonly lineEndings: () => 'strict' | 'repair'
  readonly auth: 'pass' | 'hide'
  /** Advice in the reply that refuses wrong line ends. */
  readonly lineEndingAdvice: () => string
  /** Called for each fault of the client, once a session. */
  readonly onFault: (fault: ClientFault) => void
  /** Called for each refused command or message, also for those that are not logged. */
  readonly onRefusal: (reason: string) => void
  readonly log: Log
  /** Fields of a log line of the session, at the time of the line. */
  readonly fields: () => FieldsOf<'auth_refused'>
  readonly times?: FrontTimes
}

/** Limits in milliseconds. */
export type FrontTimes = {
  /**
   * Time without an octet in either direction. It is longer than the limits of servers (sendmail:
   * one hour), so that a server ends the session first.
   */
  readonly idle: number
  /** Time for the rest of a message whose line ends were refused. */
  readonly discard: number
  /** Time for the peers to end after the session. */
  readonly linger: number
}

const TIMES: FrontTimes = { idle: 3_900_000, discard: 30_000, linger: 5_000 }
/** Octets waiting for one peer above which the other peer is not read. */
const MAX_WAITING = 65_536
/**
 * Octets of the client that are discarded after the last reply. Closing a socket with unread octets
 * sends a reset, which could destroy the reply.
 */
const MAX_LINGERING = 1_048_576
/** Refusals of one session that are logged one by one. */
const MAX_LOGGED = 20

/**
 * An SMTP dialogue between a client's socket and a socket pair, with the smtpd at the other end of
 * the pair.
 */
export class SmtpFront {
  /** Settles when both descriptors are closed. */
  readonly closed: Promise<void>
  readonly #options: SmtpFrontOptions
  readonly #times: FrontTimes
  readonly #client: TwoWaySocket
  readonly #server: TwoWaySocket
  readonly #dialogue: FrontDialogue
  readonly #resolve: () => void
  readonly #idle = new IdleTimer()
  #timer: NodeJS.Timeout | undefined
  #isClosing = false
  #clientHasEnded = false
  #serverHasEnded = false
  #lingering = 0
  #refused = 0

  /**
   * Opens the server's socket, then the client's, and owns both from then on. Throws if one cannot
   * be opened. An opened socket is then closed, and the caller still owns the other descriptor.
   */
  constructor(client: OpenTwoWay, server: OpenTwoWay, options: SmtpFrontOptions) {
    const { ip, rules, lineEndings, auth, lineEndingAdvice, times = TIMES } = options
    this.#options = options
    this.#times = times
    const { promise, resolve } = Promise.withResolvers<void>()
    this.closed = promise
    this.#resolve = resolve
    this.#server = server({
      data: octets => this.#fromServer(octets),
      ended: () => this.#serverEnded(),
      room: () => this.#updateReading(),
    })
    try {
      this.#client = client({
        data: octets => this.#fromClient(octets),
        ended: () => this.#clientEnded(),
        room: () => this.#updateReading(),
      })
    } catch (error) {
      this.#server.destroy()
      throw error
    }
    this.#dialogue = new FrontDialogue({
      rules,
      lineEndings,
      auth,
      lineEndingAdvice,
      scan: scanContent,
      helloName: familyOf(ip) === 6 ? `[IPv6:${ip}]` : `[${ip}]`,
      output: {
        toServer: octets => this.#server.write(octets),
        toClient: octets => this.#client.write(octets),
        endServer: () => this.#server.endOutput(),
        dropServer: () => this.#dropServer(),
        close: () => this.#close(),
        discarding: () => this.#discarding(),
        renewRules: () => this.#renewRules(),
        event: (...event) => this.#log(...event),
      },
    })
    this.#client.noDelay()
    this.#idle.set(times.idle, () => this.endSession('idle', '421 4.4.2 idle'))
    this.#updateReading()
  }

  /** Ends the session with `reply`, which names the cause; `reason` is for the log. */
  endSession(reason: FrontEnd, reply: string): void {
    this.#dialogue.endSession(reason, reply)
  }

  #fromClient(octets: Uint8Array): void {
    if (this.#isClosing) {
      this.#lingering += octets.length
      if (this.#lingering > MAX_LINGERING) this.#finish()
      return
    }
    this.#idle.refresh()
    this.#dialogue.fromClient(octets)
    this.#updateReading()
  }

  #fromServer(octets: Uint8Array): void {
    if (this.#isClosing) return
    this.#idle.refresh()
    this.#dialogue.fromServer(octets)
    this.#updateReading()
  }

  #clientEnded(): void {
    this.#clientHasEnded = true
    if (this.#isClosing) this.#finishIfEnded()
    else {
      this.#dialogue.clientEnded()
      this.#updateReading()
    }
  }

  #serverEnded(): void {
    this.#serverHasEnded = true
    if (this.#isClosing) this.#finishIfEnded()
    else {
      this.#dialogue.serverEnded()
      this.#updateReading()
    }
  }

  /** Pauses or resumes each peer, so that it is read only while the other one accepts output. */
  #updateReading(): void {
    if (this.#isClosing) return
    const clientReads = this.#client.unsent < MAX_WAITING
    if (clientReads) this.#server.resume()
    else this.#server.pause()
    if (clientReads && this.#server.unsent < MAX_WAITING && this.#dialogue.acceptsInput) this.#client.resume()
    else this.#client.pause()
  }

  #dropServer(): void {
    this.#serverHasEnded = true
    this.#server.destroy()
  }

  #renewRules(): void {
    void this.#options.renewRules().then(() => {
      this.#dialogue.rulesRenewed()
      this.#updateReading()
    })
  }

  #discarding(): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.endSession('discarded', '421 4.4.2 too slow'), this.#times.discard)
  }

  #close(): void {
    this.#isClosing = true
    this.#idle.clear()
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.#finish(), this.#times.linger)
    this.#server.endOutput()
    this.#client.endOutput()
    this.#server.resume()
    this.#client.resume()
    if (this.#refused > MAX_LOGGED)
      this.#options.log.warn('refusals_omitted', { ...this.#options.fields(), count: this.#refused })
    // Deferred to a microtask, so that nothing is closed inside a read of either socket.
    queueMicrotask(() => this.#finishIfEnded())
  }

  #finishIfEnded(): void {
    if (this.#clientHasEnded && this.#serverHasEnded && this.#client.unsent === 0) this.#finish()
  }

  #finish(): void {
    clearTimeout(this.#timer)
    this.#server.destroy()
    this.#client.destroy()
    this.#resolve()
  }

  #log(...[event, fields]: FrontEvent): void {
    const { log, onFault } = this.#options
    const session = this.#options.fields()
    switch (event) {
      case 'mail_refused':
        this.#refused += 1
        this.#options.onRefusal(fields.reason)
        if (this.#refused <= MAX_LOGGED) log.warn('mail_refused', { ...session, ...fields })
        return
      case 'front_ended':
        log.info('front_ended', { ...session, ...fields })
        return
      case 'early_data_sent':
        log.info('early_data_sent', { ...session })
        return
      case 'line_ends_repaired':
        log.info('line_ends_repaired', { ...session })
        break
      case 'auth_refused':
        log.info('auth_refused', { ...session })
        break
      case 'hello_replaced':
        log.info('hello_replaced', { ...session, ...fields })
    }
    onFault(event)
  }
}
