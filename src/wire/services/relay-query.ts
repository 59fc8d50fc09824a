/** The query whether an address may relay, and its answer. */
import { type IpAddress, parseIpAddress } from '../ip-address.ts'
import { parseKeyValues, percentDecode, percentEncode } from '../key-values.ts'

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
