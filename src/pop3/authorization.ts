/**
 * The AUTHORIZATION state of POP3, with the forms in which a client gives its name and password.
 */

import { COMMAND_LINE_LIMIT, type Line, parseCommand, SASL_LINE_LIMIT, upperCaseAscii } from './command.ts'
import {
  type Capabilities,
  capabilityLines,
  challenge,
  err,
  LINE_TOO_LONG,
  multiline,
  OVERLONG_LINES_ALLOWED,
  ok,
  SYNTAX_ERROR,
} from './reply.ts'

const STRICT = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/

/**
 * Decodes base64 to one character per octet; undefined for a foreign character or a misplaced `=`
 * (RFC 5034 §4).
 */
export function decodeBase64(text: string): string | undefined {
  return STRICT.test(text) ? Buffer.from(text, 'base64').toString('latin1') : undefined
}

/** A login name and its password, one character per octet. */
export interface Credentials {
  readonly login: string
  readonly secret: string
}

/**
 * The message of SASL PLAIN, `[authzid] NUL authcid NUL passwd` (RFC 4616 §2). Undefined if it is
 * not UTF-8, holds other than two NULs, has an empty name or password or a control character in the
 * name (SASLprep prohibits them), or asks to act as somebody else, which no POP3 user may. Name and
 * password are handed on as sent: preparing them would change passwords that were stored
 * unprepared.
 */
export function parsePlainMessage(message: string): Credentials | undefined {
  const [authzid, login, secret, ...more] = message.split('\0')
  if (authzid === undefined || login === undefined || secret === undefined || more.length > 0) return undefined
  if (authzid !== '' && authzid !== login) return undefined
  return isName(login) && secret !== '' && isUtf8(message) ? { login, secret } : undefined
}

/** The two answers of AUTH LOGIN (no RFC; as Outlook sends them), under the same conditions. */
export function parseLoginAnswers(login: string, secret: string): Credentials | undefined {
  return isName(login) && secret !== '' && !secret.includes('\0') ? { login, secret } : undefined
}

const isName = (login: string): boolean => login !== '' && !/[\x00-\x1f\x7f]/.test(login)

function isUtf8(octets: string): boolean {
  const bytes = Buffer.from(octets, 'latin1')
  return bytes.equals(Buffer.from(bytes.toString('utf8'), 'utf8'))
}

/**
 * What the shell must do next, in order. The table decides; only the shell touches a socket or asks
 * a checker.
 */
export type AuthorizationEffect =
  | { readonly type: 'reply'; readonly text: string }
  /**
   * Ask the checker. A yes begins TRANSACTION; anything else goes into `afterFailure`. `method` as
   * in a login event.
   */
  | ({ readonly type: 'authenticate'; readonly method: LoginMethod } & Credentials)
  /**
   * The reply has been given: upgrade to TLS, throw away what was read beyond this line, start
   * afresh (RFC 2595 §4).
   */
  | { readonly type: 'startTls' }
  /**
   * The `SSL` command: parse `host:pass`, compare, answer (spec/popup.md §6). Only as the first
   * line, if offered.
   */
  | { readonly type: 'preamble'; readonly argument: string }
  | { readonly type: 'close' }

export type LoginMethod = 'pass' | 'apop' | 'sasl'

/** Why a login did not succeed: the shell's answer to an `authenticate` effect. */
export type LoginFailure =
  /** The checker said no. */
  | 'credentials'
  /** Nobody could say: try again later. */
  | 'temporary'
  /** A human has to set something right first. */
  | 'permanent'
  /** Another session holds the maildrop, RFC 2449 §8.1.2. */
  | 'inUse'
  /** Too soon after the last login, RFC 2449 §8.1.1. */
  | 'loginDelay'
  /** A chained program ended by a signal. */
  | 'crashed'

/** What this connection may do; fixed until STLS or `SSL` changes it. */
export interface AuthorizationOptions {
  /** `qmail`: every answer as qmail-popup gives it, one try only, no modern command. */
  readonly compat: 'none' | 'qmail'
  /**
   * Announced by CAPA. `sasl` are the mechanisms in reach (PLAIN, LOGIN), `stls` says whether STLS
   * is accepted.
   */
  readonly capabilities: Capabilities
  /**
   * Whether passwords may come in clear text on this connection: for all logins, none, or some.
   * With TLS: `all`.
   */
  readonly cleartext: 'all' | 'none' | ((login: string) => boolean)
  /** The feature is configured and the peer trusted; if not, `SSL` is an unknown command. */
  readonly preamble: boolean
  /** Failed logins after which the connection is closed. */
  readonly tries: number
}

