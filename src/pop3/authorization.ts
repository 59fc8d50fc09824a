/**
 * The AUTHORIZATION state of POP3, with the forms in which a client gives its name and password.
 */

import type { Line } from '../wire/lines.ts'
import type { LoginMethod } from '../wire/login-event.ts'
import { COMMAND_LINE_LIMIT, parseCommand, SASL_LINE_LIMIT, upperCaseAscii } from './command.ts'
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
 * Parses the message of SASL PLAIN, `[authzid] NUL authcid NUL passwd` (RFC 4616 §2).
 *
 * Undefined if the message is not UTF-8, does not have exactly two NULs, or has an empty name or
 * password. The name may have no control character, because SASLprep prohibits them. `authzid` may
 * only repeat the name: no POP3 user may act for another one. Name and password are returned as
 * sent, because preparing them would change passwords that were stored unprepared.
 */
export function parsePlainMessage(message: string): Credentials | undefined {
  const [authzid, login, secret, ...more] = message.split('\0')
  if (authzid === undefined || login === undefined || secret === undefined || more.length > 0) return undefined
  if (authzid !== '' && authzid !== login) return undefined
  return isName(login) && secret !== '' && isUtf8(message) ? { login, secret } : undefined
}

/**
 * Parses the two answers of AUTH LOGIN under the same conditions. No RFC describes the mechanism;
 * Outlook uses it.
 */
export function parseLoginAnswers(login: string, secret: string): Credentials | undefined {
  return isName(login) && secret !== '' && !secret.includes('\0') ? { login, secret } : undefined
}

const isName = (login: string): boolean => login !== '' && !/[\x00-\x1f\x7f]/.test(login)

function isUtf8(octets: string): boolean {
  const bytes = Buffer.from(octets, 'latin1')
  return bytes.equals(Buffer.from(bytes.toString('utf8'), 'utf8'))
}

/**
 * An action for the shell. The shell runs the effects of a step in order. This table decides; only
 * the shell uses sockets and checkers.
 */
export type AuthorizationEffect =
  | { readonly kind: 'reply'; readonly text: string }
  /**
   * Check the credentials. A positive answer begins TRANSACTION; for any other answer the shell
   * calls `afterFailure`. `method` is the method of a login event.
   */
  | ({ readonly kind: 'authenticate'; readonly method: LoginMethod } & Credentials)
  /** Upgrade to TLS after the reply, and discard the octets read behind this line (RFC 2595 §4). */
  | { readonly kind: 'startTls' }
  /**
   * Parse the `host:pass` of the `SSL` command, check it and reply (spec/popup.md §6). Occurs for
   * the first line only, and only if `preamble` is set.
   */
  | { readonly kind: 'preamble'; readonly argument: string }
  | { readonly kind: 'close' }

/** Why a login failed: the shell's answer to an `authenticate` effect. */
export type LoginFailure =
  /** The password or the name is wrong. */
  | 'credentials'
  /** The checker could not decide. The client may try again later. */
  | 'temporary'
  /** The login cannot succeed until an administrator corrects the setup. */
  | 'permanent'
  /** Another session holds the maildrop (RFC 2449 §8.1.2). */
  | 'inUse'
  /** The login delay since the last login is not over (RFC 2449 §8.1.1). */
  | 'loginDelay'
  /** A signal ended the chained program. */
  | 'crashed'

/** Permissions of this connection. Only STLS or `SSL` changes them. */
export interface AuthorizationOptions {
  /**
   * `qmail`: each reply is the one of qmail-popup, one login attempt is allowed, and newer commands
   * are unknown.
   */
  readonly compat: 'none' | 'qmail'
  /**
   * Announced by CAPA. `sasl` has the mechanisms that this connection may use (PLAIN, LOGIN);
   * `stls` is true while STLS is accepted.
   */
  readonly capabilities: Capabilities
  /** Which logins may send a password on this connection without TLS. With TLS: `all`. */
  readonly cleartext: 'all' | 'none' | ((login: string) => boolean)
  /**
   * True if the `SSL` command is configured and the peer is a trusted proxy. Otherwise `SSL` is an
   * unknown command.
   */
  readonly preamble: boolean
  /** Failed logins after which the connection is closed. */
  readonly tries: number
}

