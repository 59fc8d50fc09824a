/** The protocols of the gate's services: Postfix's policy delegation, socketmap, and the query. */
import { type IpAddress, parseIpAddress } from './ip-address.ts'
import { parseKeyValues, percentDecode, percentEncode } from './key-values.ts'

/** Attributes of one request of Postfix's policy delegation (SMTPD_POLICY_README). */
export type PolicyRequest = ReadonlyMap<string, string>

/** Longest request in octets. Postfix sends about 600. */
export const MAX_POLICY_REQUEST = 16_384

/** The client's address; undefined if Postfix has none (`unknown`). */
export const clientOf = (request: PolicyRequest): IpAddress | undefined =>
  parseIpAddress(request.get('client_address') ?? '')

/** Formats a request with the empty line at its end. Attributes must contain no line end. */
export function formatPolicyRequest(request: PolicyRequest): string {
  return `${[...request].map(([name, value]) => `${name}=${value}\n`).join('')}\n`
}

/** Formats an answer. Line ends in the action become spaces, so that they begin no attribute. */
export const formatPolicyAnswer = (action: string): string => `action=${action.replace(/[\r\n]+/g, ' ')}\n\n`

/** The input is not a policy request, or too long. The connection must be closed. */
export class PolicyFault extends Error {
  override readonly name = 'PolicyFault'
}

/**
 * Splits a stream of octets into requests, with values in UTF-8. Holds at most MAX_POLICY_REQUEST
 * octets.
 */
export class PolicyReader {
  #held = ''