export interface AuthorizationState {
  /** A line has been read: `SSL` comes too late. */
  readonly begun: boolean
  /** The name given by USER. */
  readonly user: string | undefined
  /** What the next line is: a command, or a SASL response. */
  readonly awaiting: 'command' | 'plainMessage' | 'loginName' | { readonly passwordOf: string }
  readonly failures: number
  readonly overlongLines: number
  /** Lines read on this connection, and those among them that are no command. */
  readonly lines: number
  readonly unknownCommands: number
}

export const AUTHORIZATION_START: AuthorizationState = {
  begun: false,
  user: undefined,
  awaiting: 'command',
  failures: 0,
  overlongLines: 0,
  lines: 0,
  unknownCommands: 0,
}

/**
 * The state after STLS: the client begins anew (RFC 2595 section 4), but limits of the connection
 * go on.
 */
export const afterStartTls = ({ failures, lines, unknownCommands }: AuthorizationState): AuthorizationState => ({
  ...AUTHORIZATION_START,
  begun: true,
  failures,
  lines,
  unknownCommands,
})

/**
 * Lines that are no command, after which the connection is closed. A client that probes for
 * extensions sends a few.
 */
const UNKNOWN_COMMANDS_ALLOWED = 10
/**
 * Lines beside those of login attempts, after which the connection is closed. A client that sends
 * NOOP every few seconds while
 * its user types the password stays below it.
 */
const LINES_ALLOWED = 100
/** Lines of one login attempt: AUTH, login name, password, and a command before it. */
const LINES_OF_ATTEMPT = 4

export interface AuthorizationStep {
  readonly state: AuthorizationState
  readonly effects: readonly AuthorizationEffect[]
}

/** One row per command: what it does, and the form of it that may be logged. */
interface AuthorizationCommand {
  /** Not in qmail: unknown with compat = "qmail". */
  readonly modern?: true
  /** Spaces before the argument belong to it (RFC 1939 §7, PASS); qmail skips them all. */
  readonly keepsSpaces?: true
  readonly run: (state: AuthorizationState, argument: string, options: AuthorizationOptions) => AuthorizationStep
  /**
   * The line as it may be logged: a secret never leaves this room but in an `authenticate` effect.
   */
  readonly sanitized: (argument: string) => string
}

const UNKNOWN = err('authorization first')
const TOO_MANY_UNKNOWN = err('too many unknown commands')
const TOO_MANY_LINES = err('too many commands without a login')
const AUTHENTICATION_CANCELLED = err('authentication cancelled')
const TLS_REQUIRED = err('[AUTH] TLS required')
// 'Username:' and 'Password:', the prompts that clients of AUTH LOGIN wait for.
const LOGIN_NAME_PROMPT = challenge('VXNlcm5hbWU6')
const LOGIN_PASSWORD_PROMPT = challenge('UGFzc3dvcmQ6')

const replied = (state: AuthorizationState, ...texts: readonly string[]): AuthorizationStep => ({
  state,
  effects: texts.map(text => ({ type: 'reply', text })),
})

const asked = (state: AuthorizationState, method: LoginMethod, credentials: Credentials): AuthorizationStep => ({
  state,
  effects: [{ type: 'authenticate', method, ...credentials }],
})

const firstWord = (argument: string): string => argument.split(' ', 1)[0] ?? ''

/**
 * AUTHORIZATION state: RFC 1939 §4 and §7, RFC 2449, RFC 2595, RFC 5034; replies of spec/popup.md
 * §3.
 */
export const AUTHORIZATION: ReadonlyMap<string, AuthorizationCommand> = new Map<string, AuthorizationCommand>([
  ['USER', { run: user, sanitized: argument => `USER ${argument}` }],
  ['PASS', { keepsSpaces: true, run: pass, sanitized: () => 'PASS ***' }],
  ['APOP', { run: apop, sanitized: argument => `APOP ${firstWord(argument)} ***` }],
  ['AUTH', { modern: true, run: auth, sanitized: argument => `AUTH ${firstWord(argument)} ***` }],
  ['SSL', { run: preamble, sanitized: () => 'SSL ***' }],
  ['CAPA', { modern: true, run: capa, sanitized: () => 'CAPA' }],
  ['STLS', { modern: true, run: stls, sanitized: () => 'STLS' }],
  // RFC 6856: bytes pass unchanged in any case, so there is nothing to switch on; not announced.
  ['UTF8', { modern: true, run: state => replied(state, ok()), sanitized: () => 'UTF8' }],
  // RFC 1939 §5 has NOOP after login only; qmail answers it here too, and nobody is harmed.
  ['NOOP', { run: state => replied(state, ok()), sanitized: () => 'NOOP' }],
  ['QUIT', { run: quit, sanitized: () => 'QUIT' }],
])

