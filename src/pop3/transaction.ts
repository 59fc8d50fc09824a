/** The TRANSACTION state of POP3: its commands and their replies. */
import type { Line } from '../wire/lines.ts'
import { parseCommand } from './command.ts'
import { CRLF, err, LINE_TOO_LONG, multiline, OVERLONG_LINES_ALLOWED, ok, SYNTAX_ERROR, TERMINATION } from './reply.ts'

/** A number at the beginning of an argument, and the text behind it. */
export interface LeadingNumber {
  readonly value: number
  readonly rest: string
}

/**
 * Reads leading decimal digits and ignores the text behind them, as qmail's scan_ulong does (`2x`
 * is 2). Undefined without a digit. A value above 2^31-1 becomes 2^31-1, which is larger than any
 * message number, where C would wrap around (spec/pop3d.md §3).
 */
export function parseLeadingNumber(text: string): LeadingNumber | undefined {
  const digits = /^[0-9]+/.exec(text)?.[0]
  if (digits === undefined) return undefined
  return { value: Math.min(Number(digits), 2 ** 31 - 1), rest: text.slice(digits.length) }
}

/** The maildrop as the protocol uses it: messages 1 to `count`. */
export interface MaildropView {
  readonly count: number
  /** Size of message `number` in octets. The shell must have satisfied `needsSizes` before. */
  octets(number: number): number
  /** Unique-id of message `number` (RFC 1939 §7). */
  uniqueId(number: number): string
  /**
   * Sum of the sizes of all messages in octets. The shell must have satisfied `needsSizes` before.
   */
  totalOctets(): number
}

/** An action for the shell. This table decides; only the shell uses sockets and files. */
export type TransactionEffect =
  | { readonly kind: 'reply'; readonly text: string }
  /**
   * Reply with the whole scan listing or unique-id listing: the prepared one while no message is
   * deleted, otherwise `formatListing`.
   */
  | { readonly kind: 'listing'; readonly of: Listing }
  /**
   * Send `+OK `, the message and the termination. With `bodyLines`: the header and this number of
   * lines of the body.
   */
  | { readonly kind: 'message'; readonly number: number; readonly bodyLines: number | undefined }
  /** Remove the marked messages, reply and close (RFC 1939 §6). */
  | { readonly kind: 'enterUpdate' }
  | { readonly kind: 'close' }

export type Listing = 'LIST' | 'UIDL'

export interface TransactionOptions {
  /** `qmail`: each reply is the one of qmail-pop3d. */
  readonly compat: 'none' | 'qmail'
  /** Lines of the CAPA response. */
  readonly capabilities: readonly string[]
}

/**
 * A session in TRANSACTION state. It is changed in place, because on a maildrop of 10,000 messages
 * a copy for each DELE would move fifty million entries.
 */
export interface TransactionState {
  readonly maildrop: MaildropView
  readonly options: TransactionOptions
  readonly deleted: Set<number>
  /**
   * Highest message number that DELE has marked. LAST (RFC 1460) reports this number, as in
   * qmail-pop3d.
   */
  last: number
  overlongLines: number
}

export const startTransaction = (maildrop: MaildropView, options: TransactionOptions): TransactionState => ({
  maildrop,
  options,
  deleted: new Set(),
  last: 0,
  overlongLines: 0,
})

/** A command: its argument, whether it needs the sizes, and its action. */
interface TransactionCommand {
  /**
   * Whether the argument is a message number. `optional`: an argument may be missing. Arguments of
   * `none` are ignored, as in qmail-pop3d.
   */
  readonly message: 'none' | 'optional' | 'required'
  readonly needsSizes: boolean
  /** qmail-pop3d does not have the command, so it is unknown with compat = "qmail". */
  readonly modern?: true
  readonly run: (state: TransactionState, number: number, rest: string) => TransactionEffect
}

const reply = (text: string): TransactionEffect => ({ kind: 'reply', text })
const OK = reply(ok())

/**
 * Commands of the TRANSACTION state (RFC 1939 §5 and §7, spec/pop3d.md §3). No command here carries
 * a secret.
 */
