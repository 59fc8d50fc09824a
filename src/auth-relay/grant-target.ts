/** Parses the addresses, networks, logins, durations and reasons of a command line. */
import { UsageFault } from '../base/errors.ts'
import type { BlockTarget } from '../grants/grant-store.ts'
import { parseDuration } from '../settings/duration.ts'
import {
  formatNetwork,
  type IpAddress,
  type Network,
  networkOf,
  parseIpAddress,
  parseNetwork,
} from '../wire/ip-address.ts'

/**
 * An address or a network in CIDR notation. @throws UsageFault with the correct form, and with the
 * network that was probably meant.
 */
export function readNetwork(text: string): Network {
  const network = parseNetwork(text)
  if (network !== undefined) return network
  const [, address = '', length = ''] = /^(.*)\/(\d{1,3})$/.exec(text) ?? []
  const ip = parseIpAddress(address)
  const meant = ip === undefined ? undefined : formatNetwork(networkOf(ip, Number(length)))
  throw new UsageFault(
    meant === undefined
      ? `${text} is neither an address nor a network: write 192.0.2.7, 192.0.2.0/24 or 2001:db8::/64`
      : `${text} has bits set behind its prefix: did you mean ${meant}?`,
  )
}

/** @throws UsageFault if the text is not a numeric address. */
export function readAddress(text: string): IpAddress {
  const ip = parseIpAddress(text)
  if (ip === undefined) throw new UsageFault(`${text} is not an address: write it in numbers, 192.0.2.7 or 2001:db8::7`)
  return ip
}

/**
 * The target of a block: an address, a network, or else a login name.
 * @throws UsageFault for an invalid network, and for a name that is empty or too long.
 */
export function readBlockTarget(text: string): BlockTarget {
  const looksLikeAddress = /^[\d.]+(\/\d+)?$|:|^[\d.:a-fA-F]+\/\d+$/.test(text)
  if (looksLikeAddress) return { kind: 'network', network: readNetwork(text) }
  if (text === '' || [...text].length > MAX_LOGIN)
    throw new UsageFault(`a login name has 1 to ${MAX_LOGIN} characters: name an address, a network or a login`)
  return { kind: 'login', login: text }
}

const MAX_LOGIN = 255

/** The text of a network. A single address has no `/32` and no `/128`. */
export const formatTarget = ({ base, prefixLength }: Network): string =>
  prefixLength === (base.includes(':') ? 128 : 32) ? base : formatNetwork({ base, prefixLength })

/**
 * Seconds of an option such as `--for`; null without the option. @throws UsageFault with the
 * correct form.
 */
export function readPeriod(text: string | undefined, option = '--for'): number | null {
  if (text === undefined) return null
  const seconds = parseDuration(text)
  if (seconds === undefined) throw new UsageFault(`${option} ${text} is not a duration: write 90s, 30min, 8h, 2d or 1w`)
  return seconds
}

/** The text of `--reason`. @throws UsageFault if it is too long for the database. */
export function readReason(text: string): string {
  if ([...text].length > MAX_REASON)
    throw new UsageFault(`--reason is longer than ${MAX_REASON} characters: shorten it`)
  return text
}
const MAX_REASON = 500