/** The longest line, CRLF included, that the state takes next: for `LineReader.next`. */
export const lineLimit = ({ awaiting }: AuthorizationState): number =>
  awaiting === 'command' ? COMMAND_LINE_LIMIT : SASL_LINE_LIMIT

/** Runs one line of input. Total: whatever the client sends has an answer. */
export function runAuthorization(
  state: AuthorizationState,
  line: Line,
  options: AuthorizationOptions,
): AuthorizationStep {
  const lines = state.lines + 1
  const begun: AuthorizationState = { ...state, begun: true, lines }
  if (lines > LINES_ALLOWED + LINES_OF_ATTEMPT * options.tries) return closing(replied(begun, TOO_MANY_LINES))
  const settled: AuthorizationState = begun.awaiting === 'command' ? begun : { ...begun, awaiting: 'command' }
  if (line.type === 'tooLong') {
    const overlongLines = state.overlongLines + 1
    const step = replied({ ...settled, overlongLines }, LINE_TOO_LONG)
    return overlongLines > OVERLONG_LINES_ALLOWED ? closing(step) : step
  }
  if (line.type === 'holdsNul') return unknown(settled, SYNTAX_ERROR)
  if (begun.awaiting !== 'command') return saslResponse(settled, begun.awaiting, line.text, options)
  const { verb, argument, afterSpace } = parseCommand(line.text)
  const command = AUTHORIZATION.get(verb)
  if (command === undefined || (command.modern && options.compat === 'qmail')) return unknown(begun)
  // The first line alone may be `SSL`: only this command has to know that nothing came before it.
  const stateFor = verb === 'SSL' ? { ...begun, begun: state.begun } : begun
  const keepsSpaces = command.keepsSpaces === true && options.compat !== 'qmail'
  return command.run(stateFor, keepsSpaces ? afterSpace : argument, options)
}

/** The form of a line that may be logged. It holds the client's text: the log escapes it. */
export function sanitizedLine(state: AuthorizationState, line: Line): string {
  if (line.type !== 'line') return line.type
  if (state.awaiting !== 'command') return 'SASL response ***'
  const { verb, argument } = parseCommand(line.text)
  // An unknown verb is not logged: it may be a password typed at the wrong moment.
  return AUTHORIZATION.get(verb)?.sanitized(argument) ?? 'unknown command'
}

const FAILURE_REPLIES: Readonly<Record<LoginFailure, { readonly coded: string; readonly qmail: string }>> = {
  credentials: { coded: err('[AUTH] authorization failed'), qmail: err('authorization failed') },
  temporary: { coded: err('[SYS/TEMP] temporary authentication failure'), qmail: err('authorization failed') },
  permanent: { coded: err('[SYS/PERM] login is not possible'), qmail: err('authorization failed') },
  inUse: { coded: err('[IN-USE] maildrop is in use'), qmail: err('authorization failed') },
  loginDelay: { coded: err('[LOGIN-DELAY] minimum time between logins not over'), qmail: err('authorization failed') },
  crashed: { coded: err('[SYS/TEMP] aack, child crashed'), qmail: err('aack, child crashed') },
}

/**
 * The answer to a login that did not succeed. The session is then as if the login had not been
 * tried (RFC 5034 §4), USER
 * included, until `tries` are used up; qmail's popup never gives a second try.
 */
export function afterFailure(
  state: AuthorizationState,
  failure: LoginFailure,
  { compat, tries }: AuthorizationOptions,
): AuthorizationStep {
  const failures = state.failures + 1
  const texts = FAILURE_REPLIES[failure]
  const step = replied({ ...state, failures, user: undefined }, compat === 'qmail' ? texts.qmail : texts.coded)
  return compat === 'qmail' || failure === 'crashed' || failures >= tries ? closing(step) : step
}

/** The answer to a line that is no command here. */
function unknown(state: AuthorizationState, text = UNKNOWN): AuthorizationStep {
  const unknownCommands = state.unknownCommands + 1
  const after = { ...state, unknownCommands }
  return unknownCommands > UNKNOWN_COMMANDS_ALLOWED ? closing(replied(after, TOO_MANY_UNKNOWN)) : replied(after, text)
}

