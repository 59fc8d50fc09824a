/**
 * Between the monitor of popup and a login process: the settings of the process, and the steps of
 * each login. The monitor checks every message of a login process like hostile input.
 */
import * as v from 'valibot'
import { NetworkSet, parseIpAddress, parseNetwork } from '../ip-address.ts'
import { isSessionId, type LoginOctets, loginOctets } from '../login-event.ts'
import { readMessage, requireMessage } from './control-channel.ts'

/** One character per octet, as the client sent it. */
const octets = (max: number) =>
  v.pipe(
    v.string(),
    v.maxLength(max),
    v.check(text => /^[\x01-\xff]*$/.test(text)),
  )

/** The value of a text; a text without one is refused. */
const parsedBy = <Value>(read: (text: string) => Value | undefined) =>
  v.rawTransform<string, Value>(({ dataset, addIssue, NEVER }) => {
    const value = read(dataset.value)
    if (value !== undefined) return value
    addIssue()
    return NEVER
  })

const ipAddress = v.pipe(v.string(), v.maxLength(45), parsedBy(parseIpAddress))
const sessionIdText = v.pipe(
  v.string(),
  v.maxLength(32),
  parsedBy(text => (isSessionId(text) ? text : undefined)),
)

const port = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(65_535))
const requestNumber = v.pipe(v.number(), v.safeInteger(), v.minValue(1))

/** The login and the address of an attempt. */
const attempt = {
  /** Names the request between this login process and the monitor. */
  n: requestNumber,
  id: sessionIdText,
  login: v.pipe(
    octets(12_288),
    v.transform((login): LoginOctets => loginOctets(login)),
  ),
  method: v.picklist(['pass', 'apop', 'sasl']),
  ip: ipAddress,
  tls: v.boolean(),
}

/** The ends of the connection, for the checker's environment. */
const connection = {
  remotePort: v.optional(port),
  localIp: v.optional(ipAddress),
  localPort: v.optional(port),
  proxyIp: v.optional(ipAddress),
}

const OUTCOMES = ['yes', 'no', 'temporary', 'inUse', 'loginDelay'] as const
/** The result of a login at another server. */
export type UpstreamOutcome = (typeof OUTCOMES)[number]

const fromLogin = v.variant('type', [
  /** The login process has its settings, has dropped its privileges and accepts connections. */
  v.strictObject({ type: v.literal('ready') }),
  /** Requests the check of a secret, and the maildrop of the login. Also begins a chain. */
  v.strictObject({
    type: v.literal('verify'),
    ...attempt,
    ...connection,
    secret: octets(12_288),
    timestamp: octets(320),
  }),
  /** Requests the start of a login at another server. The secret stays in the process. */
  v.strictObject({
    type: v.literal('attempt'),
    ...attempt,
    /** Fingerprint of login and secret together, with a key of this login process. */
    proof: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
  }),
  /** The reply of that server, or of the chained program. */
  v.strictObject({ type: v.literal('outcome'), n: requestNumber, outcome: v.picklist(OUTCOMES) }),
  /** The client has disconnected: drop the request. */
  v.strictObject({ type: v.literal('cancel'), n: requestNumber }),
  /** Reports a preamble that the login process refused. */
  v.strictObject({ type: v.literal('preambleRefused'), ip: ipAddress, reason: v.picklist(['badpass', 'badhost']) }),
])

export type FromLogin = v.InferOutput<typeof fromLogin>
export type FromLoginMessage = v.InferInput<typeof fromLogin>
export type UpstreamAttempt = Omit<Extract<FromLogin, { type: 'attempt' }>, 'type'>
export type LoginAttempt = Omit<UpstreamAttempt, 'proof'>
export type VerifyRequest = Omit<Extract<FromLogin, { type: 'verify' }>, 'type'>

/** Reads a message of a login process; undefined if it is none. */
export const parseFromLogin = (message: unknown): FromLogin | undefined => readMessage(fromLogin, message)

const networkSet = v.pipe(
  v.array(v.pipe(v.string(), parsedBy(parseNetwork))),
  v.transform(networks => new NetworkSet(networks)),
)

const upstreamServer = v.strictObject({
  address: v.union([
    v.strictObject({ kind: v.literal('tcp'), host: v.string(), port }),
    v.strictObject({ kind: v.literal('unix'), path: v.string() }),
  ]),
  /** Null: clear text. */
  tls: v.nullable(v.strictObject({ ca: v.nullable(v.string()), verify: v.boolean() })),
  proxyHeader: v.boolean(),
})

