import { type Line, parseCommand } from './command.ts'
import { CRLF, err, LINE_TOO_LONG, multiline, OVERLONG_LINES_ALLOWED, ok, SYNTAX_ERROR, TERMINATION } from './reply.ts'

/** A number at the beginning of an argument, and what follows it. */
export interface LeadingNumber {
  readonly value: number
  readonly rest: string
}

/**
 * Reads leading decimal digits and ignores what follows, as qmail's scan_ulong does (`2x` is 2);
 * undefined without a digit. Values beyond 2^31-1 become exactly that: larger than any message
 * number, instead of wrapping as in C (spec/pop3d.md §3).
 */
export function parseLeadingNumber(text: string): LeadingNumber | undefined {
  const digits = /^[0-9]+/.exec(text)?.[0]
  if (digits === undefined) return undefined
  return { value: Math.min(Number(digits), 2 ** 31 - 1), rest: text.slice(digits.length) }
}

/** The maildrop as the protocol sees it: messages 1 to `count`. */
export interface MaildropView {
  readonly count: number
  /** Size of message `number` in octets; asked only after the shell has fulfilled `needsSizes`. */
  octets(number: number): number
  /** Unique-id of message `number`, RFC 1939 §7. */
  uniqueId(number: number): string
  /** Sum of the sizes of all messages; under the same condition. */
  totalOctets(): number
}

/** What the shell must do next. The table decides; only the shell touches a socket or a file. */
export type TransactionEffect =
  | { readonly type: 'reply'; readonly text: string }
  /**
   * Reply with the whole scan listing: a ready one while nothing is deleted, else `formatListing`.
   */
  | { readonly type: 'listing'; readonly of: Listing }
  /**
   * Send `+OK `, the message and the termination; header and so many lines of the body if
   * `bodyLines` is given.
   */
  | { readonly type: 'message'; readonly number: number; readonly bodyLines: number | undefined }
  /** Remove what is marked, reply, close: RFC 1939 §6. */
  | { readonly type: 'enterUpdate' }
  | { readonly type: 'close' }

export type Listing = 'LIST' | 'UIDL'

export interface TransactionOptions {
  /** `qmail`: every answer as qmail-pop3d gives it. */
  readonly compat: 'none' | 'qmail'
  /** Lines of the CAPA response. */
  readonly capabilities: readonly string[]
}

/**
 * One session in TRANSACTION state. It is changed in place: on a maildrop of 10,000 messages a copy
 * for each DELE would move fifty million entries.
 */
export interface TransactionState {
  readonly maildrop: MaildropView
  readonly options: TransactionOptions
  readonly deleted: Set<number>
  /** The highest message number accessed; in qmail's sense, that is deleted. RFC 1460's LAST. */
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

/** One row per command: what its argument is, whether the sizes must be known, what it does. */
interface TransactionCommand {
  /**
   * `optional`: an argument, if there is one, is a message number. Other arguments are ignored, as
   * qmail does.
   */
  readonly message: 'none' | 'optional' | 'required'
  readonly needsSizes: boolean
  /** Not in qmail: unknown with compat = "qmail". */
  readonly modern?: true
  readonly run: (state: TransactionState, number: number, rest: string) => TransactionEffect
}

const reply = (text: string): TransactionEffect => ({ type: 'reply', text })
const OK = reply(ok())

/**
 * TRANSACTION state, RFC 1939 §5 and §7, as spec/pop3d.md §3 has it. No command here carries a
 * secret.
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
  ['QUIT', { message: 'none', needsSizes: false, run: () => ({ type: 'enterUpdate' }) }],
  [
    'CAPA',
    { message: 'none', needsSizes: false, modern: true, run: state => reply(multiline(state.options.capabilities)) },
  ],
])

/** Whether the sizes of all messages must be known before `runTransaction` is given this line. */
export function needsSizes(line: Line): boolean {
  return line.type === 'line' && TRANSACTION.get(parseCommand(line.text).verb)?.needsSizes === true
}

/** Runs one line of input against the state. Total: whatever the client sends has an answer. */
export function runTransaction(state: TransactionState, line: Line): readonly TransactionEffect[] {
  switch (line.type) {
    case 'tooLong':
      state.overlongLines += 1
      return state.overlongLines > OVERLONG_LINES_ALLOWED
        ? [reply(LINE_TOO_LONG), { type: 'close' }]
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
  // RFC 1939 §5: deleted messages are not counted in either number. qmail counts them in the first.
  const count = options.compat === 'qmail' ? maildrop.count : maildrop.count - deleted.size
  return reply(ok(`${count} ${octets}`))
}

function listing({ maildrop }: TransactionState, of: Listing, number: number): TransactionEffect {
  return number === 0 ? { type: 'listing', of } : reply(ok(listingLine(maildrop, of, number)))
}

function sendMessage(_: TransactionState, number: number, rest: string): TransactionEffect {
  // RETR with a second number acts as TOP, TOP without one as RETR: one function in qmail, kept
  // (spec/pop3d.md §3).
  return { type: 'message', number, bodyLines: parseLeadingNumber(rest.replace(/^ +/, ''))?.value }
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

/**
 * The reply to RETR and TOP of a message that another program has removed, or that cannot be read.
 */
export const CANNOT_OPEN = err('unable to open that message')

/**
 * The reply to QUIT, after so many messages could not be removed: one line (RFC 1939 §6); qmail has
 * one for each.
 */
export function updateReply(failures: number, compat: TransactionOptions['compat']): string {
  const failed = err('unable to unlink all deleted messages')
  if (compat === 'qmail') return failed.repeat(failures) + ok()
  return failures > 0 ? failed : ok()
}

/**
 * The whole reply to LIST or UIDL, termination included, leaving out what is deleted (RFC 1939 §5).
 */
export function formatListing(maildrop: MaildropView, of: Listing, deleted: ReadonlySet<number>): string {
  let text = ok()
  for (let number = 1; number <= maildrop.count; number += 1) {
    if (!deleted.has(number)) text += listingLine(maildrop, of, number) + CRLF
  }
  return text + TERMINATION
}