const closing = ({ state, effects }: AuthorizationStep): AuthorizationStep => ({
  state,
  effects: [...effects, { type: 'close' }],
})

const mayBeClear = ({ cleartext }: AuthorizationOptions, login: string): boolean =>
  typeof cleartext === 'function' ? cleartext(login) : cleartext === 'all'

function user(state: AuthorizationState, argument: string, options: AuthorizationOptions): AuthorizationStep {
  if (argument === '') return replied(state, SYNTAX_ERROR)
  if (!mayBeClear(options, argument)) return replied(state, TLS_REQUIRED)
  return replied({ ...state, user: argument }, ok())
}

function pass(state: AuthorizationState, argument: string): AuthorizationStep {
  if (state.user === undefined) return replied(state, err('USER first'))
  if (argument === '') return replied(state, SYNTAX_ERROR)
  return asked(state, 'pass', { login: state.user, secret: argument })
}

function apop(state: AuthorizationState, argument: string): AuthorizationStep {
  const space = argument.indexOf(' ')
  if (space < 0) return replied(state, SYNTAX_ERROR)
  return asked(state, 'apop', { login: argument.slice(0, space), secret: argument.slice(space + 1) })
}

function capa(state: AuthorizationState, _: string, { capabilities }: AuthorizationOptions): AuthorizationStep {
  return replied(state, multiline(capabilityLines('AUTHORIZATION', capabilities)))
}

function stls(state: AuthorizationState, argument: string, { capabilities }: AuthorizationOptions): AuthorizationStep {
  if (!capabilities.stls) return unknown(state)
  if (argument !== '') return replied(state, SYNTAX_ERROR)
  const { state: after, effects } = replied({ ...state, user: undefined }, ok())
  return { state: after, effects: [...effects, { type: 'startTls' }] }
}

function quit(state: AuthorizationState): AuthorizationStep {
  return closing(replied(state, ok()))
}

/** `state.begun` tells of the lines before this one, unlike for the others. */
function preamble(state: AuthorizationState, argument: string, options: AuthorizationOptions): AuthorizationStep {
  const begun = { ...state, begun: true }
  // The same answer as to an unknown command: whether the feature exists is nobody's business.
  if (state.begun || !options.preamble) return unknown(begun)
  return { state: begun, effects: [{ type: 'preamble', argument }] }
}

function auth(state: AuthorizationState, argument: string, options: AuthorizationOptions): AuthorizationStep {
  const { sasl } = options.capabilities
  // Without an argument RFC 5034 has nothing; old clients expect the list of mechanisms.
  if (argument === '') return replied(state, multiline(sasl))
  const [name = '', initial, ...more] = argument.split(' ')
  const mechanism = upperCaseAscii(name)
  if (mechanism !== 'PLAIN' && mechanism !== 'LOGIN') return replied(state, err('unknown mechanism'))
  if (options.cleartext === 'none') return replied(state, TLS_REQUIRED)
  if (!sasl.includes(mechanism)) return replied(state, err('unknown mechanism'))
  if (more.length > 0) return replied(state, SYNTAX_ERROR)
  const awaiting = mechanism === 'PLAIN' ? 'plainMessage' : 'loginName'
  if (initial !== undefined) return saslResponse(state, awaiting, initial === '=' ? '' : initial, options)
  return replied({ ...state, awaiting }, mechanism === 'PLAIN' ? challenge() : LOGIN_NAME_PROMPT)
}

function saslResponse(
  state: AuthorizationState,
  awaiting: Exclude<AuthorizationState['awaiting'], 'command'>,
  text: string,
  options: AuthorizationOptions,
): AuthorizationStep {
  if (text === '*') return replied(state, AUTHENTICATION_CANCELLED)
  const response = decodeBase64(text)
  if (response === undefined) return replied(state, SYNTAX_ERROR)
  if (awaiting === 'loginName') return replied({ ...state, awaiting: { passwordOf: response } }, LOGIN_PASSWORD_PROMPT)
  const credentials =
    awaiting === 'plainMessage' ? parsePlainMessage(response) : parseLoginAnswers(awaiting.passwordOf, response)
  // RFC 5034 §4, RFC 4616 §2: a message that is not well formed is a failed login.
  if (credentials === undefined) return afterFailure(state, 'credentials', options)
  if (!mayBeClear(options, credentials.login)) return replied(state, TLS_REQUIRED)
  return asked(state, 'sasl', credentials)
}
