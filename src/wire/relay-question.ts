import { type IpAddress, parseIpAddress } from './ip-address.ts'
import { parseKeyValues } from './key-values.ts'

/** "May this address relay?", asked of the resident gate on its question socket. */
export type RelayQuestion = { readonly ip: IpAddress }

/** `relay v=1 ip=192.0.2.7`, without LF. */
export const formatRelayQuestion = ({ ip }: RelayQuestion): string => `relay v=1 ip=${ip}`

/** Inverse of formatRelayQuestion; undefined for another version, key, or no address. A CR before the line end is forgiven. */
export function parseRelayQuestion(line: string): RelayQuestion | undefined {
  const text = line.endsWith('\r') ? line.slice(0, -1) : line
  const pairs = text.startsWith('relay ') ? parseKeyValues(text.slice('relay '.length)) : undefined
  if (pairs === undefined || pairs.size !== 2 || pairs.get('v') !== '1') return undefined
  const ip = parseIpAddress(pairs.get('ip') ?? '')
  return ip === undefined ? undefined : { ip }
}
