/**
 * A POP3 session after the login: the states TRANSACTION and UPDATE (RFC 1939 §5 and §6).
 *
 * The language is in src/pop3: a line gives effects, and a session performs them one after the
 * other. Effects without a message are performed at once. A message that is not in memory is read
 * and sent asynchronously; meanwhile no further line runs, and the connection is paused after one
 * more chunk. Replies are collected and sent when no complete line is left, so that pipelined
 * commands get few packets. The session yields to the others after a full time slice.
 *
 * A session has one end, `#finish`, which every path calls: QUIT, the end of the input, a reset,
 * the idle limit, too many bad lines, and faults. Only QUIT removes messages, and the lock of the
 * maildrop is released before its reply.
 */
import { closeSync } from 'node:fs'
import { resolve } from 'node:path'
import { errorCodeOf, messageOf, stackOf } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import { COMMAND_LINE_LIMIT } from '../pop3/command.ts'
import { ok } from '../pop3/reply.ts'
import {
  CANNOT_OPEN,
  formatListing,
  needsSizes,
  runTransaction,
  startTransaction,
  type TransactionEffect,
  type TransactionState,
  updateReply,
} from '../pop3/transaction.ts'
import type { Connection, ConnectionListener } from '../sockets/connection.ts'
import { type Line, LineReader } from '../wire/lines.ts'
import type { EncoderPool, LineEncoder } from './encoding/line-encoder.ts'
import { readMessage, SMALL_MESSAGE, streamMessage, type TransferRules } from './encoding/send-message.ts'
import type { OpenedMessage } from './maildir/folders.ts'
import type { Maildrop } from './maildir/maildrop.ts'
import type { MaildropCache } from './maildir/maildrop-cache.ts'
import { isUnchanged } from './maildir/scan-maildir.ts'
import { updateMaildrop } from './maildir/update-maildrop.ts'
import { TimeSlice } from './time-slice.ts'

/** Rules that all sessions of a process share. */
export interface SessionRules extends TransferRules {
  readonly compat: 'none' | 'qmail'
  /** Lines of the CAPA response. */
  readonly capabilities: readonly string[]
  /**
   * Milliseconds after which the connection is closed, if the client neither sends a command nor
   * reads.
   */
  readonly idleTime: number
}

/** The parts of its process that a session uses. */
export interface SessionParts {
  readonly cache: MaildropCache
  readonly encoders: EncoderPool
  readonly rules: SessionRules
  readonly log: Log
  /** Releases the lock of the maildrop. Called once, at the end of the session. */
  readonly unlock: () => void
}

/** How a session ended, for the log. */
export interface SessionEnd {
  readonly reason: 'quit' | 'eof' | 'idle' | 'dropped' | 'failed' | 'lines'
  readonly retrieved: number
  readonly deleted: number
}

/** Messages that one session reports as unreadable at most, and again as not removed. */
const MAX_WARNINGS = 20

/** Octets that the client has not read, above which no further command runs. */
const HIGH_WATER_OCTETS = 65_536

/**
 * One session in TRANSACTION and UPDATE over an open maildrop. The replies to pipelined commands
 * are sent together. A session that ends without QUIT leaves the maildrop unchanged (RFC 1939 §6).
 */
export class Session implements ConnectionListener {
  readonly #connection: Connection
  readonly #maildrop: Maildrop
  readonly #cache: MaildropCache
  readonly #encoders: EncoderPool
  readonly #rules: SessionRules
  readonly #log: Log
  readonly #unlock: () => void
  readonly #reader = new LineReader()
  readonly #state: TransactionState
  readonly #ended = Promise.withResolvers<SessionEnd>()
  #replies = ''
  #running = false
  /** Continues the session after the client has read enough of the pending output. */
  #wake: (() => void) | undefined
  #inputEnded = false
  #over = false
  #retrieved = 0
  #sizesChecked = false
  /** Messages that were reported as unreadable. */
  readonly #warned = new Set<number>()

  constructor(connection: Connection, maildrop: Maildrop, { cache, encoders, rules, log, unlock }: SessionParts) {
    this.#connection = connection
    this.#maildrop = maildrop
    this.#cache = cache
    this.#encoders = encoders
    this.#rules = rules
    this.#log = log
    this.#unlock = unlock
    this.#state = startTransaction(maildrop, rules)
  }

