/**
 * The sessions of one owner: the state that they share, and the replies for a maildrop that cannot
 * be opened.
 */
import { resolve } from 'node:path'
import { BoundedMap } from '../base/bounded-map.ts'
import { type Clock, systemClock } from '../base/clock.ts'
import { asError } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import { CRLF, err } from '../pop3/reply.ts'
import type { Connection } from '../sockets/connection.ts'
import { EncoderPool } from './encoding/line-encoder.ts'
import { CHUNK } from './encoding/send-message.ts'
import type { Maildrop } from './maildir/maildrop.ts'
import { MaildropCache, MaildropMissing, MaildropUnreadable } from './maildir/maildrop-cache.ts'
import { lockMaildrop, MaildropInUse } from './maildir/maildrop-lock.ts'
import { Session, type SessionEnd } from './session.ts'

/** The settings of pop3d in the form that its sessions use. */
export interface MaildropServiceOptions {
  readonly compat: 'none' | 'qmail'
  readonly sizes: 'wire' | 'file'
  readonly extraBlank: boolean
  readonly lock: 'none' | 'exclusive'
  /** Milliseconds. */
  readonly idleTime: number
  readonly capabilities: readonly string[]
}

/** Maildrops for which the last report of left out files is kept. */
const MAX_REPORTS = 10_000

/** Serves the maildrops of one owner. It holds the state that all sessions of a process share. */
export class MaildropService {
  readonly #options: MaildropServiceOptions
  readonly #encoders = new EncoderPool(CHUNK)
  readonly #cache: MaildropCache
  /** The last report of left out files, by maildrop. */
  readonly #leftOut = new BoundedMap<string, string>(MAX_REPORTS)

  constructor(options: MaildropServiceOptions, clock: Clock = systemClock) {
    this.#options = options
    this.#cache = new MaildropCache({ sizes: options.sizes, compat: options.compat }, this.#encoders, clock)
  }

  /**
   * Serves one session: the reply to the login, TRANSACTION, UPDATE. `readAhead` contains the
   * octets that the client has already sent. Settles when the session is over. If the maildrop
   * cannot be opened, the client gets a reply, the log an event, and the caller `refused`.
   */
  async serve(connection: Connection, maildir: string, readAhead: Uint8Array, log: Log): Promise<'served' | 'refused'> {
    let unlock = () => {}
    let maildrop: Maildrop
    try {
      maildrop = this.#cache.cached(maildir) ?? (await this.#cache.open(maildir))
      if (this.#options.lock !== 'none') {
        unlock = lockMaildrop(maildir)
        // Read again under the lock, because an earlier session may have changed the maildrop at
        // its QUIT.
        maildrop = await this.#cache.open(maildir)
      }
    } catch (error) {
      unlock()
      this.#logRefusal(maildir, error, log)
      connection.end(refusalOf(error))
      return 'refused'
    }
    const { compat, extraBlank, idleTime, capabilities } = this.#options
    const rules = { compat, capabilities, idleTime, extraBlank, keepCr: compat === 'qmail' }
    const session = new Session(connection, maildrop, {
      cache: this.#cache,
      encoders: this.#encoders,
      rules,
      log,
      unlock,
    })
    this.#reportLeftOut(maildrop, log)
    log.debug('session_started', { maildrop: maildir, messages: maildrop.count })
    session.start(readAhead)
    const end: SessionEnd = await session.ended
    log.info('session_ended', { reason: end.reason, retrieved: end.retrieved, deleted: end.deleted })
    return 'served'
  }

  /** Reports files that are not listed once, and again when their number changes. */
  #reportLeftOut({ path, leftOut: { symbolicLinks, future, example } }: Maildrop, log: Log): void {
    const report = `${symbolicLinks} ${future}`
    if ((this.#leftOut.get(path) ?? '0 0') === report) return
    // A report that the map has dropped is made once more than necessary.
    if (example === undefined) this.#leftOut.delete(path)
    else {
      this.#leftOut.renew(path, report)
      log.warn('files_ignored', {
        // A process for one session may get the maildrop as the current directory, so resolve the
        // path.
        maildrop: resolve(path),
        symbolic_links: symbolicLinks,
        future,
        example,
        reason: 'symbolic links and files with a time in the future are not listed',
      })
    }
  }

  #logRefusal(maildrop: string, error: unknown, log: Log): void {
    if (error instanceof MaildropInUse) log.info('maildrop_in_use', { maildrop })
    else log.error('maildrop_refused', { maildrop, reason: asError(error) })
  }
}

/**
 * Returns the reply to the client, in the words of qmail-pop3d if it has such a reply
 * (spec/pop3d.md §1).
 */
function refusalOf(error: unknown): string {
  if (error instanceof MaildropMissing) return NO_MAILDROP
  if (error instanceof MaildropUnreadable) return err('unable to scan $HOME/Maildir')
  if (error instanceof MaildropInUse) return err('[IN-USE] maildrop is in use')
  return err('[SYS/TEMP] maildrop cannot be opened')
}

/** Reply without a maildrop, or if the command line names none. */
export const NO_MAILDROP = `-ERR this user has no $HOME/Maildir${CRLF}`