export const TRANSACTION: ReadonlyMap<string, TransactionCommand> = new Map<string, TransactionCommand>([
  ['STAT', { message: 'none', needsSizes: true, run: stat }],
  ['LIST', { message: 'optional', needsSizes: true, run: (state, number) => listing(state, 'LIST', number) }],
  ['UIDL', { message: 'optional', needsSizes: false, run: (state, number) => listing(state, 'UIDL', number) }],
  ['RETR', { message: 'required', needsSizes: false, run: sendMessage }],
  ['TOP', { message: 'required', needsSizes: false, run: sendMessage }],
  ['DELE', { message: 'required', needsSizes: false, run: markDeleted }],
  ['RSET', { message: 'none', needsSizes: false, run: reset }],
  ['LAST', { message: 'none', needsSizes: false, run: state => reply(ok(`${state.last}`)) }],
  ['NOOP', { message: 'none', needsSizes: false, run: () => OK }],
  ['QUIT', { message: 'none', needsSizes: false, run: () => ({ kind: 'enterUpdate' }) }],
  [
    'CAPA',
    { message: 'none', needsSizes: false, modern: true, run: state => reply(multiline(state.options.capabilities)) },
  ],
])

/** True if `runTransaction` needs the sizes of all messages for this line. */
export function needsSizes(line: Line): boolean {
  return line.kind === 'line' && TRANSACTION.get(parseCommand(line.text).verb)?.needsSizes === true
}

/** Runs one line of input and changes the state. Each possible line has a reply. */
export function runTransaction(state: TransactionState, line: Line): readonly TransactionEffect[] {
  switch (line.kind) {
    case 'tooLong':
      state.overlongLines += 1
      return state.overlongLines > OVERLONG_LINES_ALLOWED
        ? [reply(LINE_TOO_LONG), { kind: 'close' }]
        : [reply(LINE_TOO_LONG)]
    case 'holdsNul':
      return [reply(SYNTAX_ERROR)]
    case 'line':
      return [runCommand(state, line.text)]
  }
}

function runCommand(state: TransactionState, text: string): TransactionEffect {
  const { verb, argument } = parseCommand(text)
  const command = TRANSACTION.get(verb)
  if (command === undefined || (command.modern && state.options.compat === 'qmail')) return reply(err('unimplemented'))
  if (command.message === 'none' || (command.message === 'optional' && argument === '')) {
    return command.run(state, 0, argument)
  }
  const number = parseLeadingNumber(argument)
  if (number === undefined) return reply(SYNTAX_ERROR)
  if (number.value === 0) return reply(err('messages are counted from 1'))
  if (number.value > state.maildrop.count) return reply(err('not that many messages'))
  if (state.deleted.has(number.value)) return reply(err('already deleted'))
  return command.run(state, number.value, number.rest)
}

function stat({ maildrop, deleted, options }: TransactionState): TransactionEffect {
  let octets = maildrop.totalOctets()
  for (const number of deleted) octets -= maildrop.octets(number)
  // RFC 1939 §5: deleted messages count in neither number. qmail-pop3d counts them in the first
  // one.
  const count = options.compat === 'qmail' ? maildrop.count : maildrop.count - deleted.size
  return reply(ok(`${count} ${octets}`))
}

function listing({ maildrop }: TransactionState, of: Listing, number: number): TransactionEffect {
  return number === 0 ? { kind: 'listing', of } : reply(ok(listingLine(maildrop, of, number)))
}

function sendMessage(_: TransactionState, number: number, rest: string): TransactionEffect {
  // RETR with a second number acts as TOP, and TOP without one as RETR, because qmail-pop3d has one
  // function for both (spec/pop3d.md §3).
  return { kind: 'message', number, bodyLines: parseLeadingNumber(rest.replace(/^ +/, ''))?.value }
}

function markDeleted(state: TransactionState, number: number): TransactionEffect {
  state.deleted.add(number)
  state.last = Math.max(state.last, number)
  return OK
}

function reset(state: TransactionState): TransactionEffect {
  state.deleted.clear()
  state.last = 0
  return OK
}

const listingLine = (maildrop: MaildropView, of: Listing, number: number): string =>
  `${number} ${of === 'LIST' ? maildrop.octets(number) : maildrop.uniqueId(number)}`

/** Reply to RETR and TOP if another program has removed the message, or if it cannot be read. */
export const CANNOT_OPEN = err('unable to open that message')

/**
 * Returns the reply to QUIT after `failures` messages could not be removed: one line (RFC 1939 §6).
 * With compat = "qmail" each failed message has a line.
 */
export function updateReply(failures: number, compat: TransactionOptions['compat']): string {
  const failed = err('unable to unlink all deleted messages')
  if (compat === 'qmail') return failed.repeat(failures) + ok()
  return failures > 0 ? failed : ok()
}

/**
 * Formats the reply to LIST or UIDL with its termination. Deleted messages are left out (RFC 1939
 * §5).
 */
export function formatListing(maildrop: MaildropView, of: Listing, deleted: ReadonlySet<number>): string {
  let text = ok()
  for (let number = 1; number <= maildrop.count; number += 1) {
    if (!deleted.has(number)) text += listingLine(maildrop, of, number) + CRLF
  }
  return text + TERMINATION
}
