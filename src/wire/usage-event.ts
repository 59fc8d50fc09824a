/** Reports of the gate to authd: used grants, counts of decisions, and messages of devices. */
import { type IpAddress, parseIpAddress } from './ip-address.ts'
import { parseKeyValues, percentDecode, percentEncode } from './key-values.ts'

/**
 * A usage event: a mail server let this address relay because of a grant. The gate sends it to
 * authd, because the gate may not write to the database.
 */
export type UsageEvent = {
  readonly ip: IpAddress
  /** Unix seconds. */
  readonly at: number
  /**
   * The service that looked up the address: `wrap`, `gate`, `front`, `policy`, `socketmap`,
   * `query`.
   */
  readonly service: string
}

/** Every service that reports. `question` is the former name of `query`. */
export const RELAY_SERVICES: ReadonlySet<string> = new Set([
  ...(['wrap', 'gate', 'front', 'policy', 'socketmap', 'query'] as const),
  'question',
])

const SERVICE = /^[a-z]{1,16}$/

/**
 * A gate that was not restarted after an upgrade still sends the former key `door`, and the former
 * word `use`.
 */
const serviceOf = (pairs: ReadonlyMap<string, string>): string => pairs.get('service') ?? pairs.get('door') ?? ''

/** The line of a usage event, without LF. It gets no answer. */
export const formatUsageEvent = ({ ip, at, service }: UsageEvent): string =>
  `usage v=1 ip=${ip} at=${at} service=${service}`

/** Inverse of formatUsageEvent; undefined for anything else. */
export function parseUsageEvent(line: string): UsageEvent | undefined {
  const [, fields] = /^(?:usage|use) (.*)$/s.exec(line) ?? []
  const pairs = fields === undefined ? undefined : parseKeyValues(fields)
  if (pairs === undefined || pairs.size !== 4 || pairs.get('v') !== '1') return undefined
  const ip = parseIpAddress(pairs.get('ip') ?? '')
  const at = pairs.get('at') ?? ''
  const service = serviceOf(pairs)
  return ip === undefined || !/^\d{1,12}$/.test(at) || !SERVICE.test(service)
    ? undefined
    : { ip, at: Number(at), service }
}

/**
 * The gate's decision for a client. `relayed`: a grant was found. `refused`: no grant was found.
 * `undecided`: no answer came in time, so the relay stays closed. `never`: the address can have no
 * grant, so no lookup was made.
 */
export const RELAY_VERDICTS = ['relayed', 'refused', 'undecided', 'never'] as const
export type RelayVerdict = (typeof RELAY_VERDICTS)[number]

/** The number of decisions of one service of a gate since its last report. */
export type RelayTally = {
  /** Unix seconds of the last decision. All decisions are of one minute. */
  readonly at: number
  /** See UsageEvent. */
  readonly service: string
  readonly counts: Readonly<Record<RelayVerdict, number>>
  /** The last refused addresses, the latest last; at most MAX_RECENT. */
  readonly recent: readonly IpAddress[]
}

/** Addresses of refused clients in a report. More would fill memory, because anyone can connect. */
export const MAX_RECENT = 20
/** Longest line in octets without LF, for the longest numbers and addresses. */
export const MAX_RELAY_TALLY_LINE = 1024

/**
 * The line of a tally, without LF: `tally v=1 at=1764000000 service=gate relayed=3 refused=120
 * undecided=0 never=1 recent=192.0.2.7,2001:db8::7`. It gets no answer.
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

/** The number of messages of a device since the last report of a gate. */
export type DeviceMessages = {
  /** Unix seconds of the last message. All messages are of one hour. */
  readonly at: number
  readonly device: string
  readonly count: number
}

/** `messages v=1 at=1764000000 device=copier-2 count=3`, without LF. It gets no answer. */
export const formatDeviceMessages = ({ at, device, count }: DeviceMessages): string =>
  `messages v=1 at=${at} device=${percentEncode(device)} count=${count}`

/** Inverse of formatDeviceMessages; undefined for anything else. */
export function parseDeviceMessages(line: string): DeviceMessages | undefined {
  const [, at, name = '', count] = /^messages v=1 at=(\d{1,12}) device=(\S{1,765}) count=(\d{1,9})$/.exec(line) ?? []
  const device = percentDecode(name)
  if (at === undefined || device === undefined || device === '' || device.includes('\0')) return undefined
  return { at: Number(at), device, count: Number(count) }
}