export type UpstreamServer = v.InferOutput<typeof upstreamServer>

const loginSettings = v.strictObject({
  /** Ids of the process, if the monitor is root. */
  ids: v.nullable(v.strictObject({ uid: v.number(), gid: v.number() })),
  logLevel: v.picklist(['debug', 'info', 'warn', 'error']),
  /** The engine of the connections. */
  engine: v.picklist(['auto', 'node', 'epoll']),
  /** pop3d workers accept handed over connections. */
  handoff: v.boolean(),
  /**
   * Directory of the sockets of pop3d workers. The process enters it before it drops root, so that
   * the path to it may be closed.
   */
  directory: v.string(),
  /**
   * For each inherited listening socket, from descriptor 4 on: `proxy`, a PROXY header comes first;
   * `tls`, a TLS handshake comes first.
   */
  listeners: v.array(v.strictObject({ proxy: v.boolean(), tls: v.boolean() })),
  /** The authenticator: the monitor's checker, a chained program, or the server behind. */
  mode: v.picklist(['verify', 'chain', 'upstream']),
  hostname: v.string(),
  /** Offer APOP. */
  apop: v.boolean(),
  preamble: v.nullable(v.strictObject({ password: v.string(), trust: networkSet, reply: v.picklist(['ok', 'none']) })),
  proxyTrust: networkSet,
  proxyTls: v.boolean(),
  compat: v.picklist(['none', 'qmail']),
  requireTls: v.boolean(),
  cleartextNets: networkSet,
  cleartextLogins: v.array(v.string()),
  /** Offer STLS on connections in clear text. */
  offersStls: v.boolean(),
  /** The certificate for STLS and for TLS listeners. */
  stls: v.nullable(
    v.strictObject({ cert: v.string(), key: v.string(), path: v.string(), ticketKeys: v.array(v.string()) }),
  ),
  loginDelay: v.number(),
  tries: v.number(),
  maxConnections: v.number(),
  maxPerAddress: v.number(),
  maxPerLogin: v.number(),
  maxPerOwner: v.number(),
  /** Prefixes of the site's translators: connections of an embedded address count together. */
  nat64Prefixes: networkSet,
  /** Both in milliseconds. */
  loginTime: v.number(),
  idleTime: v.number(),
  upstream: v.nullable(upstreamServer),
})

/**
 * The settings of a login process. Their only secrets are the preamble's password and the TLS key.
 */
export type LoginSettings = v.InferOutput<typeof loginSettings>
export type LoginSettingsMessage = v.InferInput<typeof loginSettings>

const toLogin = v.variant('type', [
  /** The first message, and again after a reload. Then `ids` and `listeners` have no effect. */
  v.strictObject({ type: v.literal('settings'), settings: loginSettings }),
  /** A worker serves the maildrop: connect to `socket` and send `ticket` first. */
  v.strictObject({ type: v.literal('open'), n: requestNumber, socket: v.string(), ticket: v.string() }),
  /** The attempt may be made now. For a chain: the program is being started. */
  v.strictObject({ type: v.literal('proceed'), n: requestNumber }),
  /** The login is announced: +OK may go out. */
  v.strictObject({ type: v.literal('announced'), n: requestNumber }),
  v.strictObject({
    type: v.literal('failed'),
    n: requestNumber,
    failure: v.picklist(['credentials', 'temporary', 'permanent', 'inUse', 'loginDelay', 'crashed']),
  }),
  /** Stop accepting, and exit after the last session. */
  v.strictObject({ type: v.literal('drain') }),
])

export type ToLogin = v.InferOutput<typeof toLogin>
export type ToLoginMessage = v.InferInput<typeof toLogin>

/** Reads a message of the monitor. @throws TypeError, see requireMessage. */
export const parseToLogin = (message: unknown): ToLogin => requireMessage(toLogin, message)

/**
 * The first line, LF included, of the connection that a chained program gets: `n` is the number of
 * the login.
 */
export const formatChainLine = (n: number): string => `chain ${n}\n`

/** Inverse of formatChainLine; undefined for anything else. */
export function parseChainLine(line: string): number | undefined {
  const n = /^chain (\d{1,15})\n$/.exec(line)?.[1]
  return n === undefined ? undefined : Number(n)
}
