import { percentDecode, percentEncode } from './percent.ts'

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
