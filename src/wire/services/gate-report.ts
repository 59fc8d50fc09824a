/** Counts of a device and faults of a client, which a gate reports on its query socket. */
import { type IpAddress, parseIpAddress } from '../ip-address.ts'
import { percentDecode, percentEncode } from '../key-values.ts'

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

/**
 * Faults of a client that the front of a gate logs, by the names of their log events: each in
 * words, with the action of the client's administrator.
 */
export const CLIENT_FAULTS = {
  auth_refused: {
    text: 'it tried AUTH, which the mail server does not offer',
    action: 'switch authentication off in the device',
  },
  hello_replaced: {
    text: 'it greeted with an invalid name, which the gate replaced',
    action: 'nothing, or set a host name in the device',
  },
  line_ends_repaired: {
    text: 'it ended lines without CR LF, which the gate repaired',
    action: 'if the device hangs at the end of a message, update its firmware',
  },
} as const
export type ClientFault = keyof typeof CLIENT_FAULTS

const isClientFault = (name: string): name is ClientFault => Object.hasOwn(CLIENT_FAULTS, name)
export const CLIENT_FAULT_NAMES: readonly ClientFault[] = Object.keys(CLIENT_FAULTS).filter(isClientFault)

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
  [
    'faults',
    ...CLIENT_FAULT_NAMES.flatMap(name => (faults[name] === undefined ? [] : [`${name}=${faults[name]}`])),
  ].join(' ')

/** Inverse of formatClientFaults; undefined for anything else. Unknown faults are left out. */
export function parseClientFaults(line: string): ClientFaults | undefined {
  if (!/^faults(?: [a-z_]{1,32}=\d{1,12})*$/.test(line)) return undefined
  const times = new Map([...line.matchAll(/ ([a-z_]+)=(\d+)/g)].map(([, name = '', time]) => [name, Number(time)]))
  return Object.fromEntries(CLIENT_FAULT_NAMES.flatMap(name => (times.has(name) ? [[name, times.get(name)]] : [])))
}