  /** Settles when the session is over. Its connection then closes without further calls. */
  get ended(): Promise<SessionEnd> {
    return this.#ended.promise
  }

  /**
   * Sends the `+OK ` that answers the login, and serves. `readAhead` contains the octets that the
   * client has already sent.
   */
  start(readAhead: Uint8Array): void {
    this.#connection.onIdle(this.#rules.idleTime, () => this.#finish('idle'))
    this.#connection.listen(this)
    this.#replies = ok()
    if (readAhead.length > 0) this.#reader.push(readAhead)
    this.#run()
    // The connection was paused while the maildrop was opened. Setting a listener does not resume
    // it.
    if (!this.#running) this.#connection.resume()
  }

  data(octets: Buffer): void {
    if (this.#over) return
    this.#reader.push(octets)
    // While a command runs, one chunk waits in the reader and further octets wait in the kernel.
    if (this.#running) this.#connection.pause()
    else this.#run()
  }

  end(): void {
    this.#inputEnded = true
    this.#run()
  }

  drained(): void {
    this.#wake?.()
  }

  /** A reset connection ends the session like any other end without QUIT. */
  closed(): void {
    this.#wake?.()
    this.#finish('dropped')
  }

  /**
   * Runs the complete lines. An asynchronous command continues here when it is done. After a full
   * time slice the session yields to the other sessions and continues here.
   */
  #run(): void {
    const slice = new TimeSlice()
    while (!this.#running && !this.#over) {
      let working = slice.pause()
      if (working === undefined) {
        const line = this.#reader.next(COMMAND_LINE_LIMIT)
        if (line === undefined) break
        working = this.#execute(line)
        if (working === undefined) continue
      }
      this.#running = true
      working.then(
        () => this.#resume(),
        (error: unknown) => {
          this.#log.error('session_failed', { reason: stackOf(error) })
          this.#finish('failed')
        },
      )
    }
    if (this.#over) return
    this.#flush()
    if (this.#inputEnded && !this.#running) this.#finish('eof')
  }

  #resume(): void {
    this.#running = false
    if (this.#connection.isPaused && !this.#over) this.#connection.resume()
    this.#run()
  }

  #execute(line: Line): Promise<void> | undefined {
    if (needsSizes(line) && !(this.#sizesChecked && this.#maildrop.sizesKnown)) {
      this.#sizesChecked = true
      const pending = this.#cache.determineSizes(this.#maildrop)
      if (pending !== undefined) {
        this.#flush()
        return pending.then(() => {
          for (const [number, cause] of this.#maildrop.unreadable) {
            if (cause !== undefined) this.#warnOfUnreadable(number, cause)
          }
          return this.#perform(runTransaction(this.#state, line))
        })
      }
    }
    return this.#perform(runTransaction(this.#state, line))
  }

  #perform(effects: readonly TransactionEffect[]): Promise<void> | undefined {
    let working: Promise<void> | undefined
    for (const effect of effects) working = this.#performOne(effect)
    return working ?? this.#drained()
  }

  #performOne(effect: TransactionEffect): Promise<void> | undefined {
    switch (effect.kind) {
      case 'reply':
        this.#replies += effect.text
        return undefined
      case 'listing':
        this.#send(
          this.#state.deleted.size === 0
            ? this.#maildrop.readyListing(effect.of)
            : Buffer.from(formatListing(this.#maildrop, effect.of, this.#state.deleted), 'latin1'),
        )
        return undefined
      case 'message':
        return this.#sendMessage(effect.number, effect.bodyLines)
      case 'enterUpdate':
        return this.#update()
      case 'close':
        this.#finish('lines')
        return undefined
    }
  }

  #sendMessage(number: number, bodyLines: number | undefined): Promise<void> | undefined {
    const opened = this.#maildrop.files.open(this.#maildrop.message(number))
    if (!(opened instanceof Promise)) return this.#sendOpened(number, opened, bodyLines)
    this.#flush()
    return opened.then(found => this.#sendOpened(number, found, bodyLines))
  }

  #sendOpened(number: number, opened: OpenedMessage, bodyLines: number | undefined): Promise<void> | undefined {
    if (opened.kind !== 'open') {
      if (opened.kind === 'unreadable') this.#warnOfUnreadable(number, opened.cause)
      this.#replies += CANNOT_OPEN
      return undefined
    }
    const { fd, status } = opened
    if (!isUnchanged(this.#maildrop.message(number), status)) this.#maildrop.noteChange(number, status)
    this.#retrieved += 1
    if (status.size > SMALL_MESSAGE) return this.#streamMessage(number, fd, status.size, bodyLines)
    try {
      this.#sendSmall(number, fd, bodyLines)
    } catch (error) {
      // Without termination and further replies the client cannot mistake a part of the message for
      // the whole (spec/pop3d.md §4).
      this.#unreadable(number, error)
    } finally {
      closeSync(fd)
    }
    return undefined
  }

  #sendSmall(number: number, fd: number, bodyLines: number | undefined): void {
    const encoder = this.#encoders.take()
    try {
      const reply = readMessage(fd, encoder, this.#rules, bodyLines)
      this.#send(reply)
      this.#logSent(number, reply.length)
    } finally {
      encoder.release()
    }
  }

  async #streamMessage(number: number, fd: number, size: number, bodyLines: number | undefined): Promise<void> {
    let encoder: LineEncoder | undefined
    try {
      this.#flush()
      encoder = this.#encoders.take()
      const octets = await streamMessage(fd, size, this.#connection, encoder, this.#rules, bodyLines)
      if (octets !== undefined) this.#logSent(number, octets)
    } finally {
      encoder?.release()
      closeSync(fd)
    }
  }

  #logSent(number: number, octets: number): void {
    this.#log.debug('message_sent', { number, octets })
  }

  #warnOfUnreadable(number: number, cause: Error): void {
    if (this.#warned.has(number) || this.#warned.size >= MAX_WARNINGS) return
    this.#warned.add(number)
    this.#log.warn('message_unreadable', {
      file: this.#fileOf(number),
      number,
      reason: errorCodeOf(cause) ?? cause.message,
    })
  }

  /** Path for the log. A process for one session may have the maildrop as the current directory. */
  #fileOf(number: number): string {
    const { folder, name } = this.#maildrop.message(number)
    return resolve(this.#maildrop.path, folder, name)
  }

  #unreadable(number: number, error: unknown): void {
    this.#log.error('message_unreadable', {
      file: this.#fileOf(number),
      number,
      reason: errorCodeOf(error) ?? String(error),
    })
    this.#finish('failed')
  }

  async #update(): Promise<void> {
    this.#flush()
    const { compat } = this.#rules
    const failures = await updateMaildrop(this.#maildrop, this.#state.deleted, compat)
    for (const { number, cause } of failures.slice(0, MAX_WARNINGS)) {
      this.#log.error('unlink_failed', {
        file: this.#fileOf(number),
        number,
        failures: failures.length,
        reason: errorCodeOf(cause) ?? messageOf(cause),
      })
    }
    this.#replies += updateReply(failures.length, compat)
    this.#finish('quit', failures.length)
  }

  #send(octets: Uint8Array): void {
    this.#connection.write(this.#replies, octets)
    this.#replies = ''
  }

  #flush(): void {
    if (this.#replies === '') return
    this.#connection.write(this.#replies)
    this.#replies = ''
  }

  /**
   * Back-pressure: no further command runs while the client leaves more than HIGH_WATER_OCTETS
   * unread.
   */
  #drained(): Promise<void> | undefined {
    if (this.#replies.length > HIGH_WATER_OCTETS) this.#flush()
    if (this.#connection.unsent <= HIGH_WATER_OCTETS) return undefined
    return new Promise(resolve => {
      this.#wake = resolve
    })
  }

  #finish(reason: SessionEnd['reason'], failed = 0): void {
    if (this.#over) return
    this.#over = true
    // The lock ends before the reply to QUIT, because a client that has read the reply may open the
    // maildrop again at once.
    this.#unlock()
    if (reason === 'idle' || reason === 'failed' || reason === 'dropped') {
      this.#connection.destroy()
    } else {
      this.#connection.end(this.#replies)
    }
    this.#ended.resolve({
      reason,
      retrieved: this.#retrieved,
      deleted: reason === 'quit' ? this.#state.deleted.size - failed : 0,
    })
  }
}
