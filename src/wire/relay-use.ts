import { type IpAddress, parseIpAddress } from './ip-address.ts'
import { parseKeyValues } from './key-values.ts'

/** A grant was used: some mail server let this address relay because of it. Sent by the gate, which may not write the database. */
export type RelayUse = {
  readonly ip: IpAddress
  /** Unix seconds. */
  readonly at: number
  /** Which door asked: `wrap`, `gate`, `policy`, `socketmap`, `question`. */
  readonly door: string
}

/** Every door that reports. */
export const RELAY_DOORS: ReadonlySet<string> = new Set(['wrap', 'gate', 'policy', 'socketmap', 'question'])

const DOOR = /^[a-z]{1,16}$/

/** `use v=1 ip=192.0.2.7 at=1764000000 door=gate`, without LF. Nothing answers it: it is a report, best effort. */
export const formatRelayUse = ({ ip, at, door }: RelayUse): string => `use v=1 ip=${ip} at=${at} door=${door}`

/** Inverse of formatRelayUse; undefined for anything else. */
export function parseRelayUse(line: string): RelayUse | undefined {
  const pairs = line.startsWith('use ') ? parseKeyValues(line.slice('use '.length)) : undefined
  if (pairs === undefined || pairs.size !== 4 || pairs.get('v') !== '1') return undefined
  const ip = parseIpAddress(pairs.get('ip') ?? '')
  const at = pairs.get('at') ?? ''
  const door = pairs.get('door') ?? ''
  return ip === undefined || !/^\d{1,12}$/.test(at) || !DOOR.test(door) ? undefined : { ip, at: Number(at), door }
}
