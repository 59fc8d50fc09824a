import { type IpAddress, parseIpAddress } from './ip-address.ts'
import { parseKeyValues } from './lines.ts'

/**
 * A grant was used: some mail server let this address relay because of it. Sent by the gate, which
 * may not write the database.
 */
export type RelayUse = {
  readonly ip: IpAddress
  /** Unix seconds. */
  readonly at: number
  /** The service that looked up the address: `wrap`, `gate`, `policy`, `socketmap`, `query`. */
  readonly service: string
}

/** Every service that reports. `question` is the former name of `query`. */
export const RELAY_SERVICES: ReadonlySet<string> = new Set(['wrap', 'gate', 'policy', 'socketmap', 'query', 'question'])

const SERVICE = /^[a-z]{1,16}$/

/** A gate that was not restarted after an upgrade still sends the former key `door`. */
const serviceOf = (pairs: ReadonlyMap<string, string>): string => pairs.get('service') ?? pairs.get('door') ?? ''

/**
 * `use v=1 ip=192.0.2.7 at=1764000000 service=gate`, without LF. Nothing answers it: it is a
 * report, best effort.
 */
export const formatRelayUse = ({ ip, at, service }: RelayUse): string => `use v=1 ip=${ip} at=${at} service=${service}`

/** Inverse of formatRelayUse; undefined for anything else. */
export function parseRelayUse(line: string): RelayUse | undefined {
  const pairs = line.startsWith('use ') ? parseKeyValues(line.slice('use '.length)) : undefined
  if (pairs === undefined || pairs.size !== 4 || pairs.get('v') !== '1') return undefined
  const ip = parseIpAddress(pairs.get('ip') ?? '')
  const at = pairs.get('at') ?? ''
  const service = serviceOf(pairs)
  return ip === undefined || !/^\d{1,12}$/.test(at) || !SERVICE.test(service)
    ? undefined
    : { ip, at: Number(at), service }
}

/**
 * The gate's decision for a client: a grant was found; no grant was found; no answer came in time,
 * so the relay stays closed; or no lookup, because nothing opens the relay for such an address.
 */
export const RELAY_VERDICTS = ['relayed', 'refused', 'undecided', 'never'] as const
export type RelayVerdict = (typeof RELAY_VERDICTS)[number]

/**
 * The number of decisions of one service of a gate since its last report. The gate sends it,
 * because the gate may not write to the database.
 */
export type RelayTally = {
  /** Unix seconds of the last decision; all of them are of the same minute. */
  readonly at: number
  /** As in RelayUse. */
  readonly service: string
  readonly counts: Readonly<Record<RelayVerdict, number>>
  /** Some of the refused addresses, the latest last; at most MAX_RECENT. */
  readonly recent: readonly IpAddress[]
}

/** Refused clients come from the whole Internet: a report has a sample of them. */
export const MAX_RECENT = 20
/** With every number and address at its longest. */
export const MAX_RELAY_TALLY_LINE = 1024

/**
 * `tally v=1 at=1764000000 service=gate relayed=3 refused=120 undecided=0 never=1
 * recent=192.0.2.7,2001:db8::7`, without LF. Nothing answers it.
 */
export const formatRelayTally = ({ at, service, counts, recent }: RelayTally): string =>
  `tally v=1 at=${at} service=${service} ${RELAY_VERDICTS.map(verdict => `${verdict}=${counts[verdict]}`).join(' ')} recent=${recent.join(',')}`

/** Inverse of formatRelayTally; undefined for anything else. */
export function parseRelayTally(line: string): RelayTally | undefined {
  const pairs = line.startsWith('tally ') ? parseKeyValues(line.slice('tally '.length)) : undefined
  if (pairs === undefined || pairs.size !== 8 || pairs.get('v') !== '1') return undefined
  const number = (key: string): number => Number(/^\d{1,12}$/.exec(pairs.get(key) ?? '')?.[0] ?? Number.NaN)
  const [relayed, refused, undecided, never] = [
    number('relayed'),
    number('refused'),
    number('undecided'),
    number('never'),
  ]
  const [at, service, recent] = [number('at'), serviceOf(pairs), parseRecent(pairs.get('recent'))]
  if (recent === undefined || !SERVICE.test(service)) return undefined
  if ([at, relayed, refused, undecided, never].some(Number.isNaN)) return undefined
  return { at, service, counts: { relayed, refused, undecided, never }, recent }
}

function parseRecent(text: string | undefined): readonly IpAddress[] | undefined {
  if (text === '') return []
  const words = text?.split(',') ?? []
  const addresses = words.map(parseIpAddress).filter(ip => ip !== undefined)
  return words.length === 0 || words.length > MAX_RECENT || addresses.length < words.length ? undefined : addresses
}