export interface AuthorizationState {
  /** A line was read, so `SSL` is refused from now on. */
  readonly begun: boolean
  /** The name of the last USER command. */
  readonly user: string | undefined
  /** How the next line is read: as a command, or as a SASL response. */
  readonly awaiting: 'command' | 'plainMessage' | 'loginName' | { readonly passwordOf: string }
  readonly failures: number
  readonly overlongLines: number
  /** Lines read on this connection. */
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
 * Returns the state after STLS. The session begins again (RFC 2595 §4), but the limits of the
 * connection keep counting.
 */
export const afterStartTls = (before: AuthorizationState): AuthorizationState => ({
  ...before,
  begun: true,
  user: undefined,
  awaiting: 'command',
})

/**
 * Unknown commands after which the connection is closed. Clients that probe for extensions send a
 * few.
 */
const UNKNOWN_COMMANDS_ALLOWED = 10
/**
 * Lines outside login attempts after which the connection is closed. A client that sends NOOP every
 * few seconds while its user types the password stays below this limit.
 */
const LINES_ALLOWED = 100
/** Lines of one login attempt: AUTH, login name, password, and one command before them. */
const LINES_OF_ATTEMPT = 4

export interface AuthorizationStep {
  readonly state: AuthorizationState
  readonly effects: readonly AuthorizationEffect[]
}

/** A command: its action, and the form of its line that may be logged. */
interface AuthorizationCommand {
  /** qmail-popup does not have the command, so it is unknown with compat = "qmail". */
  readonly modern?: true
  /**
   * Spaces before the argument belong to the argument (RFC 1939 §7, PASS). With compat = "qmail"
   * they are skipped.
   */
  readonly keepsSpaces?: true
  readonly run: (state: AuthorizationState, argument: string, options: AuthorizationOptions) => AuthorizationStep
  /**
   * Returns the line without secrets. A secret leaves this room only in an `authenticate` effect.
   */
  readonly sanitized: (argument: string) => string
}

const UNKNOWN = err('authorization first')
const TOO_MANY_UNKNOWN = err('too many unknown commands')
const TOO_MANY_LINES = err('too many commands without a login')
const AUTHENTICATION_CANCELLED = err('authentication cancelled')
const TLS_REQUIRED = err('[AUTH] TLS required')
// "Username:" and "Password:" in base64, the prompts that clients of AUTH LOGIN expect.
const LOGIN_NAME_PROMPT = challenge('VXNlcm5hbWU6')
const LOGIN_PASSWORD_PROMPT = challenge('UGFzc3dvcmQ6')

const replied = (state: AuthorizationState, ...texts: readonly string[]): AuthorizationStep => ({
  state,
  effects: texts.map(text => ({ kind: 'reply', text })),
})

const attempted = (state: AuthorizationState, method: LoginMethod, credentials: Credentials): AuthorizationStep => ({
  state,
  effects: [{ kind: 'authenticate', method, ...credentials }],
})

const firstWord = (argument: string): string => argument.split(' ', 1)[0] ?? ''

/**
 * Commands of the AUTHORIZATION state (RFC 1939 §4 and §7, RFC 2449, RFC 2595, RFC 5034).
 * spec/popup.md §3 has the replies.
 */
export const AUTHORIZATION: ReadonlyMap<string, AuthorizationCommand> = new Map<string, AuthorizationCommand>([
  ['USER', { run: user, sanitized: argument => `USER ${argument}` }],
  ['PASS', { keepsSpaces: true, run: pass, sanitized: () => 'PASS ***' }],
  ['APOP', { run: apop, sanitized: argument => `APOP ${firstWord(argument)} ***` }],
  ['AUTH', { modern: true, run: auth, sanitized: argument => `AUTH ${firstWord(argument)} ***` }],
  ['SSL', { run: preamble, sanitized: () => 'SSL ***' }],
  ['CAPA', { modern: true, run: capa, sanitized: () => 'CAPA' }],
  ['STLS', { modern: true, run: stls, sanitized: () => 'STLS' }],
  // RFC 6856: octets pass unchanged with and without UTF8, so the command changes nothing and is
  // not announced.
  ['UTF8', { modern: true, run: state => replied(state, ok()), sanitized: () => 'UTF8' }],
  // RFC 1939 §5 defines NOOP after login only. qmail-popup accepts NOOP before login too, and
  // accepting it does no harm.
  ['NOOP', { run: state => replied(state, ok()), sanitized: () => 'NOOP' }],
  ['QUIT', { run: quit, sanitized: () => 'QUIT' }],
])

/**
 * Returns the longest line, in octets with CRLF, that the state accepts next. Argument of
 * `LineReader.next`.
 */
export const lineLimit = ({ awaiting }: AuthorizationState): number =>
  awaiting === 'command' ? COMMAND_LINE_LIMIT : SASL_LINE_LIMIT

/** Runs one line of input. Each possible line has a reply. */
export function runAuthorization(
  state: AuthorizationState,
  line: Line,
  options: AuthorizationOptions,
): AuthorizationStep {
  const lines = state.lines + 1
  const begun: AuthorizationState = { ...state, begun: true, lines }
  if (lines > LINES_ALLOWED + LINES_OF_ATTEMPT * options.tries) return closing(replied(begun, TOO_MANY_LINES))
  const settled: AuthorizationState = { ...begun, awaiting: 'command' }
  if (line.kind === 'tooLong') {
    const overlongLines = state.overlongLines + 1
    const step = replied({ ...settled, overlongLines }, LINE_TOO_LONG)
    return overlongLines > OVERLONG_LINES_ALLOWED ? closing(step) : step
  }
  if (line.kind === 'holdsNul') return unknown(settled, SYNTAX_ERROR)
  if (begun.awaiting !== 'command') return saslResponse(settled, begun.awaiting, line.text, options)
  const { verb, argument, afterSpace } = parseCommand(line.text)
  const command = AUTHORIZATION.get(verb)
  if (command === undefined || (command.modern && options.compat === 'qmail')) return unknown(begun)
  // `SSL` must be the first line, so its handler gets `begun` as it was before this line.
  const stateFor = verb === 'SSL' ? { ...begun, begun: state.begun } : begun
  const keepsSpaces = command.keepsSpaces === true && options.compat !== 'qmail'
  return command.run(stateFor, keepsSpaces ? afterSpace : argument, options)
}

/**
 * Returns the form of a line that may be logged. It contains text of the client, which the log
 * escapes.
 */
export function sanitizedLine(state: AuthorizationState, line: Line): string {
  if (line.kind !== 'line') return line.kind
  if (state.awaiting !== 'command') return 'SASL response ***'
  const { verb, argument } = parseCommand(line.text)
  // An unknown verb is not logged, because it may be a password typed at the wrong prompt.
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
 * Returns the reply to a failed login. The session then continues as if the login had not been
 * tried (RFC 5034 §4): the name of USER is dropped too. The connection is closed after `tries`
 * failures; with compat = "qmail" it is closed after the first one.
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

/** Replies to an unknown command and counts it. */
function unknown(state: AuthorizationState, text = UNKNOWN): AuthorizationStep {
  const unknownCommands = state.unknownCommands + 1
  const after = { ...state, unknownCommands }
  return unknownCommands > UNKNOWN_COMMANDS_ALLOWED ? closing(replied(after, TOO_MANY_UNKNOWN)) : replied(after, text)
}

const closing = ({ state, effects }: AuthorizationStep): AuthorizationStep => ({
  state,
  effects: [...effects, { kind: 'close' }],
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
  return attempted(state, 'pass', { login: state.user, secret: argument })
}

function apop(state: AuthorizationState, argument: string): AuthorizationStep {
  const space = argument.indexOf(' ')
  if (space < 0) return replied(state, SYNTAX_ERROR)
  return attempted(state, 'apop', { login: argument.slice(0, space), secret: argument.slice(space + 1) })
}

function capa(state: AuthorizationState, _: string, { capabilities }: AuthorizationOptions): AuthorizationStep {
  return replied(state, multiline(capabilityLines('AUTHORIZATION', capabilities)))
}

function stls(state: AuthorizationState, argument: string, { capabilities }: AuthorizationOptions): AuthorizationStep {
  if (!capabilities.stls) return unknown(state)
  if (argument !== '') return replied(state, SYNTAX_ERROR)
  const { state: after, effects } = replied({ ...state, user: undefined }, ok())
  return { state: after, effects: [...effects, { kind: 'startTls' }] }
}

function quit(state: AuthorizationState): AuthorizationStep {
  return closing(replied(state, ok()))
}

/**
 * `state.begun` covers the lines before this one. In the other handlers it covers this line too.
 */
function preamble(state: AuthorizationState, argument: string, options: AuthorizationOptions): AuthorizationStep {
  const begun = { ...state, begun: true }
  // The reply is that of an unknown command, so that a client cannot find out whether the command
  // is configured.
  if (state.begun || !options.preamble) return unknown(begun)
  return { state: begun, effects: [{ kind: 'preamble', argument }] }
}

function auth(state: AuthorizationState, argument: string, options: AuthorizationOptions): AuthorizationStep {
  const { sasl } = options.capabilities
  // RFC 5034 does not define AUTH without an argument. Old clients expect the list of mechanisms.
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
  // A malformed message is a failed login (RFC 5034 §4, RFC 4616 §2).
  if (credentials === undefined) return afterFailure(state, 'credentials', options)
  if (!mayBeClear(options, credentials.login)) return replied(state, TLS_REQUIRED)
  return attempted(state, 'sasl', credentials)
}