  /**
   * Adds octets, one character per octet, and returns the requests that they complete. Throws
   * PolicyFault.
   */
  push(text: string): PolicyRequest[] {
    this.#held += text
    const requests: PolicyRequest[] = []
    let start = 0
    for (let end = this.#held.indexOf('\n\n'); end >= 0; end = this.#held.indexOf('\n\n', start)) {
      requests.push(parse(this.#held.slice(start, end)))
      start = end + 2
    }
    this.#held = this.#held.slice(start)
    if (this.#held.length > MAX_POLICY_REQUEST)
      throw new PolicyFault(`a request is longer than ${MAX_POLICY_REQUEST} octets`)
    return requests
  }
}

function parse(block: string): PolicyRequest {
  const attributes = new Map<string, string>()
  for (const line of block.split('\n')) {
    const equals = line.indexOf('=')
    if (equals < 1) throw new PolicyFault('a line of the request is not name=value')
    const name = line.slice(0, equals)
    if (!attributes.has(name)) attributes.set(name, decoded(line.slice(equals + 1)))
  }
  if (attributes.get('request') !== 'smtpd_access_policy') throw new PolicyFault('not request=smtpd_access_policy')
  return attributes
}

/**
 * Decodes UTF-8 from one character per octet. In a value that is not UTF-8, each octet above ASCII
 * becomes a lone surrogate. So the value is not well-formed, and equals no text of a rule.
 */
function decoded(octets: string): string {
  if (!/[\x80-\xff]/.test(octets)) return octets
  const bytes = Buffer.from(octets, 'latin1')
  const text = bytes.toString()
  return Buffer.from(text).equals(bytes)
    ? text
    : octets.replace(/[\x80-\xff]/g, octet => String.fromCharCode(0xdc00 + octet.charCodeAt(0)))
}

/** Formats a netstring: `5:hello,` (cr.yp.to/proto/netstrings.txt). */
export function formatNetstring(content: string): string {
  return `${Buffer.byteLength(content)}:${content},`
}

/** The input is not a netstring, or too long. The connection must be closed. */
export class NetstringFault extends Error {
  override readonly name = 'NetstringFault'
}

/** Splits a stream of octets into netstrings of at most `limit` octets. Holds at most one. */
export class NetstringReader {
  readonly #limit: number
  #held = Buffer.alloc(0)

  constructor(limit: number) {
    this.#limit = limit
  }

  /** Adds octets and returns the contents that they complete, as UTF-8. Throws NetstringFault. */
  push(chunk: Buffer): string[] {
    let bytes = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk])
    const contents: string[] = []
    for (;;) {
      const head = bytes.subarray(0, 11).toString('latin1')
      const colon = head.indexOf(':')
      const digits = colon < 0 ? head : head.slice(0, colon)
      if (!/^(0|[1-9]\d{0,9})?$/.test(digits) || (colon >= 0 && digits === '') || Number(digits) > this.#limit)
        throw new NetstringFault(`not a netstring of at most ${this.#limit} octets`)
      const end = colon + 1 + Number(digits)
      if (colon < 0 || bytes.length <= end) break
      if (bytes[end] !== 0x2c) throw new NetstringFault('a netstring does not end in a comma')
      contents.push(bytes.toString('utf8', colon + 1, end))
      bytes = bytes.subarray(end + 1)
    }
    // Copy the rest, because the caller may change the chunk.
    this.#held = Buffer.from(bytes)
    return contents
  }
}

/** A request of Postfix or sendmail: the map, and the key (socketmap_table(5)). */
export type SocketmapQuery = { readonly map: string; readonly key: string }

/** The answers of socketmap_table(5). After `temporary` the mail system tries again later. */
export type SocketmapAnswer =
  | { readonly type: 'ok'; readonly data: string }
  | { readonly type: 'notfound' }
  | { readonly type: 'temporary' | 'permanent'; readonly reason: string }

/** Content of a query's netstring. */
export const formatSocketmapQuery = ({ map, key }: SocketmapQuery): string => `${map} ${key}`

/** Inverse of formatSocketmapQuery; undefined if there is no space. */
export function parseSocketmapQuery(content: string): SocketmapQuery | undefined {
  const space = content.indexOf(' ')
  return space < 1 ? undefined : { map: content.slice(0, space), key: content.slice(space + 1) }
}

/** Content of an answer's netstring. */
export function formatSocketmapAnswer(answer: SocketmapAnswer): string {
  switch (answer.type) {
    case 'ok':
      return `OK ${answer.data}`
    case 'notfound':
      return 'NOTFOUND '
    case 'temporary':
      return `TEMP ${answer.reason}`
    case 'permanent':
      return `PERM ${answer.reason}`
  }
}

/**
 * A query whether an address may relay. Sender and recipient are envelope addresses in UTF-8; the
 * empty sender is the null sender. `instance` is the same for all recipients of one message. Only a
 * query with an instance counts against the limits.
 */
export type RelayQuery = {
  readonly ip: IpAddress
  readonly sender?: string
  readonly recipient?: string
  readonly instance?: string
}

/**
 * The line of a query, without LF: `relay v=1 ip=192.0.2.7`. The address may be unchecked, because
 * exec mode does not load the code that checks it. The gate refuses an invalid one.
 */
export const formatRelayQuery = ({
  ip,
  sender,
  recipient,
  instance,
}: Omit<RelayQuery, 'ip'> & { readonly ip: string }): string =>
  [
    `relay v=1 ip=${ip}`,
    ...(sender === undefined ? [] : [`sender_encoded=${Buffer.from(sender).toString('base64')}`]),
    ...(recipient === undefined ? [] : [`recipient_encoded=${Buffer.from(recipient).toString('base64')}`]),
    ...(instance === undefined ? [] : [`instance=${instance}`]),
  ].join(' ')

const KEYS: ReadonlySet<string> = new Set(['v', 'ip', 'sender_encoded', 'recipient_encoded', 'instance'])

/**
 * Inverse of formatRelayQuery; undefined for another version, an unknown key or an invalid value. A
 * CR at the end of the line is ignored.
 */
export function parseRelayQuery(line: string): RelayQuery | undefined {
  const text = line.endsWith('\r') ? line.slice(0, -1) : line
  const pairs = text.startsWith('relay ') ? parseKeyValues(text.slice('relay '.length)) : undefined
  if (pairs === undefined || pairs.get('v') !== '1' || [...pairs.keys()].some(key => !KEYS.has(key))) return undefined
  const ip = parseIpAddress(pairs.get('ip') ?? '')
  const [sender, recipient] = ['sender_encoded', 'recipient_encoded'].map(key => fromBase64(pairs.get(key)))
  const instance = pairs.get('instance')
  if (ip === undefined || sender === null || recipient === null) return undefined
  if (instance !== undefined && !/^[\x21-\x7e]{1,100}$/.test(instance)) return undefined
  return {
    ip,
    ...(sender === undefined ? {} : { sender }),
    ...(recipient === undefined ? {} : { recipient }),
    ...(instance === undefined ? {} : { instance }),
  }
}

/**
 * Decodes base64; null if the text is not base64 of UTF-8. Addresses are in base64 (Exim's
 * `${base64:...}`), so that an address cannot break the line.
 */
function fromBase64(text: string | undefined): string | undefined | null {
  if (text === undefined) return undefined
  const octets = Buffer.from(text, 'base64')
  return octets.toString('base64') === text && Buffer.from(octets.toString()).equals(octets) ? octets.toString() : null
}

/**
 * The answer to a RelayQuery. `until`: Unix seconds. `no` has the SMTP reply of the rule that
 * refuses the sender or the recipient of a client with a grant. `later`: a limit is reached, and
 * `reply` is the SMTP reply; only queries with an instance get this answer. `unknown`: the gate
 * cannot decide, so the client must keep the relay closed.
 */
export type RelayAnswer =
  | { readonly verdict: 'yes'; readonly until: number; readonly login: string | undefined }
  | { readonly verdict: 'no'; readonly reply?: string | undefined }
  | { readonly verdict: 'later'; readonly reply: string }
  | { readonly verdict: 'unknown' }

/** Longest line of either direction, in octets without LF. */
export const MAX_RELAY_QUERY_LINE = 4096

/**
 * The line of an answer, without LF: `yes until=1764000000 user=ann%40example.org`, `no`,
 * `no 550 …`, `later 450 …` or `unknown`.
 */
export function formatRelayAnswer(answer: RelayAnswer): string {
  if (answer.verdict === 'unknown') return answer.verdict
  if (answer.verdict !== 'yes') {
    const reply = answer.reply === undefined ? '' : ` ${answer.reply.replace(/[\r\n]+/g, ' ')}`
    return `${answer.verdict}${reply}`
  }
  const login = answer.login === undefined ? '' : ` user=${percentEncode(answer.login)}`
  return `yes until=${answer.until}${login}`
}

/** Inverse of formatRelayAnswer; undefined for anything else. */
export function parseRelayAnswer(line: string): RelayAnswer | undefined {
  if (line === 'no' || line === 'unknown') return { verdict: line }
  const no = /^no (5\d\d .+)$/.exec(line)?.[1]
  if (no !== undefined) return { verdict: 'no', reply: no }
  const later = /^later (4\d\d .+)$/.exec(line)?.[1]
  if (later !== undefined) return { verdict: 'later', reply: later }
  const { until, user } = /^yes until=(?<until>\d{1,12})(?: user=(?<user>\S+))?$/.exec(line)?.groups ?? {}
  if (until === undefined) return undefined
  const login = user === undefined ? undefined : percentDecode(user)
  // No environment can have a login with NUL.
  const isValid = user === undefined || login?.includes('\0') === false
  return isValid ? { verdict: 'yes', until: Number(until), login } : undefined
}

/** The counts of a gate for a device within the last hour and the last day, rounded up. */
export type DeviceCounts = {
  readonly messagesPerHour: number
  readonly messagesPerDay: number
  readonly recipientsPerHour: number
  readonly recipientsPerDay: number
}

/** `counts v=1 device=copier-2`, without LF: the counts of a device, on the query socket. */
export const formatCountsQuery = (device: string): string => `counts v=1 device=${percentEncode(device)}`

/** Inverse of formatCountsQuery; undefined for anything else. */
export function parseCountsQuery(line: string): string | undefined {
  const [, device = ''] = /^counts v=1 device=(\S+)\r?$/.exec(line) ?? []
  return device === '' ? undefined : percentDecode(device)
}

/** `counts messages_hour=3 messages_day=9 recipients_hour=3 recipients_day=12`, without LF. */
export const formatDeviceCounts = (counts: DeviceCounts): string =>
  `counts messages_hour=${counts.messagesPerHour} messages_day=${counts.messagesPerDay}` +
  ` recipients_hour=${counts.recipientsPerHour} recipients_day=${counts.recipientsPerDay}`

const COUNTS =
  /^counts messages_hour=(\d{1,9}) messages_day=(\d{1,9}) recipients_hour=(\d{1,9}) recipients_day=(\d{1,9})$/

/** Inverse of formatDeviceCounts; undefined for anything else. */
export function parseDeviceCounts(line: string): DeviceCounts | undefined {
  const found = COUNTS.exec(line)
  if (found === null) return undefined
  const [messagesPerHour = 0, messagesPerDay = 0, recipientsPerHour = 0, recipientsPerDay = 0] = found
    .slice(1)
    .map(Number)
  return { messagesPerHour, messagesPerDay, recipientsPerHour, recipientsPerDay }
}

/** Faults of a client that the front of a gate logs, by the names of their log events. */
const CLIENT_FAULTS = ['auth_refused', 'hello_replaced', 'line_ends_repaired'] as const
export type ClientFault = (typeof CLIENT_FAULTS)[number]

/** The last time of each fault of a client that a gate saw since its start. Unix seconds. */
export type ClientFaults = { readonly [Fault in ClientFault]?: number }

/** `faults v=1 ip=192.0.2.7`, without LF: the faults of a client, on the query socket. */
export const formatFaultsQuery = (ip: IpAddress): string => `faults v=1 ip=${ip}`

/** Inverse of formatFaultsQuery; undefined for anything else. */
export function parseFaultsQuery(line: string): IpAddress | undefined {
  const [, ip = ''] = /^faults v=1 ip=(\S+)\r?$/.exec(line) ?? []
  return parseIpAddress(ip)
}

/** `faults auth_refused=1764000000`, without LF. A fault that the gate did not see is left out. */
export const formatClientFaults = (faults: ClientFaults): string =>
  ['faults', ...CLIENT_FAULTS.flatMap(name => (faults[name] === undefined ? [] : [`${name}=${faults[name]}`]))].join(
    ' ',
  )

/** Inverse of formatClientFaults; undefined for anything else. Unknown faults are left out. */
export function parseClientFaults(line: string): ClientFaults | undefined {
  if (!/^faults(?: [a-z_]{1,32}=\d{1,12})*$/.test(line)) return undefined
  const times = new Map([...line.matchAll(/ ([a-z_]+)=(\d+)/g)].map(([, name = '', time]) => [name, Number(time)]))
  return Object.fromEntries(CLIENT_FAULTS.flatMap(name => (times.has(name) ? [[name, times.get(name)]] : [])))
}
