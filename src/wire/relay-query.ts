import { type IpAddress, parseIpAddress } from './ip-address.ts'
import { parseKeyValues, percentDecode, percentEncode } from './key-values.ts'

/** "May this address relay?", asked of the resident gate on its question socket. */
export type RelayQuery = { readonly ip: IpAddress }

/** `relay v=1 ip=192.0.2.7`, without LF. */
export const formatRelayQuery = ({ ip }: RelayQuery): string => `relay v=1 ip=${ip}`

/**
 * Inverse of formatRelayQuery; undefined for another version, key, or no address. A CR before the
 * line end is forgiven.
 */
export function parseRelayQuery(line: string): RelayQuery | undefined {
  const text = line.endsWith('\r') ? line.slice(0, -1) : line
  const pairs = text.startsWith('relay ') ? parseKeyValues(text.slice('relay '.length)) : undefined
  if (pairs === undefined || pairs.size !== 2 || pairs.get('v') !== '1') return undefined
  const ip = parseIpAddress(pairs.get('ip') ?? '')
  return ip === undefined ? undefined : { ip }
}

/** The answer. `until`: Unix seconds. `unknown` is no answer: whoever asked must keep the relay closed. */
export type RelayAnswer =
  | { readonly verdict: 'yes'; readonly until: number; readonly login: string | undefined }
  | { readonly verdict: 'no' }
  | { readonly verdict: 'unknown' }

/** Longest line of either direction, in octets without LF. */
export const MAX_RELAY_QUESTION_LINE = 4096

/** `yes until=1764000000 user=ann%40example.org`, `no` or `unknown`, without LF. */
export function formatRelayAnswer(answer: RelayAnswer): string {
  if (answer.verdict !== 'yes') return answer.verdict
  const login = answer.login === undefined ? '' : ` user=${percentEncode(answer.login)}`
  return `yes until=${answer.until}${login}`
}

/** Inverse of formatRelayAnswer; undefined for anything else. */
export function parseRelayAnswer(line: string): RelayAnswer | undefined {
  if (line === 'no' || line === 'unknown') return { verdict: line }
  const { until, user } = /^yes until=(?<until>\d{1,12})(?: user=(?<user>\S+))?$/.exec(line)?.groups ?? {}
  if (until === undefined) return undefined
  const login = user === undefined ? undefined : percentDecode(user)
  return user !== undefined && login === undefined ? undefined : { verdict: 'yes', until: Number(until), login }
}
