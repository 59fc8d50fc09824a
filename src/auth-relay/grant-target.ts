/** Parses the addresses, networks, logins, durations and reasons of a command line. */
import { UsageFault } from '../base/errors.ts'
import type { BlockTarget } from '../grants/grant-store.ts'
import { parseDuration } from '../settings/duration.ts'
import {
  familyOf,
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
  if (network === undefined) throw new UsageFault(faultOfNetwork(text))
  return network
}

function faultOfNetwork(text: string): string {
  const [, address = '', length = ''] = /^(.*)\/(\d{1,3})$/.exec(text) ?? []
  const ip = parseIpAddress(address)
  if (ip === undefined)
    return `${text} is neither an address nor a network: write 192.0.2.7, 192.0.2.0/24 or 2001:db8::/64`
  const most = familyOf(ip) === 4 ? 32 : 128
  return Number(length) > most
    ? `${text} has a prefix longer than ${most} bits: write 192.0.2.0/24 or 2001:db8::/64`
    : `${text} has bits set behind its prefix: did you mean ${formatNetwork(networkOf(ip, Number(length)))}?`
}

/** @throws UsageFault if the text is not a numeric address. */
export function readAddress(text: string): IpAddress {
  const ip = parseIpAddress(text)
  if (ip === undefined) throw new UsageFault(`${text} is not an address: write it in numbers, 192.0.2.7 or 2001:db8::7`)
  return ip
}

/**
 * The target of a block: an address, a network, or else a login name. `isLogin`: a login name,
 * even if the text looks like an address.
 * @throws UsageFault for an invalid network, and for a name that is empty or too long.
 */
export function readBlockTarget(text: string, isLogin = false): BlockTarget {
  if (!isLogin && looksLikeAddress(text)) {
    const network = parseNetwork(text)
    if (network === undefined) throw new UsageFault(`${faultOfNetwork(text)} (the name of a login needs --login)`)
    return { kind: 'network', network }
  }
  if (text === '' || [...text].length > MAX_LOGIN)
    throw new UsageFault(`a login name has 1 to ${MAX_LOGIN} characters: name an address, a network or a login`)
  return { kind: 'login', login: text }
}

/**
 * True also for a mistyped address, so that no login of that name is blocked instead. A login may
 * consist of digits and dots (`4930.123`), or contain one colon (`DOM:ann`).
 */
const looksLikeAddress = (text: string): boolean =>
  // Four numbers, perhaps with a dot or a port behind them.
  /^\d+(\.\d+){3}\.?(:\d*)?$/.test(text) ||
  // IPv6 has at least two colons; a zone, brackets and a port are common mistakes.
  /^\[?[\da-f.]*:[\da-f.]*:[\da-f.:]*(%.*|\](:\d*)?)?$/i.test(text) ||
  /^[\da-f.:]*[\d.:][\da-f.:]*\/\d*$/i.test(text)

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
